"""The identity in a bearer credential, and the errors of invalid ones."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from mcpconn.gateway.principals import Principal

INBOUND_KEY = "mcpconn.inbound"
"""Where the gate leaves a request's token in its ASGI scope, for servers that get another in exchange."""


@dataclass(frozen=True)
class Inbound:
    """The token that a client sent to the gateway."""

    token: str = field(repr=False)
    expires: float
    """Seconds since 1970."""
    scopes: frozenset[str] = frozenset()

    @cached_property
    def digest(self) -> str:
        """Identifies the token without revealing it."""
        return hashlib.sha256(self.token.encode("utf-8", "surrogatepass")).hexdigest()


@dataclass(frozen=True)
class Identity:
    """Who a credential belongs to."""

    principal: Principal
    scopes: frozenset[str] = frozenset()
    expires: float | None = None
    """Seconds since 1970; None if it does not expire by itself."""
    inbound: Inbound | None = None
    """The token itself, if it is one that can be exchanged."""


class Refused(Exception):
    """The credential is not valid. The text says why, without quoting it."""


class NotNow(Exception):
    """The credential cannot be checked at the moment, because the issuer's keys were never loaded."""


def inbound_of(scope: Mapping[str, Any]) -> Inbound | None:
    """The token that an HTTP request came with; None if it came with a key, or with nothing."""
    found: Inbound | None = scope.get(INBOUND_KEY)
    return found
