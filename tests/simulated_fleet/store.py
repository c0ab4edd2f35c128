"""A store that replicas share, and each replica's own view of it: slow, away, or with a loss behind it."""

from __future__ import annotations

import copy
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from random import Random
from typing import Any, TypeVar

import anyio

from mcpconn.gateway.store import Key, MemoryStore, Record, StoreUnavailable
from mcpconn.redis.standing import Standing
from tests.simulated_fleet.processes import Process

T = TypeVar("T")

TIMEOUT = 5.0
"""Seconds after which a request to a store that says nothing fails, as in `mcpconn.redis.link`."""
SECOND = 1.0
"""Seconds of writes that a failover may lose."""
SNAPSHOTS = 0.25
"""Seconds between copies of the store, which a failover goes back to."""


class SharedStore:
    """What all replicas see: a `MemoryStore` that can lose its last writes, as a failover of Redis does."""

    def __init__(self) -> None:
        self.inner = MemoryStore(now=anyio.current_time)
        self.epoch = 0
        self.lost_at: list[float] = []
        """When writes were lost."""
        self._copies: list[tuple[float, Any]] = []

    async def keep_copies(self) -> None:
        """Copy what is stored, for as long as this runs."""
        while True:
            inner = self.inner
            taken = (dict(inner._records), dict(inner._groups), copy.deepcopy(inner._logs))
            self._copies.append((anyio.current_time(), taken))
            del self._copies[: -int(SECOND / SNAPSHOTS) - 1]
            await anyio.sleep(SNAPSHOTS)

    def fail_over(self, random: Random) -> None:
        """Go back to an earlier copy. Versions grow all the same; see `mcpconn.redis.scripts`."""
        _, (records, groups, logs) = random.choice(self._copies)
        inner = self.inner
        inner._records, inner._groups, inner._logs = dict(records), dict(groups), copy.deepcopy(logs)
        inner._expiries = sorted(
            [(expires, key) for key, (_, expires) in records.items()]
            + [(log.expires, key) for key, log in logs.items()]
        )
        self._copies.clear()
        self._copies.append((anyio.current_time(), (records, groups, logs)))
        self.epoch += 1
        self.lost_at.append(anyio.current_time())


class FaultyStore:
    """The store as one replica reaches it."""

    def __init__(self, shared: SharedStore, process: Process, random: Random) -> None:
        self._shared = shared
        self._process = process
        self._random = random
        self.standing = Standing(epoch="e0")
        self.away = False
        self.mute = False
        """Every second answer is lost, after the operation was done."""
        self.latency = 0.0005
        """Seconds each way."""
        self.operations = 0

    async def _run(self, operation: Callable[[], Awaitable[T]]) -> T:
        self.operations += 1
        await self._travel()
        if self.standing.epoch != f"e{self._shared.epoch}":
            # Another primary answers. What it lacks may be lost, which is known before anything is made of its answer.
            self.standing = Standing(epoch=f"e{self._shared.epoch}", began=self._lost_at())
        result = await operation()
        # It is done; whether this replica hears of that is another matter.
        await self._travel()
        if self.mute and self._random.random() < 0.5:
            self._unreachable("its answer was lost")
        return result

    def _lost_at(self) -> float:
        ago = anyio.current_time() - self._shared.lost_at[-1] if self._shared.lost_at else 0.0
        return time.monotonic() - ago

    async def _travel(self) -> None:
        latency = self.latency * self._random.uniform(0.5, 1.5)
        if latency > TIMEOUT:
            await anyio.sleep(TIMEOUT)
            self._unreachable("it has not answered")
        await anyio.sleep(latency)
        if self.away or self._process.dead:
            self._unreachable("it cannot be reached")
        if self.standing.away is not None:
            self.standing = replace(self.standing, away=None)

    def _unreachable(self, why: str) -> None:
        self.standing = replace(self.standing, away=why)
        raise StoreUnavailable(why)

    async def get(self, key: Key) -> Record | None:
        return await self._run(lambda: self._shared.inner.get(key))

    async def put(self, key: Key, value: bytes, *, ttl: float) -> int:
        return await self._run(lambda: self._shared.inner.put(key, value, ttl=ttl))

    async def add(self, key: Key, value: bytes, *, ttl: float, limit: int | None = None) -> int | None:
        return await self._run(lambda: self._shared.inner.add(key, value, ttl=ttl, limit=limit))

    async def swap(self, key: Key, version: int, value: bytes, *, ttl: float) -> int | None:
        return await self._run(lambda: self._shared.inner.swap(key, version, value, ttl=ttl))

    async def delete(self, key: Key, *, version: int | None = None) -> bool:
        return await self._run(lambda: self._shared.inner.delete(key, version=version))

    async def append(self, key: Key, value: bytes, *, ttl: float, keep: int) -> int:
        return await self._run(lambda: self._shared.inner.append(key, value, ttl=ttl, keep=keep))

    async def append_all(self, logs: Mapping[Key, Sequence[bytes]], *, ttl: float, keep: int) -> None:
        await self._run(lambda: self._shared.inner.append_all(logs, ttl=ttl, keep=keep))

    async def entries(self, key: Key, *, after: int) -> list[tuple[int, bytes]]:
        return await self._run(lambda: self._shared.inner.entries(key, after=after))

    async def publish(self, channel: str, hint: bytes) -> None:
        await self._run(lambda: self._shared.inner.publish(channel, hint))

    def subscribe(self, channel: str) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        @asynccontextmanager
        async def subscription() -> AsyncIterator[AsyncIterator[bytes]]:
            async with self._shared.inner.subscribe(channel) as hints:
                yield self._heard(hints)

        return subscription()

    async def _heard(self, hints: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        async for hint in hints:
            if not self.away:
                yield hint

    async def aclose(self) -> None:
        """The others go on with it."""
