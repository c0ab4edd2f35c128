"""A key that is removed on one replica is refused on all of them, within a second.

Each machine has its own key file. The replicas share a log of the hashes of removed keys. A replica writes to
it as soon as it sees that its file has lost a key, and sends a hint; the others read on in the log at each hint, and
twice a second in any case, because a hint may be lost. So a removal is known everywhere after 0.75 s at the latest: the
gate looks at its file each 0.25 s. A removed key stays refused for as long as a session that began with it could exist,
even if a file still contains it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import anyio

from mcpconn.gateway.clients.session_ids import LIFETIME
from mcpconn.gateway.store import Key, Store, StoreUnavailable
from mcpconn.observe import log

LOG = Key("revoked", "keys")
LOOK = 0.5
"""Seconds between looks at the log that no hint asked for."""
CHANNEL = "revoked"
"""Where replicas tell each other that the log has grown."""
KEPT = 10_000
"""Keys that are remembered; more are not removed in a month."""


class Keys(Protocol):
    """The keys of this replica; the gate has them."""

    removed: Callable[[str], None]
    """Called with the hash of a key that was removed from this replica's file."""

    def refuse(self, key_hash: str) -> None:
        """Refuse a key from now on, and end what its holder has open."""


class Revocations:
    """The keys that are refused on all replicas."""

    def __init__(self, store: Store, keys: Keys) -> None:
        """
        Args:
            store: Shared by all replicas.
            keys: Those of this one.
        """
        self._store = store
        self._keys = keys
        self._untold: list[str] = []
        self._heard: tuple[int, bytes] | None = None
        """The last entry of the log that was read."""
        self._wake = anyio.Event()
        keys.removed = self._removed

    def _removed(self, key_hash: str) -> None:
        self._untold.append(key_hash)
        self._wake.set()

    async def follow(self) -> None:
        """Tell the others, and hear of what they have removed, for as long as this runs."""
        async with anyio.create_task_group() as group:
            group.start_soon(self._listen)
            while True:
                # Before the look: what comes up during it is looked at in the next one.
                self._wake = anyio.Event()
                try:
                    await self.look()
                except StoreUnavailable as error:
                    # What was removed here is refused here; the others are told when the store is back.
                    log.debug("gateway.fleet_not_told", error=str(error))
                    await anyio.sleep(LOOK)
                with anyio.move_on_after(LOOK):
                    await self._wake.wait()

    async def _listen(self) -> None:
        while True:
            try:
                async with self._store.subscribe(CHANNEL) as hints:
                    async for _ in hints:
                        self._wake.set()
            except StoreUnavailable:
                await anyio.sleep(LOOK)

    async def look(self) -> None:
        """Tell and hear once.

        Raises:
            StoreUnavailable: it is to be tried again.
        """
        told = False
        while self._untold:
            await self._store.append(LOG, self._untold[0].encode("ascii"), ttl=LIFETIME, keep=KEPT)
            self._untold.pop(0)
            told = True
        if told:
            await self._store.publish(CHANNEL, b"")
        for entry in await self._new_entries():
            self._keys.refuse(entry[1].decode("ascii", "replace"))
            self._heard = entry

    async def _new_entries(self) -> list[tuple[int, bytes]]:
        if (last := self._heard) is not None:
            found = await self._store.entries(LOG, after=last[0] - 1)
            if found[:1] == [last]:
                return found[1:]
            # The log has expired since, a month after its last entry: if there is one again, its numbers begin again.
            self._heard = None
        return await self._store.entries(LOG, after=0)
