"""The protocol of a store: records changed by compare-and-set, short logs, and hints between processes.

Everything else that the gateway keeps is built on these three: the ledger, sessions' extras and events, leases (see
`lease`). A form of it passes `tests/gateway/test_store.py`, which is the protocol's other half.

What a form must do:

- Each operation on one key is atomic, for all processes that share the store. Nothing is promised across keys, except
  that `add` with a `limit` counts and writes as one.
- A record that a method returned from is durable: it outlives a SIGKILL of the process, and, if the form keeps
  anything at all over a power failure, that too. A power failure may take the last entries of a log; a hint may be
  lost at any time.
- A version is greater than every earlier version of the same key, deleted and expired ones included. So it is a
  fencing number as well.
- A cancelled call leaves the operation done or not done, never half done.
- What fails raises `StoreUnavailable`. A form never answers from a guess or from a stale copy.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import NamedTuple, Protocol

from mcpconn.redis.standing import Standing


class StoreUnavailable(Exception):
    """The store cannot be reached, or did not answer. A write that raised it may have happened or not."""


class StoreFull(Exception):
    """The group holds as many records as it may. Nothing was written."""


class Key(NamedTuple):
    """Names one record or log."""

    group: str
    """What is changed together, such as one principal's ledger. A distributed store keeps a group in one place."""
    name: str


class Record(NamedTuple):
    """A value and the version to change it by."""

    value: bytes
    version: int
    """Greater after each change, also if the record was deleted or has expired in between."""


class Store(Protocol):
    """Keeps records and logs, and passes hints. Every method raises `StoreUnavailable` if it cannot do its work.

    `ttl` is in seconds, from the time of the call. A record that has expired is as if it had never been.
    """

    @property
    def standing(self) -> Standing:
        """Whether it can be reached, what it can be trusted with, and whether it may have lost something."""

    async def get(self, key: Key) -> Record | None:
        """The record, or None."""

    async def put(self, key: Key, value: bytes, *, ttl: float) -> int:
        """Write it, whatever is there. Returns the new version."""

    async def add(self, key: Key, value: bytes, *, ttl: float, limit: int | None = None) -> int | None:
        """Write it if there is none. Returns its version; None if there was one.

        Args:
            key: The record.
            value: Its value.
            ttl: Seconds until it expires.
            limit: Unexpired records of the group at most.

        Raises:
            StoreFull: the group holds `limit` unexpired records already.
        """

    async def swap(self, key: Key, version: int, value: bytes, *, ttl: float) -> int | None:
        """Write it if its version is still `version`. Returns the new version; None if it is not, or it is gone."""

    async def delete(self, key: Key, *, version: int | None = None) -> bool:
        """Delete it, if its version is `version` where one is given. Returns whether it was there and was deleted."""

    async def append(self, key: Key, value: bytes, *, ttl: float, keep: int) -> int:
        """Append to a log.

        Returns the entry's number, which grows by one with each entry; a log that has expired begins again at one.

        Args:
            key: The log.
            value: The entry.
            ttl: Seconds until the whole log expires, counted from its last entry.
            keep: Entries kept; the oldest are dropped.
        """

    async def append_all(self, logs: Mapping[Key, Sequence[bytes]], *, ttl: float, keep: int) -> None:
        """Append to several logs, each as `append` does, in as few steps as the store allows.

        Each log gets its entries in their order, all or none. If it raises, some logs may have theirs.

        Args:
            logs: The entries of each log; at least one.
            ttl: Seconds until each log expires.
            keep: Entries kept of each.
        """

    async def entries(self, key: Key, *, after: int) -> list[tuple[int, bytes]]:
        """The entries of a log with numbers above `after`, in order."""

    async def publish(self, channel: str, hint: bytes) -> None:
        """Give a hint to whoever subscribes to `channel` now, in this process and in others. It may be lost.

        Args:
            channel: Any text.
            hint: At most 4 KiB. What must not be lost is a record; a hint says "look again".
        """

    def subscribe(self, channel: str) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        """The hints of a channel, from the moment the block is entered; a slow reader loses the oldest ones.

        async with store.subscribe("revoked") as hints:
            async for hint in hints:
                ...
        """

    async def aclose(self) -> None:
        """Give up what is held open. The store cannot be used afterwards."""
