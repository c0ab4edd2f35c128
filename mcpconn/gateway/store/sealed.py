"""Sealing for a store on machines that others administer: values are encrypted, and bound to their keys.

Someone who can read or write the server's memory learns no tool's answer. A value that was moved to another key, or
forged, raises `Unreadable`, because the true value is unknown. In a log such an entry is passed over: one process with
other keys, or one forged entry, must not keep the others from reading on.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext, suppress
from dataclasses import replace

from mcpconn.gateway.store.base import Key, Record, Store, Unreadable
from mcpconn.gateway.store.memory import MemoryStore
from mcpconn.gateway.store.redis import RedisStore
from mcpconn.observe import log
from mcpconn.redis.standing import Standing
from mcpconn.seal import KeyRing, NotSealedHere

DOUBTED = 60.0
"""Seconds for which the store counts as one with other keys after something was read that these do not open."""


class SealedStore:
    """A store whose values, entries and hints are sealed with a gateway's keys."""

    def __init__(self, inner: Store, ring: KeyRing) -> None:
        """
        Args:
            inner: The store for the sealed values.
            ring: The gateway's keys, the same for all processes that share the store.
        """
        self.inner = inner
        self._sealer = ring.sealer("store value")
        self._doubted_until = float("-inf")

    @property
    def standing(self) -> Standing:
        standing = self.inner.standing
        return replace(standing, other_keys=True) if time.monotonic() < self._doubted_until else standing

    async def get(self, key: Key) -> Record | None:
        record = await self.inner.get(key)
        return None if record is None else Record(self._open(record.value, _place(key)), record.version)

    async def put(self, key: Key, value: bytes, *, ttl: float) -> int:
        return await self.inner.put(key, self._seal(value, _place(key)), ttl=ttl)

    async def add(self, key: Key, value: bytes, *, ttl: float, limit: int | None = None) -> int | None:
        return await self.inner.add(key, self._seal(value, _place(key)), ttl=ttl, limit=limit)

    async def swap(self, key: Key, version: int, value: bytes, *, ttl: float) -> int | None:
        return await self.inner.swap(key, version, self._seal(value, _place(key)), ttl=ttl)

    async def delete(self, key: Key, *, version: int | None = None) -> bool:
        return await self.inner.delete(key, version=version)

    async def append(self, key: Key, value: bytes, *, ttl: float, keep: int) -> int:
        return await self.inner.append(key, self._seal(value, _place(key)), ttl=ttl, keep=keep)

    async def append_all(self, logs: Mapping[Key, Sequence[bytes]], *, ttl: float, keep: int) -> None:
        sealed = {key: [self._seal(value, _place(key)) for value in values] for key, values in logs.items()}
        await self.inner.append_all(sealed, ttl=ttl, keep=keep)

    async def entries(self, key: Key, *, after: int) -> list[tuple[int, bytes]]:
        place = _place(key)
        found: list[tuple[int, bytes]] = []
        for number, value in await self.inner.entries(key, after=after):
            with suppress(Unreadable):
                found.append((number, self._open(value, place)))
        return found

    async def publish(self, channel: str, hint: bytes) -> None:
        await self.inner.publish(channel, self._seal(hint, f"channel\n{channel}"))

    def subscribe(self, channel: str) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        @asynccontextmanager
        async def subscription() -> AsyncIterator[AsyncIterator[bytes]]:
            async with self.inner.subscribe(channel) as hints:
                yield self._opened(hints, f"channel\n{channel}")

        return subscription()

    async def _opened(self, hints: AsyncIterator[bytes], place: str) -> AsyncIterator[bytes]:
        async for hint in hints:
            try:
                opened = self._open(hint, place)
            except Unreadable:
                # Not sealed by this gateway. A hint only says "look again", and a forged one must not end the
                # subscription.
                continue
            yield opened

    async def aclose(self) -> None:
        await self.inner.aclose()

    def _seal(self, value: bytes, place: str) -> bytes:
        return self._sealer.seal(value, place).encode("ascii")

    def _open(self, value: bytes, place: str) -> bytes:
        try:
            return self._sealer.open(value.decode("ascii", "replace"), place)
        except NotSealedHere:
            if time.monotonic() >= self._doubted_until:
                log.error("gateway.store_has_other_keys", do="give all processes of the gateway the same sealing keys")
            self._doubted_until = time.monotonic() + DOUBTED
            raise Unreadable(
                "what the store holds was not sealed with these keys, or was changed: give all processes of the "
                "gateway the same sealing keys, and give no one else access to the store"
            ) from None


def prepared(store: Store | None, ring: KeyRing) -> Store:
    """The store that a gateway uses: in memory if none is given, sealed if it is on another machine."""
    if store is None:
        return MemoryStore()
    return SealedStore(store, ring) if isinstance(store, RedisStore) else store


def on_other_machines(store: Store) -> bool:
    """Whether this store can be shared by processes on several machines."""
    return isinstance(store, SealedStore)


def running(store: Store) -> AbstractAsyncContextManager[object]:
    """The context manager that keeps the store working while a gateway runs."""
    inner = store.inner if isinstance(store, SealedStore) else store
    return inner if isinstance(inner, RedisStore) else nullcontext()


def _place(key: Key) -> str:
    # With the length, ("ab", "c") and ("a", "bc") are distinct.
    return f"{len(key.group)}:{key.group}\n{key.name}"
