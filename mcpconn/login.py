"""The settings of a login by OAuth in a file, and the location of its tokens."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Sequence
from dataclasses import field
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator

from mcpconn.loopback import LOOPBACK
from mcpconn.validate import Text, settings


def state_directory() -> Path:
    """The directory for data that must outlive a process (XDG Base Directory Specification)."""
    base = os.environ.get("XDG_STATE_HOME")
    return (Path(base) if base else Path.home() / ".local" / "state") / "mcpconn"


def token_file(url: str) -> Path:
    """The file with the tokens for the server at `url`. All programs of this user share it.

    Its name contains a hash of the URL, because two servers on one host have different tokens.
    """
    parts = urlsplit(url)
    address = parts._replace(netloc=parts.netloc.rpartition("@")[2], fragment="").geturl()
    host = re.sub(r"[^A-Za-z0-9.-]", "_", parts.hostname or "")
    return state_directory() / "tokens" / f"{host}-{hashlib.sha256(address.encode()).hexdigest()[:16]}.json"


def _scopes(given: Sequence[str]) -> tuple[str, ...]:
    for scope in given:
        if not re.fullmatch(r"[\x21\x23-\x5b\x5d-\x7e]+", scope):
            # RFC 6749, 3.3. A space separates scopes, so a scope cannot contain one.
            raise ValueError("must be a list of scopes, each without spaces, quotes and backslashes")
    return tuple(given)


def _redirect(text: str) -> str:
    parts = urlsplit(text.strip())
    try:
        local = parts.hostname in LOOPBACK and parts.port != 0
    except ValueError:
        local = False
    if parts.scheme != "http" or not local:
        raise ValueError("must be an http address on this machine, such as http://127.0.0.1:8765/callback")
    return text.strip()


def _listed(given: object) -> object:
    """A list of scopes, or one string of scopes separated by spaces, as in OAuth."""
    return given.split() if isinstance(given, str) else given


@settings
class Login:
    """A login by OAuth with a person's consent, as `ServerConfig.auth` or as `auth` in an mcp.json.

    The tokens are in `token_file(url)`. `mcpconn login` stores them there, and every connection with this setting uses
    and renews them. If there are none, the connection fails with kind `auth` and an error that says so.

    Raises:
        ConfigError: a value that cannot be used.
    """

    client_id: Text | None = None
    """Id of a client that is registered with the authorization server. None: a client is registered during the
    login."""
    client_secret: Text | None = field(default=None, repr=False)
    """Its secret; None for a public client."""
    scopes: Annotated[Sequence[Text], BeforeValidator(_listed), AfterValidator(_scopes)] = ()
    """The scopes to request; empty: those that the server names."""
    redirect_uri: Annotated[Text, AfterValidator(_redirect)] | None = None
    """The registered redirect URI after the login. None: a free port of this machine."""

    def __repr__(self) -> str:
        return f"<Login {'client of its own' if self.client_id is None else 'configured client'}>"
