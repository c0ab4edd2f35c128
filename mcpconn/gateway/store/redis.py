"""A store in Redis or Valkey, shared by the replicas of a fleet: one server, Sentinel or Cluster.

Every operation that must be atomic is a script (see `mcpconn.redis.scripts`); all of a group's keys have one hash tag,
so that a Cluster keeps them in one slot. Names of groups and records are hashed: they may be any text, and someone who
reads the server's memory learns nothing from them.

A hint is appended to one stream for all channels, and a pub/sub message wakes the processes that read it. If pub/sub
loses the message, a process sees the hint at its next check, at most `LOOK` seconds later.

Writing a record returns when a majority of the server and its replicas have it. It is as durable as the server's
`appendfsync` makes it; `standing` describes the server, and whether it may have lost something.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from typing import Any

import anyio
from typing_extensions import Self

from mcpconn.gateway.store.base import Key, Record, StoreFull, StoreUnavailable
from mcpconn.gateway.store.hints import Hints
from mcpconn.redis.address import Address
from mcpconn.redis.link import Link, RedisUnavailable
from mcpconn.redis.records import hashed, log_keys, milliseconds, record_keys
from mcpconn.redis.scripts import ADD, APPEND, DELETE, ENTRIES, GET, HINT, HINTS, PUT, SWAP, Script
from mcpconn.redis.standing import Standing

LOOK = 0.5
"""Seconds between two checks for hints that no message announced. A revoked key must be refused within a second."""
KEPT = 1024
"""Hints kept, for all channels together. A process that missed some because it was disconnected is told, and looks
again."""
AT_ONCE = 16
"""Maximum number of logs appended to concurrently. Redis runs scripts one after another; more would only wait in the
pool."""
HINT_TTL = 60.0
"""Seconds for which a hint can be read; a subscriber checks far more often."""


class RedisStore:
    """Records, logs and hints in Redis. It must be entered before its first use, and exited in the same task."""

    def __init__(
        self,
        address: Address | str,
        *,
        may_lose: bool = False,
        ahead: Callable[[], float] = lambda: 0.0,
    ) -> None:
        """
        Args:
            address: The server's address, or a URL (see `mcpconn.redis.address`).
            may_lose: Use it for refresh marks and the ledger even if the server evicts or does not persist.
            ahead: Seconds to add to the server's clock, for tests of what expires.

        Raises:
            ConfigError: the URL or the certificates cannot be used, or coredis is not installed.
        """
        address = Address.parse(address) if isinstance(address, str) else address
        self.link = Link(address, may_lose=may_lose, ahead=ahead, meanwhile=(self._listen, self._look_on))
        self._hints = Hints()
        self._wake = anyio.Event()
        self._last = "$"
        self._reading = anyio.Lock()

    async def __aenter__(self) -> Self:
        await self.link.__aenter__()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.link.__aexit__(*exc)

    async def aclose(self) -> None:
        """The link is closed when the block that entered the store is exited."""

    @property
    def standing(self) -> Standing:
        """The store's current condition, and which data it may be trusted with."""
        return self.link.standing

    # -- records

    async def get(self, key: Key) -> Record | None:
        found = await self._record(GET, key)
        return Record(found[0], int(found[1])) if found else None

    async def put(self, key: Key, value: bytes, *, ttl: float) -> int:
        (version,) = await self._record(PUT, key, value, milliseconds(ttl), durable=True)
        return int(version)

    async def add(self, key: Key, value: bytes, *, ttl: float, limit: int | None = None) -> int | None:
        counted = -1 if limit is None else limit
        (said,) = await self._record(ADD, key, value, milliseconds(ttl), counted, durable=True)
        if said == b"full":
            raise StoreFull(f"{limit} records are kept already")
        return int(said) if said else None

    async def swap(self, key: Key, version: int, value: bytes, *, ttl: float) -> int | None:
        (said,) = await self._record(SWAP, key, value, milliseconds(ttl), version, durable=True)
        return int(said) if said else None

    async def delete(self, key: Key, *, version: int | None = None) -> bool:
        (said,) = await self._record(DELETE, key, "" if version is None else version, durable=True)
        return bool(said)

    async def _record(self, script: Script, key: Key, *arguments: Any, durable: bool = False) -> list[Any]:
        keys = record_keys(self.link, *key)
        return await self._run(script, keys, hashed(key.name), *arguments, durable=durable)

    # -- logs

    async def append(self, key: Key, value: bytes, *, ttl: float, keep: int) -> int:
        (number,) = await self._run(APPEND, log_keys(self.link, *key), milliseconds(ttl), keep, value)
        return int(number)

    async def append_all(self, logs: Mapping[Key, Sequence[bytes]], *, ttl: float, keep: int) -> None:
        at_once = anyio.Semaphore(AT_ONCE)
        errors: list[StoreUnavailable] = []

        async def append(key: Key, values: Sequence[bytes]) -> None:
            # In a Cluster each log's keys have a slot of their own, so each log needs its own script call.
            async with at_once:
                try:
                    await self._run(APPEND, log_keys(self.link, *key), milliseconds(ttl), keep, *values)
                except StoreUnavailable as error:
                    errors.append(error)

        async with anyio.create_task_group() as group:
            for key, values in logs.items():
                group.start_soon(append, key, values)
        if errors:
            raise errors[0]

    async def entries(self, key: Key, *, after: int) -> list[tuple[int, bytes]]:
        first, *found = await self._run(ENTRIES, log_keys(self.link, *key), after)
        return list(enumerate(found, start=int(first)))

    # -- hints

    async def publish(self, channel: str, hint: bytes) -> None:
        name = channel.encode("utf-8", "surrogatepass")
        await self._run(HINT, [self._stream], self._channel, name, hint, KEPT, milliseconds(HINT_TTL))

    def subscribe(self, channel: str) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        @asynccontextmanager
        async def subscription() -> AsyncIterator[AsyncIterator[bytes]]:
            # Hints published earlier are read, and passed to the existing subscribers, before this one is added.
            await self._read()
            async with self._hints.subscribe(channel) as hints:
                yield hints

        return subscription()

    async def _listen(self) -> None:
        # `_look_on` replaces the event, so it is looked up each time.
        await self.link.listen(self._channel, lambda: self._wake.set())

    async def _look_on(self) -> None:
        while True:
            with anyio.move_on_after(LOOK):
                await self._wake.wait()
            self._wake = anyio.Event()
            # The link itself detects a lost connection.
            with suppress(StoreUnavailable):
                await self._read()

    async def _read(self) -> None:
        """Pass on the hints published since the last check."""
        async with self._reading:
            last, *found = await self._run(HINTS, [self._stream], self._last)
            self._last = last.decode()
            for channel, hint in zip(found[::2], found[1::2], strict=True):
                self._hints.give(channel.decode("utf-8", "surrogatepass"), hint)

    # -- keys

    @property
    def _stream(self) -> str:
        return self.link.key("hints", "stream")

    @property
    def _channel(self) -> str:
        return f"{self.link.address.prefix}:hints"

    async def _run(self, script: Script, keys: list[str], *arguments: Any, durable: bool = False) -> list[Any]:
        try:
            return await self.link.run(script, keys, *arguments, durable=durable)
        except RedisUnavailable as error:
            raise StoreUnavailable(str(error)) from None

    def __repr__(self) -> str:
        return f"<RedisStore {self.link.address}>"
