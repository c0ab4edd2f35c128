"""Connections that a manager removes: at once, or when nobody has used them for a while (one per user, say)."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator
from dataclasses import dataclass
from heapq import heappop, heappush
from typing import Any

import anyio

from mcpconn.connection import Connection
from mcpconn.runtime.owner import Nursery


@dataclass
class _Lease:
    connection: Connection
    ttl: float
    asked: float = -math.inf
    """When it was last asked for."""
    calls: int = 0
    """The host's calls when it was last looked at."""

    def due(self, now: float) -> float:
        """When it ends if nothing happens until then. A connection in use is looked at again one `ttl` later."""
        calls, busy, used = self.connection.usage()
        if calls != self.calls:
            self.calls, self.asked = calls, max(self.asked, now if used is None else used)
        return (now if busy else self.asked) + self.ttl


class Leases:
    """The leases of one manager, kept by one task, which is there only while leases can end."""

    def __init__(self, *, now: Callable[[], float], remove: Callable[[str], object]) -> None:
        """
        Args:
            now: The clock of the event loop.
            remove: Removes a connection from the manager.
        """
        self._now = now
        self._remove = remove
        self._leases: dict[str, _Lease] = {}
        self._queue: list[tuple[float, str]] = []
        """When to look at which: no later than it can end. Names whose lease is over are skipped."""
        self._group: Nursery | None = None
        self._new = anyio.Event()
        self._scope: anyio.CancelScope | None = None

    def __contains__(self, name: object) -> bool:
        return name in self._leases

    def hold(self, connection: Connection, ttl: float) -> None:
        """Keep `connection` until it has not been used for `ttl` seconds, counted from now.

        Args:
            connection: The connection; what was agreed for it before is forgotten.
            ttl: May be infinite.
        """
        lease = self._leases.get(connection.name)
        if lease is None:
            lease = self._leases[connection.name] = _Lease(connection, math.inf)
        sooner, lease.ttl = ttl < lease.ttl, ttl
        if self._group is None:
            return
        lease.asked = self._now()
        if sooner:
            self._queue_up(connection.name, lease)

    def replace(self, connection: Connection) -> None:
        """The connection of this name is another object now, on the same terms."""
        lease = self._leases.get(connection.name)
        if lease is not None:
            lease.connection, lease.calls = connection, 0

    def drop(self, name: str) -> None:
        """The connection was removed."""
        self._leases.pop(name, None)

    def start(self, group: Nursery) -> None:
        """Count from now, in a task of `group`."""
        self._group = group
        for name, lease in self._leases.items():
            lease.asked = self._now()
            self._queue_up(name, lease)

    def end(self) -> None:
        """End no more leases."""
        self._group = None
        if self._scope is not None:
            self._scope.cancel()

    def _queue_up(self, name: str, lease: _Lease) -> None:
        if self._group is None or lease.ttl == math.inf:
            return
        heappush(self._queue, (lease.asked + lease.ttl, name))
        self._new.set()
        if self._scope is None:
            self._scope = anyio.CancelScope()
            self._group.start_soon(self._watch, self._scope)

    async def _watch(self, scope: anyio.CancelScope) -> None:
        try:
            with scope:
                while self._queue:
                    with anyio.CancelScope(deadline=self._queue[0][0]):
                        await self._new.wait()
                    self._new = anyio.Event()
                    self._look()
        finally:
            self._scope = None

    def _look(self) -> None:
        now = self._now()
        while self._queue and self._queue[0][0] <= now:
            _, name = heappop(self._queue)
            lease = self._leases.get(name)
            if lease is None or lease.ttl == math.inf:
                continue
            due = lease.due(now)
            if due > now:
                heappush(self._queue, (due, name))
            else:
                self._remove(name)


class Removal:
    """A connection that was removed from its manager. `await` it to wait until nothing is left of it."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def __await__(self) -> Generator[Any, None, None]:
        return self._connection.ended().__await__()
