"""The state of a legacy session that survives a restart of the gateway but is not in its sealed id, because it was set
later."""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from mcpconn.gateway.clients.session_ids import LIFETIME
from mcpconn.gateway.store import Key, Store, StoreUnavailable
from mcpconn.observe import log

WATCHED = 1000
"""Subscriptions of one session that are remembered."""
REMEMBERED = 10_000
"""Number of sessions whose extras this process keeps in memory."""


@dataclass(frozen=True)
class Kept:
    """A session's log level, and its subscriptions as pairs of server and URI."""

    level: str | None = None
    subscriptions: tuple[tuple[str, str], ...] = ()


class Extras:
    """The extras of every session, in the store; while that is away, as this process remembers them."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._local: OrderedDict[str, Kept] = OrderedDict()

    async def get(self, sid: str) -> Kept:
        """What is kept of a session; nothing, if it is new."""
        try:
            record = await self._store.get(self._key(sid))
        except StoreUnavailable as error:
            log.warning("gateway.extras_not_read", error=str(error))
            return self._local.get(sid, Kept())
        return _read(record.value) if record is not None else Kept()

    async def set_level(self, sid: str, level: str) -> None:
        """The client has set the level of log messages."""
        await self._change(sid, lambda kept: Kept(level, kept.subscriptions))

    async def subscribe(self, sid: str, server: str, uri: str) -> None:
        """The client has subscribed to a resource."""

        def change(kept: Kept) -> Kept:
            others = tuple(pair for pair in kept.subscriptions if pair != (server, uri))
            return Kept(kept.level, (*others, (server, uri))[-WATCHED:])

        await self._change(sid, change)

    async def unsubscribe(self, sid: str, server: str, uri: str) -> None:
        """It has ended a subscription."""
        await self._change(
            sid, lambda kept: Kept(kept.level, tuple(pair for pair in kept.subscriptions if pair != (server, uri)))
        )

    async def _change(self, sid: str, change: Callable[[Kept], Kept]) -> None:
        self._local[sid] = change(self._local.pop(sid, Kept()))
        while len(self._local) > REMEMBERED:
            self._local.popitem(last=False)
        try:
            await self._store_change(sid, change)
        except StoreUnavailable as error:
            # The client's request was done; only another process will not know of it.
            log.warning("gateway.extras_not_kept", error=str(error))

    async def _store_change(self, sid: str, change: Callable[[Kept], Kept]) -> None:
        # A client may send two of these at once, and another process may serve one of them.
        while True:
            record = await self._store.get(self._key(sid))
            kept = change(_read(record.value) if record is not None else Kept())
            value = json.dumps({"level": kept.level, "subscriptions": kept.subscriptions}).encode()
            if record is None:
                written = await self._store.add(self._key(sid), value, ttl=LIFETIME)
            else:
                written = await self._store.swap(self._key(sid), record.version, value, ttl=LIFETIME)
            if written is not None:
                return

    @staticmethod
    def _key(sid: str) -> Key:
        return Key(f"session/{sid}", "extras")


def _read(value: bytes) -> Kept:
    content: Any = json.loads(value)
    return Kept(content["level"], tuple((server, uri) for server, uri in content["subscriptions"]))
