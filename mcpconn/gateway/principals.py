"""The principal of a request."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property

from starlette.types import Scope

SCOPE_KEY = "mcpconn.principal"
"""Where the authentication leaves the principal in a request's ASGI scope."""


@dataclass(frozen=True)
class Principal:
    """One user of the gateway: issuer, client and subject of a token, or the name of a key."""

    client: str
    issuer: str = ""
    subject: str = ""

    @cached_property
    def digest(self) -> str:
        """The principal in keys and sealed texts: 32 hexadecimal digits, the same in every process.

        Each part is hashed with its length, so that no two principals are one text.
        """
        parts = "".join(f"{len(part)}:{part}" for part in (self.issuer, self.client, self.subject))
        return hashlib.sha256(parts.encode("utf-8", "surrogatepass")).hexdigest()[:32]

    def __str__(self) -> str:
        return self.subject or self.client


ANONYMOUS = Principal("anonymous")
"""All clients of a listener without access control."""


def principal_of(scope: Scope) -> Principal:
    """The principal of an HTTP request; `ANONYMOUS` if nothing was asked for."""
    found: Principal = scope.get(SCOPE_KEY, ANONYMOUS)
    return found
