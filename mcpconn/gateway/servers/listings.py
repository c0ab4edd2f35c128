"""What servers list: changes are passed on, and the last lists are kept in the store.

A gateway that starts while a server is away has never listed that server. Its clients would miss tools that another
replica, or the process before, still lists. So what a server's own connection has listed is written to the store, and
is listed until the server has been reached. Lists for one user, or for one kind of clients, are not kept.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from hashlib import sha256

import anyio
from pydantic import BaseModel

from mcpconn.catalog.entries import CatalogChange
from mcpconn.catalog.listing import KINDS, MEMBERS, keyed, without_misfits
from mcpconn.connection import Connection
from mcpconn.gateway.store import Key, Store, StoreUnavailable
from mcpconn.observe import log

TTL = 30 * 86_400.0
"""Seconds for which lists are kept. They are written again each day."""
DAY = 86_400.0
"""Seconds."""
LONGEST = 1024 * 1024
"""Maximum bytes of a server's kept lists. Longer ones are not kept."""
SETTLED = 0.5
"""Seconds between a change and its writing: the four lists of a new session arrive one after the other."""
PATIENCE = 1.0
"""Seconds that a list waits for the store."""
AGAIN = 3.0
"""Seconds until the store is asked again about a server, or until a write is repeated that failed."""


class Listings:
    """The lists of the servers' own connections."""

    def __init__(
        self, store: Store, *, connection: Callable[[str], Connection], changed: Callable[[CatalogChange], None]
    ) -> None:
        """
        Args:
            store: Keeps the last lists.
            connection: A server's own connection.
            changed: Told of each change.
        """
        self._store = store
        self._connection = connection
        self._tell = changed
        self._followed: dict[str, Callable[[], None]] = {}
        self._changed: set[str] = set()
        self._wake = anyio.Event()
        self._recalled: dict[str, Mapping[str, Mapping[str, BaseModel]]] = {}
        self._ask_at: dict[str, float] = {}
        """When the store may be asked about a server again, by the event loop's clock."""

    def follow(self, server: str) -> None:
        """Pass on what changes in a server's lists, and keep them."""
        self._followed[server] = self._connection(server).catalog.subscribe(self._note)

    def forget(self, server: str) -> None:
        """The server is no longer there, or is another one now."""
        if (end := self._followed.pop(server, None)) is not None:
            end()
        self._recalled.pop(server, None)
        self._ask_at.pop(server, None)

    def _note(self, change: CatalogChange) -> None:
        self._recalled.pop(change.server, None)
        self._changed.add(change.server)
        self._wake.set()
        self._tell(change)

    async def keep(self) -> None:
        """Write down what has changed, for as long as this runs."""
        while True:
            with anyio.move_on_after(DAY) as waiting:
                await self._wake.wait()
                await anyio.sleep(SETTLED)
            if waiting.cancelled_caught:
                self._changed.update(server for server in self._followed if self._connection(server).catalog.epoch)
            self._wake = anyio.Event()
            for server in tuple(self._changed):
                self._changed.discard(server)
                if server in self._followed and not await self._write(self._connection(server)):
                    self._changed.add(server)
            if self._changed:
                await anyio.sleep(AGAIN)
                self._wake.set()

    async def _write(self, connection: Connection) -> bool:
        pages = {
            kind: {
                MEMBERS[kind]: [
                    entry.model_dump(by_alias=True, mode="json", exclude_none=True)
                    for entry in getattr(connection.catalog, kind).values()
                ]
            }
            for kind in KINDS
        }
        value = json.dumps(pages, separators=(",", ":")).encode("ascii")
        try:
            if len(value) > LONGEST:
                await self._store.delete(_place(connection))
            else:
                await self._store.put(_place(connection), value, ttl=TTL)
        except StoreUnavailable:
            # It is tried again. Whoever needs the store for a call is told so.
            return False
        return True

    async def recall(self, connections: Iterable[Connection]) -> None:
        """Read the kept lists of servers that were never reached."""
        now = anyio.current_time()
        due = [
            each
            for each in connections
            if each.name in self._followed and not each.catalog.epoch and now >= self._ask_at.get(each.name, now)
        ]
        if not due:
            return
        self._ask_at.update({each.name: now + AGAIN for each in due})
        with anyio.move_on_after(PATIENCE):
            async with anyio.create_task_group() as group:
                for connection in due:
                    group.start_soon(self._read, connection)

    async def _read(self, connection: Connection) -> None:
        try:
            record = await self._store.get(_place(connection))
        except StoreUnavailable:
            return
        if record is None:
            return
        try:
            pages = json.loads(record.value)
            found = {kind: keyed(kind, page) for kind in KINDS if (page := without_misfits(kind, pages[kind])[0])}
        except (ValueError, KeyError, TypeError, AttributeError):
            # Another version of mcpconn wrote it, or it is damaged.
            log.warning("gateway.kept_lists_not_read", server=connection.name)
            return
        self._recalled[connection.name] = found

    def entries(self, connection: Connection, kind: str) -> Mapping[str, BaseModel]:
        """The last known entries of a list.

        Args:
            connection: Any connection; the lists of the servers' own are kept.
            kind: One of `mcpconn.catalog.listing.KINDS`.
        """
        known: Mapping[str, BaseModel] = getattr(connection.catalog, kind)
        if connection.catalog.epoch:
            return known
        return self._recalled.get(connection.name, {}).get(kind, known)


def _place(connection: Connection) -> Key:
    """The lists' place in the store: another address, or another program, is another server."""
    config = connection.config
    what = [connection.name, config.url or [config.command, *config.args]]
    return Key("lists", sha256(json.dumps(what).encode()).hexdigest())
