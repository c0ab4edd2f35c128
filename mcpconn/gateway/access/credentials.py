"""What a bearer credential says of who sent it, and what is wrong with one that says nothing."""

from __future__ import annotations

from dataclasses import dataclass

from mcpconn.gateway.principals import Principal


@dataclass(frozen=True)
class Identity:
    """Who a credential belongs to."""

    principal: Principal
    scopes: frozenset[str] = frozenset()
    expires: float | None = None
    """Seconds since 1970; None if it does not expire by itself."""


class Refused(Exception):
    """The credential opens nothing. The text says why, without any part of it."""


class NotNow(Exception):
    """Whether the credential is good cannot be told at present: the issuer's keys were never loaded."""
