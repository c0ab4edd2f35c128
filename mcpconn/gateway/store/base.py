"""The protocol of a store: records changed by compare-and-set, short logs, and hints between processes.

Everything else that the gateway keeps is built on these three: the ledger, sessions' extras and events, leases (see
`lease`). Every implementation passes `tests/gateway/test_store.py`, which is the other half of the protocol.

What an implementation must do:

- Each operation on one key is atomic, for all processes that share the store. Nothing is promised across keys, except
  that `add` with a `limit` counts and writes as one.
- When a method returns, what it wrote is durable: it survives a SIGKILL of the process and, if the implementation
persists anything at all, a power failure. A power failure may take the last entries of a log; a hint may be
  lost at any time.
- A version is greater than every earlier version of the same key, including deleted and expired ones. So it also serves
as a fencing number.
- A cancelled operation has happened completely or not at all.
- A failure raises `StoreUnavailable`. An implementation never answers with a guess or from a stale copy.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import NamedTuple, Protocol

from mcpconn.redis.standing import Standing


class StoreUnavailable(Exception):
    """The store cannot be reached, or did not answer. A write that raised this may or may not have happened."""


class Unreadable(StoreUnavailable):
    """There is a record, and what it says is unknown: it was not sealed with these keys, or was changed."""


class StoreFull(Exception):
    """The group has reached its limit of records. Nothing was written."""


class Key(NamedTuple):
    """Names one record or log."""

    group: str
    """Records that are counted together, such as one principal's ledger. A distributed store keeps a group in one
    place."""
    name: str


class Record(NamedTuple):
    """A value, and the version that identifies it in a compare-and-set."""

    value: bytes
    version: int
    """Greater after each change, also if the record was deleted or has expired in between."""


class Store(Protocol):
    """Keeps records and logs, and passes hints. Every method raises `StoreUnavailable` if it cannot do its work.

    `ttl` is in seconds, from the time of the call. An expired record is treated as absent.
    """

    @property
    def standing(self) -> Standing:
        """Whether it is reachable, which data it may be trusted with, and whether it may have lost some."""

    async def get(self, key: Key) -> Record | None:
        """The record, or None."""

    async def put(self, key: Key, value: bytes, *, ttl: float) -> int:
        """Write it unconditionally. Returns the new version."""

    async def add(self, key: Key, value: bytes, *, ttl: float, limit: int | None = None) -> int | None:
        """Write it if there is no such record. Returns its version; None if there is one.

        Args:
            key: The record.
            value: Its value.
            ttl: Seconds until it expires.
            limit: Maximum number of unexpired records in the group.

        Raises:
            StoreFull: the group holds `limit` unexpired records already.
        """

    async def swap(self, key: Key, version: int, value: bytes, *, ttl: float) -> int | None:
        """Write it if its version is still `version`. Returns the new version; None if it is not, or it is gone."""

    async def delete(self, key: Key, *, version: int | None = None) -> bool:
        """Delete it; if `version` is given, only if that is its version. Returns whether it was there and was
        deleted."""

    async def append(self, key: Key, value: bytes, *, ttl: float, keep: int) -> int:
        """Append to a log.

        Returns the entry's number, which grows by one with each entry; a log that has expired begins again at one.

        Args:
            key: The log.
            value: The entry.
            ttl: Seconds until the whole log expires, counted from its last entry.
            keep: Maximum number of entries; the oldest are dropped.
        """

    async def append_all(self, logs: Mapping[Key, Sequence[bytes]], *, ttl: float, keep: int) -> None:
        """Append to several logs, each as `append` does, in as few steps as the store allows.

        Each log receives either all of its entries, in order, or none. If this raises, some logs may have received
        theirs.

        Args:
            logs: The entries of each log; at least one.
            ttl: Seconds until each log expires.
            keep: Maximum number of entries in each log.
        """

    async def entries(self, key: Key, *, after: int) -> list[tuple[int, bytes]]:
        """The entries of a log with numbers above `after`, in order."""

    async def publish(self, channel: str, hint: bytes) -> None:
        """Send a hint to the current subscribers of `channel`, in this process and in others. It may be lost.

        Args:
            channel: Any text.
            hint: At most 4 KiB. What must not be lost is a record; a hint says "look again".
        """

    def subscribe(self, channel: str) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        """Receive the hints sent to a channel while the block runs; a slow reader loses the oldest ones.

        async with store.subscribe("revoked") as hints:
            async for hint in hints:
                ...
        """

    async def aclose(self) -> None:
        """Close its connections and files. The store cannot be used afterwards."""
