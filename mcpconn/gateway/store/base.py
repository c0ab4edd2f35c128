"""The protocol of a store: values with a version and an expiry, changed by compare-and-set; and short logs."""

from __future__ import annotations

from typing import NamedTuple, Protocol


class StoreUnavailable(Exception):
    """The store cannot be reached, or did not answer. Nothing is known about what was asked of it."""


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
    """Another one after each change; never the same for two values of one key."""


class Store(Protocol):
    """Keeps records and logs. Every method raises `StoreUnavailable` if the store cannot do its work.

    `ttl` is in seconds, from the time of the call. A record that has expired is as if it had never been.
    """

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
        """Append to a log. Returns the entry's number, which grows by one with each entry and is never used twice.

        Args:
            key: The log.
            value: The entry.
            ttl: Seconds until the whole log expires, counted from its last entry.
            keep: Entries kept; the oldest are dropped.
        """

    async def entries(self, key: Key, *, after: int) -> list[tuple[int, bytes]]:
        """The entries of a log with numbers above `after`, in order."""

    async def aclose(self) -> None:
        """Give up what is held open. The store cannot be used afterwards."""
