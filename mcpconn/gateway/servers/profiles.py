"""Lists for clients that have more capabilities than the listing connection, or use another era.

Some servers list a tool only for clients with the capabilities that it needs: sampling, elicitation, roots. A client
should see what it would see without the gateway. So the first list of a client with capabilities is also requested from
the server once on a connection that declares them. If the server lists the same, as nearly all do, the connection is
closed and not reopened during the server's session; otherwise it makes the listings for all clients of this kind.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary

import anyio
from mcp.client.extension import advertise

from mcpconn.catalog.listing import KINDS
from mcpconn.connection import Connection
from mcpconn.core.states import State
from mcpconn.gateway.clients.downstream import TASKS

PATIENCE = 30.0
"""Seconds for a list on a connection of another kind. Meanwhile the client sees the common lists."""
LOOK = 1.0
"""Seconds that a list waits for it."""


@dataclass(frozen=True)
class Profile:
    """A kind of clients: those that see the same lists."""

    abilities: frozenset[str] = frozenset()
    """What they can do."""
    mode: str = "auto"
    """How to agree with the server on a protocol version."""


@dataclass(eq=False)
class _Look:
    """The question whether a server lists something else for a kind of clients."""

    epoch: int
    """The session of the server's own connection that it was compared with."""
    over: anyio.Event = field(default_factory=anyio.Event)
    connection: Connection | None = None
    """Lists for these clients; None if they see the common ones."""
    waited: bool = False
    """A list went out before the answer was known."""


@dataclass(frozen=True)
class Wanted:
    """A list that a client of some kind is about to see."""

    base: Connection
    """Lists for all clients, or for each kind of client of one user."""
    profile: Profile
    open: Callable[[], Connection]
    """Opens a connection of this kind to the same server."""
    close: Callable[[Connection], None]
    differs: Callable[[Connection, Iterable[str], bool], None]
    """Called with a connection whose lists differ, of the kinds that do, and whether a list without them went out."""


class Profiles:
    """Which servers list by what a client can do, and the connections that list for each kind of clients."""

    def __init__(self) -> None:
        self._looks: WeakKeyDictionary[Connection, dict[Profile, _Look]] = WeakKeyDictionary()

    def lister(self, base: Connection, profile: Profile) -> Connection:
        """The connection whose lists clients of this kind see."""
        look = self._looks.get(base, {}).get(profile)
        found = None if look is None or not look.over.is_set() else look.connection
        return base if found is None or found.state is State.CLOSED else found

    async def look(self, wanted: Iterable[Wanted]) -> None:
        """Find out what is not known yet. It is waited for a moment, and goes on in the background."""
        new = [look for each in wanted if (look := self._begun(each)) is not None and not look.waited]
        with anyio.move_on_after(LOOK):
            for look in new:
                await look.over.wait()
        for look in new:
            look.waited = not look.over.is_set()

    def _begun(self, wanted: Wanted) -> _Look | None:
        """The current question; None if there is none, or no client can be asked now."""
        base = wanted.base
        looks = self._looks.setdefault(base, {})
        known = looks.get(wanted.profile)
        if known is not None and not known.over.is_set():
            return known
        if known is not None and known.connection is not None and known.connection.state is not State.CLOSED:
            return None
        epoch = base.catalog.epoch
        if base.state is not State.READY or epoch == 0 or (known is not None and known.epoch == epoch):
            return None
        look = looks[wanted.profile] = _Look(epoch)
        connection = wanted.open()

        async def ask() -> None:
            await self._ask(wanted, look, connection)

        if not base.spawn(ask):
            del looks[wanted.profile]
            wanted.close(connection)
            return None
        return look

    async def _ask(self, wanted: Wanted, look: _Look, connection: Connection) -> None:
        different: list[str] | None = None
        try:
            with anyio.move_on_after(PATIENCE):
                if await wanted.base.catalog.ensure() and await connection.catalog.ensure():
                    different = [kind for kind in KINDS if _entries(wanted.base, kind) != _entries(connection, kind)]
        finally:
            if different:
                look.connection = connection
                wanted.differs(connection, different, look.waited)
            else:
                wanted.close(connection)
            if different is None:
                # It is asked again when the next list is wanted of the server's next session.
                look.epoch = wanted.base.catalog.epoch
            look.over.set()


def _entries(connection: Connection, kind: str) -> dict[str, object]:
    known = getattr(connection.catalog, kind)
    return {key: entry.model_dump(mode="json", exclude_none=True) for key, entry in known.items()}


def declaring_tasks(options: Mapping[str, Any]) -> dict[str, Any]:
    """A connection's options, with the tasks extension declared: its client reads the tasks itself, as plain JSON."""
    given = tuple(options.get("extensions") or ())
    known = any(each.identifier == TASKS for each in given)
    return {**options, "extensions": given if known else (*given, advertise(TASKS))}
