"""How much the gateway holds at once: the `limits` of the `gateway` section."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

from mcpconn.gateway.http.sockets import CONNECTIONS
from mcpconn.gateway.sections import Section, number_kind


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


LIMITS = {
    each.name: number_kind("must be a whole number above 0", most=1e9, whole=True)
    if isinstance(each.default, int)
    else number_kind("must be a number of seconds above 0", most=1e9)
    for each in fields(Capacity)
}


def parse_limits(section: Any) -> Capacity:
    """The limits in `gateway.limits`.

    Args:
        section: Its value; None if there is none.

    Raises:
        ConfigError: names the key and the fix.
    """
    if section is None:
        return Capacity()
    return Capacity(**Section("gateway.limits", section, LIMITS).values(LIMITS))
