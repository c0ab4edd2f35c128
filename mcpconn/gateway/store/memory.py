"""A store in memory, which ends with the process."""

from __future__ import annotations

import heapq
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field

from mcpconn.gateway.store.base import Key, Record, StoreFull
from mcpconn.gateway.store.hints import Hints
from mcpconn.redis.standing import FINE


@dataclass
class _Log:
    expires: float
    last: int = 0
    entries: deque[tuple[int, bytes]] = field(default_factory=deque)


class MemoryStore:
    """Records and logs in dictionaries. No method awaits anything before it has finished, so each is atomic."""

    standing = FINE

    def __init__(self, *, now: Callable[[], float] = time.monotonic) -> None:
        """
        Args:
            now: A monotonic clock in seconds; tests pass their own.
        """
        self._now = now
        self._records: dict[Key, tuple[Record, float]] = {}
        self._groups: dict[str, int] = {}
        self._logs: dict[Key, _Log] = {}
        self._version = 0
        self._hints = Hints()
        # Every write adds an entry. When an entry comes up whose record has been rewritten since, it is skipped.
        self._expiries: list[tuple[float, Key]] = []

    async def get(self, key: Key) -> Record | None:
        self._expire()
        found = self._records.get(key)
        return found[0] if found is not None else None

    async def put(self, key: Key, value: bytes, *, ttl: float) -> int:
        self._expire()
        return self._write(key, value, ttl)

    async def add(self, key: Key, value: bytes, *, ttl: float, limit: int | None = None) -> int | None:
        self._expire()
        if key in self._records:
            return None
        if limit is not None and self._groups.get(key.group, 0) >= limit:
            raise StoreFull(f"{limit} records are kept already")
        return self._write(key, value, ttl)

    async def swap(self, key: Key, version: int, value: bytes, *, ttl: float) -> int | None:
        self._expire()
        found = self._records.get(key)
        if found is None or found[0].version != version:
            return None
        return self._write(key, value, ttl)

    async def delete(self, key: Key, *, version: int | None = None) -> bool:
        self._expire()
        found = self._records.get(key)
        if found is None or version not in (None, found[0].version):
            return False
        self._forget(key)
        return True

    async def append(self, key: Key, value: bytes, *, ttl: float, keep: int) -> int:
        self._expire()
        log = self._logs.setdefault(key, _Log(0.0))
        log.expires = self._now() + ttl
        heapq.heappush(self._expiries, (log.expires, key))
        log.last += 1
        log.entries.append((log.last, value))
        while len(log.entries) > keep:
            log.entries.popleft()
        return log.last

    async def append_all(self, logs: Mapping[Key, Sequence[bytes]], *, ttl: float, keep: int) -> None:
        for key, values in logs.items():
            for value in values:
                await self.append(key, value, ttl=ttl, keep=keep)

    async def entries(self, key: Key, *, after: int) -> list[tuple[int, bytes]]:
        self._expire()
        log = self._logs.get(key)
        return [entry for entry in log.entries if entry[0] > after] if log is not None else []

    async def publish(self, channel: str, hint: bytes) -> None:
        self._hints.give(channel, hint)

    def subscribe(self, channel: str) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        return self._hints.subscribe(channel)

    async def aclose(self) -> None:
        self._records.clear()
        self._groups.clear()
        self._logs.clear()
        self._expiries.clear()

    def _write(self, key: Key, value: bytes, ttl: float) -> int:
        if key not in self._records:
            self._groups[key.group] = self._groups.get(key.group, 0) + 1
        self._version += 1
        expires = self._now() + ttl
        self._records[key] = (Record(value, self._version), expires)
        heapq.heappush(self._expiries, (expires, key))
        return self._version

    def _forget(self, key: Key) -> None:
        del self._records[key]
        self._groups[key.group] -= 1
        if not self._groups[key.group]:
            del self._groups[key.group]

    def _expire(self) -> None:
        now = self._now()
        while self._expiries and self._expiries[0][0] <= now:
            _, key = heapq.heappop(self._expiries)
            if (found := self._records.get(key)) is not None and found[1] <= now:
                self._forget(key)
            if (log := self._logs.get(key)) is not None and log.expires <= now:
                del self._logs[key]
