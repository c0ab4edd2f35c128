"""The sealed id of a legacy session: what the client said in `initialize`, whom it is for and when.

An id can be opened by every process that has the keys, so a session can be opened again anywhere. What is too long for
it, and that it was deleted, is in the store. For any invalid id the answer is the same: there is no such
session.
"""

from __future__ import annotations

import json
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from mcpconn.gateway.principals import Principal
from mcpconn.gateway.store import Key, Store, StoreUnavailable
from mcpconn.observe import log
from mcpconn.seal import NotSealedHere, Sealer

LONGEST_ID = 4096
"""Characters of a session id. Servers refuse heads of more than 16 KiB; longer ids are refused before any crypto."""
LONGEST_CONTENT = 2048
"""Bytes of what is sealed into an id. What a client says beyond that is in the store."""
LIFETIME = 30 * 86_400.0
"""Seconds for which an id is good. A client does not initialize again by itself, so it is long."""
DELETED = 10_000
"""Deleted sessions that this process remembers by itself, for the case that the store cannot be asked."""
FAILURES = 100
"""Ids a second from one peer that may fail to open before its failures are answered by 429."""
PEERS = 1024
"""Peers whose failures are counted."""
OPENED = 1024
"""Ids that are kept as they were opened: each request of a session has one."""


@dataclass(frozen=True)
class Session:
    """A downstream session, independent of the process that serves it."""

    sid: str
    """Random; names the session in the store. It never leaves the gateway."""
    principal: Principal
    view: str


@dataclass(frozen=True)
class Opened:
    """What an id holds."""

    session: Session
    issued: float
    """When, in seconds since 1970."""
    content: bytes = field(repr=False)
    """As it is sealed. Not the parsed parameters: each open event stream holds on to what its request's id held, and
    they are looked at only when a session is opened again."""

    @classmethod
    def of(cls, session: Session, issued: float, params: dict[str, Any] | None) -> Opened:
        """What an id of a session is to hold."""
        return cls(session, issued, pack({"v": 1, "sid": session.sid, "at": issued, "params": params}))

    @property
    def params(self) -> dict[str, Any] | None:
        """Of `initialize`; None if they are in the store."""
        found: dict[str, Any] | None = json.loads(self.content)["params"]
        return found


class SessionIds:
    """Makes the ids of one view, and opens them."""

    def __init__(self, view: str, sealer: Sealer, store: Store, *, wall: Callable[[], float] = time.time) -> None:
        """
        Args:
            view: An id of one view is nothing to another.
            sealer: Seals ids.
            store: What an id has no room for, and which were deleted.
            wall: Seconds since 1970, the same for all processes of the gateway.
        """
        self._view = view
        self._deleted: OrderedDict[str, None] = OrderedDict()
        self._opened: dict[str, Opened] = {}
        self._sealer = sealer
        self._store = store
        self._wall = wall

    @property
    def other_keys(self) -> bool:
        """Whether other processes seem to have other keys: an id that cannot be opened here may be theirs."""
        return self._store.standing.other_keys

    def now(self) -> float:
        """Seconds since 1970."""
        return self._wall()

    async def make(self, opened: Opened) -> str:
        """The id of a session that was initialized with `opened.params`.

        Raises:
            StoreUnavailable: the parameters are too long for the id, and the store does not take them.
        """
        if len(opened.content) > LONGEST_CONTENT:
            await self._store.put(self._key("params", opened.session.sid), pack(opened.params), ttl=LIFETIME)
            opened = Opened.of(opened.session, opened.issued, None)
        return self._sealer.seal(opened.content, self._context(opened.session.principal))

    def open(self, sealed: str, principal: Principal) -> Opened | None:
        """What an id holds; None if it is not this principal's, is too long, or has expired."""
        opened = self._opened.get(sealed)
        if opened is None or opened.session.principal != principal:
            if (opened := self._unseal(sealed, principal)) is None:
                return None
            self._opened[sealed] = opened
            if len(self._opened) > OPENED:
                del self._opened[next(iter(self._opened))]
        return opened if self._wall() < opened.issued + LIFETIME else None

    def _unseal(self, sealed: str, principal: Principal) -> Opened | None:
        if len(sealed) > LONGEST_ID:
            return None
        try:
            content = self._sealer.open(sealed, self._context(principal))
        except NotSealedHere:
            return None
        read: dict[str, Any] = json.loads(content)
        return Opened(Session(read["sid"], principal, self._view), read["at"], content)

    async def params(self, opened: Opened) -> dict[str, Any] | None:
        """The parameters of `initialize`; None if the session was deleted.

        Raises:
            StoreUnavailable: whether it was deleted cannot be known.
        """
        if await self.deleted(opened):
            return None
        if (params := opened.params) is not None:
            return params
        record = await self._store.get(self._key("params", opened.session.sid))
        return None if record is None else json.loads(record.value)

    async def deleted(self, opened: Opened) -> bool:
        """Whether the session was deleted, in any process."""
        if opened.session.sid in self._deleted:
            return True
        return await self._store.get(self._key("deleted", opened.session.sid)) is not None

    async def delete(self, opened: Opened) -> None:
        """Mark a session as deleted, for as long as its id would be good; only in this process if the store is away."""
        left = max(1.0, opened.issued + LIFETIME - self._wall())
        self._deleted[opened.session.sid] = None
        while len(self._deleted) > DELETED:
            self._deleted.popitem(last=False)
        try:
            await self._store.put(self._key("deleted", opened.session.sid), b"", ttl=left)
            for name in ("params", "extras"):
                await self._store.delete(self._key(name, opened.session.sid))
        except StoreUnavailable as error:
            log.warning("gateway.deletion_not_kept", error=str(error))

    def _context(self, principal: Principal) -> str:
        return f"{self._view}\n{principal.digest}"

    @staticmethod
    def _key(name: str, sid: str) -> Key:
        return Key(f"session/{sid}", name)


class Failures:
    """How many ids of a peer did not open lately.

    A flood of forged ids costs no more than their opening, which takes microseconds; it must not fill the log, nor be
    answered at length. Good ids of the same peer are served all the same: behind one address may be many clients.
    """

    def __init__(self, now: Callable[[], float], *, limit: int = FAILURES) -> None:
        """
        Args:
            now: Monotonic seconds.
            limit: Failures a second.
        """
        self._now = now
        self._limit = limit
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def exceeded(self, peer: str) -> bool:
        """Count one more failure. Whether there are too many."""
        now = self._now()
        left, at = self._left.pop(peer, (float(self._limit), now))
        left = min(float(self._limit), left + (now - at) * self._limit)
        self._left[peer] = (max(0.0, left - 1), now)
        while len(self._left) > PEERS:
            self._left.popitem(last=False)
        return left < 1


def pack(content: Any) -> bytes:
    """Compact JSON."""
    return json.dumps(content, separators=(",", ":")).encode()
