"""A store in Redis or Valkey, shared by the replicas of a fleet: one server, Sentinel or Cluster.

What must be atomic is a script (see `mcpconn.redis.scripts`); all of a group's keys have one hash tag, so that a
Cluster keeps them in one slot. Names of groups and records are hashed: they may be any text, and whoever reads the
server's memory learns nothing from them.

A hint is written to one stream for all channels, which each process reads on in, and a message of pub/sub wakes the
readers. What pub/sub loses comes with the next look, `LOOK` seconds later at most.

A record's write returns when a majority of the server and its replicas have it. It is as durable as the server's
`appendfsync` makes it; what the server is, and whether it may have lost something, is in `standing`.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from typing import Any

import anyio
from typing_extensions import Self

from mcpconn.gateway.store.base import Key, Record, StoreFull, StoreUnavailable
from mcpconn.gateway.store.hints import Hints
from mcpconn.redis.address import Address
from mcpconn.redis.link import Link, RedisUnavailable
from mcpconn.redis.scripts import ADD, APPEND, DELETE, ENTRIES, GET, HINT, HINTS, PUT, SWAP, Script
from mcpconn.redis.standing import Standing

LOOK = 0.5
"""Seconds between two looks for hints that no message announced: what was revoked has to be refused within a second."""
KEPT = 1024
"""Hints kept, of all channels. A process that is cut off for longer than they last hears of it and looks anew."""
HINT_TTL = 60.0
"""Seconds for which a hint can be read; a subscriber looks far more often."""
DIGITS = 40
"""Hexadecimal digits of a hash in a key: 160 bits, of which no two are ever the same."""


class RedisStore:
    """Records, logs and hints in Redis. Enter it before its first use, in the task that leaves it."""

    def __init__(
        self,
        address: Address | str,
        *,
        may_lose: bool = False,
        ahead: Callable[[], float] = lambda: 0.0,
    ) -> None:
        """
        Args:
            address: Where it is, or a URL (see `mcpconn.redis.address`).
            may_lose: Keep marks and the ledger in it even if it evicts or does not persist.
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
        """The link ends with the block that entered the store."""

    @property
    def standing(self) -> Standing:
        """How the store is now, and what it can be trusted with."""
        return self.link.standing

    # -- records

    async def get(self, key: Key) -> Record | None:
        found = await self._run(GET, self._record(key), _hash(key.name))
        return Record(found[0], int(found[1])) if found else None

    async def put(self, key: Key, value: bytes, *, ttl: float) -> int:
        (version,) = await self._run(PUT, self._record(key), _hash(key.name), value, _ms(ttl), durable=True)
        return int(version)

    async def add(self, key: Key, value: bytes, *, ttl: float, limit: int | None = None) -> int | None:
        counted = -1 if limit is None else limit
        (said,) = await self._run(ADD, self._record(key), _hash(key.name), value, _ms(ttl), counted, durable=True)
        if said == b"full":
            raise StoreFull(f"{limit} records are kept already")
        return int(said) if said else None

    async def swap(self, key: Key, version: int, value: bytes, *, ttl: float) -> int | None:
        (said,) = await self._run(SWAP, self._record(key), _hash(key.name), value, _ms(ttl), version, durable=True)
        return int(said) if said else None

    async def delete(self, key: Key, *, version: int | None = None) -> bool:
        wanted = "" if version is None else version
        (said,) = await self._run(DELETE, self._record(key), _hash(key.name), wanted, durable=True)
        return bool(said)

    # -- logs

    async def append(self, key: Key, value: bytes, *, ttl: float, keep: int) -> int:
        (number,) = await self._run(APPEND, self._log(key), value, _ms(ttl), keep)
        return int(number)

    async def entries(self, key: Key, *, after: int) -> list[tuple[int, bytes]]:
        first, *found = await self._run(ENTRIES, self._log(key), after)
        return list(enumerate(found, start=int(first)))

    # -- hints

    async def publish(self, channel: str, hint: bytes) -> None:
        await self._run(
            HINT, [self._stream], self._channel, channel.encode("utf-8", "surrogatepass"), hint, KEPT, _ms(HINT_TTL)
        )

    def subscribe(self, channel: str) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        @asynccontextmanager
        async def subscription() -> AsyncIterator[AsyncIterator[bytes]]:
            # What was published before is read, and so passed on to others, before this subscriber is there.
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
            # The link knows by itself whether it is lost.
            with suppress(StoreUnavailable):
                await self._read()

    async def _read(self) -> None:
        """Pass on what was published since the last look."""
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

    def _record(self, key: Key) -> list[str]:
        group = _hash(key.group)
        return [self.link.key(group, *parts) for parts in (("record", _hash(key.name)), ("index",), ("clock",))]

    def _log(self, key: Key) -> list[str]:
        group, name = _hash(key.group), _hash(key.name)
        return [self.link.key(group, part, name) for part in ("log", "entries")]

    async def _run(self, script: Script, keys: list[str], *arguments: Any, durable: bool = False) -> list[Any]:
        try:
            return await self.link.run(script, keys, *arguments, durable=durable)
        except RedisUnavailable as error:
            raise StoreUnavailable(str(error)) from None

    def __repr__(self) -> str:
        return f"<RedisStore {self.link.address}>"


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:DIGITS]


def _ms(seconds: float) -> int:
    return max(1, round(seconds * 1000))
