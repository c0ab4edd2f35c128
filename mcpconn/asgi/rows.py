"""The data that the page shows for a connection."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from mcpconn.connection import Connection
from mcpconn.core.states import State
from mcpconn.manager import Manager
from mcpconn.runtime.journal import Change, Notice
from mcpconn.status import change_status

HOUR = 3600.0
"""Seconds of history that the strip of a row shows."""
KEPT = 240
"""Changes of state kept for a strip: one in 15 s on average. Of a connection that changes faster, the oldest go."""


class History:
    """The states of each connection in the last hour."""

    def __init__(self, manager: Manager, *, wall: Callable[[], float]) -> None:
        """
        Args:
            manager: Its connections; those that are added later, too.
            wall: Seconds since 1970.
        """
        self.wall = wall
        self._since = wall()
        self._spans: dict[str, deque[tuple[float, str]]] = {}
        manager.subscribe(self._note)

    def _note(self, change: Change) -> None:
        spans = self._spans.setdefault(change.server, deque(maxlen=KEPT))
        if not spans:
            # The state before the first notice is the source of the first transition.
            spans.append((max(self._since, change.at - change.elapsed), change.source.value))
        if change.source is not change.target:
            spans.append((change.at, change.target.value))

    def of(self, connection: Connection) -> list[tuple[float, str]]:
        """When it entered which state: the first entry is what it was in an hour ago, or when this began."""
        spans = self._spans.get(connection.name)
        if not spans:
            return [(self._since, connection.state.value)]
        begin = self.wall() - HOUR
        while len(spans) > 1 and spans[1][0] <= begin:
            spans.popleft()
        return list(spans)

    def keep(self, names: Iterable[str]) -> None:
        """Forget all connections but these."""
        kept = set(names)
        for name in [name for name in self._spans if name not in kept]:
            del self._spans[name]


def row(connection: Connection, now: float) -> dict[str, Any]:
    """One line of the table.

    Args:
        connection: Whose.
        now: Seconds since 1970. Times are absolute, so that a row whose connection waits is the same each second.
    """
    status = connection.status()
    retry_in = status["retry_in"]
    failure = status["last_failure"]
    counts = status["counts"]
    return {
        "name": status["name"],
        "address": status["address"],
        "transport": status["transport"],
        "state": status["state"],
        "since": status["since"],
        "epoch": status["epoch"],
        "era": status["era"],
        "in_flight": status["in_flight"],
        "waiting": status["waiting"],
        "calls": counts.get("calls", 0),
        "unknown": counts.get("outcome.unknown", 0),
        "failure": failure["summary"] if failure is not None else None,
        "kind": failure["kind"] if failure is not None else None,
        "progress": status["progress"],
        "retry_at": None if retry_in is None else round(now + retry_in),
    }


def news(notice: Notice) -> dict[str, Any] | None:
    """A transition as the page shows it; None for what it does not show one by one."""
    return {"name": notice.server, **change_status(notice)} if isinstance(notice, Change) else None


def summary(connections: Mapping[str, Connection]) -> dict[str, int]:
    """How many connections are in each state."""
    counts = {state.value: 0 for state in State}
    for connection in connections.values():
        counts[connection.state.value] += 1
    return counts
