"""One holder at a time for a thing that several processes want: a lease with a fencing number, on any store.

A lease ends by itself when its holder no longer renews it. A holder that was paused for longer cannot know that it
lost the lease except by its clock, so it asks `Lease.held` immediately before each write; and whoever receives the
write can refuse a number lower than one it has seen. Both are needed: servers know no fencing number.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from mcpconn.gateway.store.base import Key, Store


class Lease:
    """A lease that this process took."""

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
        """Whether it is still ours by our own clock. Ask immediately before each thing that only a holder may do."""
        return self._now() < self._until

    @property
    def until(self) -> float:
        """When it ends unless it is renewed, by the clock of `Leases`."""
        return self._until


class Leases:
    """Takes leases on a store."""

    def __init__(self, store: Store, *, now: Callable[[], float] = time.monotonic) -> None:
        """
        Args:
            store: Where leases are records.
            now: Monotonic seconds. It must go on while the machine sleeps if others' clocks do.
        """
        self._store = store
        self._now = now

    async def take(self, key: Key, holder: bytes, *, ttl: float) -> Lease | None:
        """The lease, if nobody holds it.

        Args:
            key: What it is for.
            holder: What others are notified of its holder, such as an address.
            ttl: Seconds until it ends unless it is renewed.

        Raises:
            StoreUnavailable: it may have been taken; then it ends by itself after `ttl`.
        """
        # Counted from before the request: the store counts from later, so the holder gives up first.
        until = self._now() + ttl
        number = await self._store.add(key, holder, ttl=ttl)
        return None if number is None else Lease(key, number, holder, until, self._now)

    async def renew(self, lease: Lease, *, ttl: float) -> bool:
        """Prolong it. False if it is no longer ours; it can never be ours again, only taken again.

        Raises:
            StoreUnavailable: it is ours until `Lease.held` says no.
        """
        until = self._now() + ttl
        version = await self._store.swap(lease.key, lease._version, lease.holder, ttl=ttl)
        if version is None:
            lease._until = -1.0
            return False
        lease._version, lease._until = version, until
        return True

    async def release(self, lease: Lease) -> None:
        """Give it up, if it is still ours."""
        lease._until = -1.0
        await self._store.delete(lease.key, version=lease._version)

    async def holder(self, key: Key) -> bytes | None:
        """Who holds it now; None if nobody does."""
        record = await self._store.get(key)
        return None if record is None else record.value
