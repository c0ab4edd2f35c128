"""Connections that a manager removes: at once, or after a period without use (for example one per user)."""

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
    """When the connection was last requested."""
    calls: int = 0
    """The number of the host's calls at the last check."""

    def due(self, now: float) -> float:
        """When the lease ends if the connection is not used. A connection in use is checked again one `ttl` later."""
        calls, busy, used = self.connection.usage()
        if calls != self.calls:
            self.calls, self.asked = calls, max(self.asked, now if used is None else used)
        return (now if busy else self.asked) + self.ttl


class Leases:
    """The leases of one manager. One task checks them; it runs only while there are leases that can end."""

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
        """When to check which connection: no later than its lease can end. Names whose lease is over are skipped."""
        self._group: Nursery | None = None
        self._new = anyio.Event()
        self._scope: anyio.CancelScope | None = None

    def __contains__(self, name: object) -> bool:
        return name in self._leases

    def hold(self, connection: Connection, ttl: float) -> None:
        """Keep `connection` until it has not been used for `ttl` seconds, counted from now.

        Args:
            connection: The connection; an earlier lease for it is replaced.
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
        """A new object has replaced the connection with this name; its lease is unchanged."""
        lease = self._leases.get(connection.name)
        if lease is not None:
            lease.connection, lease.calls = connection, 0

    def drop(self, name: str) -> None:
        """The connection was removed."""
        self._leases.pop(name, None)

    def start(self, group: Nursery) -> None:
        """Start to check leases, in a task of `group`."""
        self._group = group
        for name, lease in self._leases.items():
            lease.asked = self._now()
            self._queue_up(name, lease)

    def end(self) -> None:
        """Stop checking leases."""
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
    """A connection that was removed from its manager. `await` it to wait until it is completely closed."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def __await__(self) -> Generator[Any, None, None]:
        return self._connection.ended().__await__()
