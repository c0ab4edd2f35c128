"""Keeping secrets out of everything that is shown: logs, errors, reprs, status.

`places` says what in a configuration is secret, `forms` what a secret looks like once it has been quoted, encoded or
escaped, and `redactor` replaces both in texts.
"""

from mcpconn.redact.places import (
    is_secret_value,
    redact_url,
    secrets_of_args,
    secrets_of_cookies,
    secrets_of_env,
    secrets_of_headers,
    secrets_of_inherited,
    secrets_of_url,
)
from mcpconn.redact.redactor import HIDDEN, Redactor, redacted
from mcpconn.redact.tokens import looks_like_token

__all__ = [
    "HIDDEN",
    "Redactor",
    "is_secret_value",
    "looks_like_token",
    "redact_url",
    "redacted",
    "secrets_of_args",
    "secrets_of_cookies",
    "secrets_of_env",
    "secrets_of_headers",
    "secrets_of_inherited",
    "secrets_of_url",
]
