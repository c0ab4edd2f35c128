"""The upstream sessions of owned state: a successor ends them, and never uses them.

Servers do not know fencing numbers: any process with a session's id can write on it, including an owner that was paused
and resumes. So a successor opens a new session. Before that it ends its predecessor's, so that a late write gets a 404.
For that purpose the ids are in the store, sealed. What cannot be ended (a child process of another machine, a server
that is away) goes on beside the new one until its owner sees that it has lost its lease; in every case the client is
told that its session with the server is a new one.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import anyio

from mcpconn.gateway.clients.session_ids import LIFETIME
from mcpconn.gateway.fleet.membership import OwnershipLost
from mcpconn.gateway.fleet.ownership import Owner, Ownership
from mcpconn.gateway.store import Key, Store, StoreUnavailable
from mcpconn.observe import log
from mcpconn.seal import NotSealedHere, Sealer

ENDING = 3.0
"""Seconds for ending the sessions of a predecessor, all at once. The client's request waits for it."""
ENDED = ("", "ended")
"""Represents a session that its owner has ended itself before it gave up the ownership."""
CHILD = ("", "")
"""Represents a session without an id: a child process, or a stream of the older HTTP transport."""

Upstream = tuple[str, str]
"""The id of an upstream session, and its protocol version."""


@dataclass
class _Kept:
    version: int | None = None
    """Of the record; None: there is none."""
    upstreams: dict[str, Upstream] = field(default_factory=dict)
    news: dict[str, str] = field(default_factory=dict)
    """What is still to be said, by server."""


class Handover:
    """The upstream sessions of everything that this replica owns."""

    def __init__(
        self, store: Store, sealer: Sealer, ownership: Ownership, end: Callable[[str, str, str], Awaitable[bool]]
    ) -> None:
        """
        Args:
            store: Where they are kept.
            sealer: Seals them, because anyone with a session's id could use the session.
            ownership: Who owns what.
            end: Ends an upstream session, by server, id and protocol version; whether that succeeded.
        """
        self._store = store
        self._sealer = sealer
        self._ownership = ownership
        self._end = end
        self._kept: dict[str, _Kept] = {}
        self._lock = anyio.Lock()

    async def note(self, key: str, server: str, upstream: Upstream) -> None:
        """Something is about to be sent on an upstream session. It costs a write when the session is a new one.

        Raises:
            OwnershipLost: another replica has written since: it is the owner.
        """
        if self._ownership.mine(key) is None:
            return
        kept = self._kept.setdefault(key, _Kept())
        if kept.upstreams.get(server) == upstream:
            return
        async with self._lock:
            upstreams = {**kept.upstreams, server: upstream}
            value = self._sealer.seal(json.dumps(upstreams).encode(), key).encode("ascii")
            try:
                if kept.version is None:
                    version = await self._store.add(self._place(key), value, ttl=LIFETIME)
                else:
                    version = await self._store.swap(self._place(key), kept.version, value, ttl=LIFETIME)
            except StoreUnavailable as error:
                # Who takes over cannot end this session; it opens one of its own all the same.
                log.warning("gateway.store_unavailable", error=str(error))
                return
            if version is None:
                # Written by another: by a predecessor whose sessions could not be read when it was taken over, or by a
                # successor.
                version = await self._again(key, value)
            kept.version, kept.upstreams = version, upstreams

    async def _again(self, key: str, value: bytes) -> int:
        try:
            record = await self._store.get(self._place(key))
            if record is not None and await self._ownership.confirmed(key):
                version = await self._store.swap(self._place(key), record.version, value, ttl=LIFETIME)
                if version is not None:
                    return version
        except StoreUnavailable as error:
            log.warning("gateway.store_unavailable", error=str(error))
        raise OwnershipLost

    async def take_over(self, owner: Owner) -> None:
        """End the upstream sessions of a predecessor. Returns when they have ended, or cannot be ended.

        Raises:
            StoreUnavailable: they are not known.
        """
        kept = self._kept[owner.key] = _Kept()
        record = await self._store.get(self._place(owner.key))
        if record is None:
            return
        kept.version = record.version
        try:
            upstreams = json.loads(self._sealer.open(record.value.decode("ascii", "replace"), owner.key))
        except NotSealedHere:
            log.error("gateway.fleet_record_forged", key=owner.key)
            return
        async with anyio.create_task_group() as group:
            for server, (session, version) in upstreams.items():
                group.start_soon(self._end_one, kept, server, session, version)

    async def _end_one(self, kept: _Kept, server: str, session: str, version: str) -> None:
        ended = False
        with anyio.move_on_after(ENDING):
            ended = (session, version) == ENDED or (bool(session) and await self._end(server, session, version))
        log.info("gateway.fleet_session_taken_over", server=server, ended=ended)
        before = "was ended" if ended else "could not be ended from here and is not used any more"
        kept.news[server] = (
            f"The replica of the gateway that held your session is gone. Its session with server {server!r} {before}; "
            "this is a new one, and what the server kept for the old one is lost."
        )

    def news(self, key: str, server: str) -> str | None:
        """What is to be said to the client with the next answer of a server's, once."""
        kept = self._kept.get(key)
        return None if kept is None else kept.news.pop(server, None)

    async def forget(self, key: str) -> None:
        """What belongs to a key was put away, with its upstream sessions. To be called while it is still owned."""
        kept = self._kept.pop(key, None)
        if kept is not None and kept.version is not None:
            try:
                await self._store.delete(self._place(key), version=kept.version)
            except StoreUnavailable as error:
                log.debug("gateway.fleet_not_released", error=str(error))

    async def leave(self, key: str) -> None:
        """What belongs to a key is given up while its client goes on: its next owner says that sessions are new."""
        kept = self._kept.pop(key, None)
        if kept is None or kept.version is None:
            return
        ended = json.dumps(dict.fromkeys(kept.upstreams, ENDED)).encode()
        try:
            value = self._sealer.seal(ended, key).encode("ascii")
            await self._store.swap(self._place(key), kept.version, value, ttl=LIFETIME)
        except StoreUnavailable as error:
            log.debug("gateway.fleet_not_released", error=str(error))

    def drop(self, key: str) -> None:
        """What belongs to a key is another's now, and so is the record."""
        self._kept.pop(key, None)

    @staticmethod
    def _place(key: str) -> Key:
        return Key(key, "upstreams")
