"""One token bucket for each principal with a rate, shared by all replicas.

A request never waits for the store. A replica lets it in by its own account of the bucket, and in the background takes
what was spent from the shared one, several requests at once, and corrects its account by what it finds there. So a
burst that goes to several replicas within one round trip to the store can exceed the limit; the excess is a debt in the
shared bucket, which later requests pay. In the long run, all replicas together let in `rate` requests a second.

Time is the replicas' wall clock. One that is ahead fills the bucket early, once; the others then wait for it.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import anyio

from mcpconn.gateway.access.limits import Limits
from mcpconn.gateway.access.rights import Rights
from mcpconn.gateway.principals import Principal
from mcpconn.gateway.store import Key, Store, StoreUnavailable
from mcpconn.observe import log

INTERVAL = 0.1
"""Seconds between two settlements of this replica: a busy principal costs at most twenty operations a second."""
LOOK = 1.0
"""Seconds between two looks at a bucket that is not full while nothing is spent here. Without them a replica
would let in a whole burst before it learned what the others have let in meanwhile."""
AT_ONCE = 16
"""Principals that are settled at once."""
SPARE = 60.0
"""Seconds for which a bucket that is full again is kept, for clocks that differ. One that is missing is full."""


class SharedRates:
    """The buckets, as one replica uses them."""

    def __init__(self, store: Store, limits: Limits, *, wall: Callable[[], float] = time.time) -> None:
        """
        Args:
            store: Shared by all replicas.
            limits: This replica's own account.
            wall: Seconds since 1970.
        """
        self._store = store
        self._limits = limits
        self._wall = wall
        self._spent: dict[Principal, tuple[Rights, int]] = {}
        self._not_full: dict[Principal, Rights] = {}
        """Whose bucket is not full, as far as is known: others may be using it."""
        self._wake = anyio.Event()
        self._at_once = anyio.Semaphore(AT_ONCE)
        limits.spent = self._note

    def _note(self, principal: Principal, rights: Rights) -> None:
        _, count = self._spent.get(principal, (rights, 0))
        self._spent[principal] = rights, count + 1
        self._wake.set()

    async def follow(self) -> None:
        """Settle what is spent, for as long as this runs."""
        while True:
            with anyio.move_on_after(LOOK if self._not_full else None):
                await self._wake.wait()
            self._wake = anyio.Event()
            await self.settle()
            await anyio.sleep(INTERVAL)

    async def settle(self) -> None:
        """Take what was spent here from the shared buckets. If the store is away, this replica counts for itself."""
        spent, self._spent = self._spent, {}
        spent = {**{principal: (rights, 0) for principal, rights in self._not_full.items()}, **spent}
        async with anyio.create_task_group() as group:
            for principal, (rights, count) in spent.items():
                group.start_soon(self._settle_one, principal, rights, count)

    async def _settle_one(self, principal: Principal, rights: Rights, count: int) -> None:
        async with self._at_once:
            try:
                level = await self._take(principal, rights, count)
            except StoreUnavailable as error:
                # What was spent meanwhile is not charged later: after a long outage it would be a long refusal.
                log.debug("gateway.fleet_rates_not_shared", error=str(error))
                return
        if level < rights.burst:
            self._not_full[principal] = rights
        else:
            self._not_full.pop(principal, None)
        # Requests that were let in since the count was taken are in the next settlement.
        _, since = self._spent.get(principal, (rights, 0))
        self._limits.correct(principal, level - since)

    async def _take(self, principal: Principal, rights: Rights, count: int) -> float:
        """The level of a bucket after `count` tokens were taken from it."""
        assert rights.rate is not None
        key, burst = Key(f"rate/{principal.digest}", "bucket"), float(rights.burst)
        while True:
            record, now = await self._store.get(key), self._wall()
            level, at = burst, now
            if record is not None:
                content: Any = json.loads(record.value)
                at = max(content["at"], now)
                level = min(burst, content["level"] + (at - content["at"]) * rights.rate)
            if not count:
                return level
            # A debt of one burst at most: no principal is refused for longer than two bursts take to fill.
            level = max(level - count, -burst)
            value = json.dumps({"level": level, "at": at}).encode()
            ttl = (burst - level) / rights.rate + SPARE
            if record is None:
                written = await self._store.add(key, value, ttl=ttl)
            else:
                written = await self._store.swap(key, record.version, value, ttl=ttl)
            if written is not None:
                return level
