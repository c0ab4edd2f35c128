"""Leases: at most one holder at a time of a resource that several processes want, with a fencing number, on any store.

A lease expires unless its holder renews it. A holder that was paused for longer can tell only by its clock that it has
lost the lease, so it checks `Lease.held` immediately before each write. A receiver of writes that knows fencing numbers
can also refuse a number lower than one it has seen; MCP servers know none, so the clock check is needed too.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from mcpconn.gateway.store.base import Key, Store


class Lease:
    """A lease that this process acquired."""

    def __init__(self, key: Key, number: int, holder: bytes, until: float, now: Callable[[], float]) -> None:
        self.key = key
        self.number = number
        """The fencing number: greater than that of every earlier holder. It stays the same while it is renewed."""
        self.holder = holder
        self._version = number
        self._until = until
        self._now = now

    @property
    def held(self) -> bool:
        """Whether this process still holds it, by its own clock. Check immediately before each action that only a
        holder may take."""
        return self._now() < self._until

    @property
    def until(self) -> float:
        """When it expires unless it is renewed, by the clock of `Leases`."""
        return self._until


class Leases:
    """Acquires leases on a store."""

    def __init__(self, store: Store, *, now: Callable[[], float] = time.monotonic) -> None:
        """
        Args:
            store: The store that keeps leases as records.
            now: A monotonic clock in seconds. If the other processes' clocks advance while the machine sleeps, this
            must too.
        """
        self._store = store
        self._now = now

    async def take(self, key: Key, holder: bytes, *, ttl: float) -> Lease | None:
        """Acquire the lease; None if another process holds it.

        Args:
            key: What it is for.
            holder: What `holder` returns to other processes, such as an address.
            ttl: Seconds until it expires unless it is renewed.

        Raises:
            StoreUnavailable: it may have been acquired; then it expires after `ttl`.
        """
        # Counted from before the request, while the store counts from later, so the holder stops before the store
        # expires it.
        until = self._now() + ttl
        number = await self._store.add(key, holder, ttl=ttl)
        return None if number is None else Lease(key, number, holder, until, self._now)

    async def renew(self, lease: Lease, *, ttl: float) -> bool:
        """Renew it. False if this process no longer holds it; then it has to acquire a new one.

        Raises:
            StoreUnavailable: it is held until `Lease.held` is false.
        """
        until = self._now() + ttl
        version = await self._store.swap(lease.key, lease._version, lease.holder, ttl=ttl)
        if version is None:
            lease._until = -1.0
            return False
        lease._version, lease._until = version, until
        return True

    async def release(self, lease: Lease) -> None:
        """Release it if this process still holds it."""
        lease._until = -1.0
        await self._store.delete(lease.key, version=lease._version)

    async def holder(self, key: Key) -> bytes | None:
        """The current holder; None if there is none."""
        record = await self._store.get(key)
        return None if record is None else record.value
