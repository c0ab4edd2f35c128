"""How much the gateway holds at once: the `limits` of the `gateway` section."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from mcpconn.errors import ConfigError
from mcpconn.gateway.http.sockets import CONNECTIONS


@dataclass(frozen=True)
class Capacity:
    """The limits, and what happens beyond each."""

    sockets: int = CONNECTIONS
    """Connections of clients. One more is answered 503."""
    sessions: int = 10_000
    """Legacy sessions of one view, and streams of events of modern clients, that are held open. One more takes the
    place of an idle one; if none is idle it is answered 503. 10,000 is the SDK's own figure."""
    sessions_per_principal: int = 1000
    """The same for the sessions of one key or token's subject: only its own make room."""
    session_idle: float = 30 * 60.0
    """Seconds without a request and without an event stream after which a session is put away, as the SDK's server
    does. Its id stays good."""
    connections: int = 1000
    """Connections to servers, child processes included, that are held for clients and users. Above it the one that was
    used longest ago is closed."""
    connection_idle: float = 15 * 60.0
    """Seconds after which an unused connection is closed, and its child process ends: this is how long the
    child of a client lives that vanished without ending its session."""


def parse_limits(section: Any) -> Capacity:
    """The limits in `gateway.limits`.

    Args:
        section: Its value; None if there is none.

    Raises:
        ConfigError: names the key and the fix.
    """
    if section is None:
        return Capacity()
    if not isinstance(section, Mapping):
        raise ConfigError("gateway.limits must be a mapping", key="limits")
    whole = {each.name: isinstance(each.default, int) for each in fields(Capacity)}
    for key, value in section.items():
        where = f"gateway.limits.{key}"
        if key not in whole:
            raise ConfigError(f"{where}: unknown key; known: {', '.join(whole)}", key=str(key))
        wanted = "whole number" if whole[key] else "number of seconds"
        number = isinstance(value, int if whole[key] else (int, float)) and not isinstance(value, bool)
        if not number or not 0 < value < 1e9:
            raise ConfigError(f"{where} must be a {wanted} above 0", key=key)
    return Capacity(**section)
