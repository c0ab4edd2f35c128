"""Events of legacy sessions, kept for a while, so that a client whose stream was cut still gets its answer.

The SDK's server numbers the events of a stream and gives them out again to a client that names the last one it has
(`Last-Event-ID`). They are in the store (see `event_log`), so a client gets an answer that was made before the
gateway's process died, too. If the process died before that, nothing more will come, and the client is told that its
call may have run.

The first event of a stream has no message. What a later process must know of its request is in the event's id: who
answers it, and what kind of request it is. So nothing is stored when a request begins. Event ids are trusted, because
they are used within one session only: a client that forges one affects only itself.

Each session has one bounded log for all its streams. The SDK would go on from the replay with the live stream, but what
is stored in between would be lost; so a replay continues to read the log until the answer is there.
"""

from __future__ import annotations

import re
import secrets
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, NamedTuple

import anyio
from mcp.server.streamable_http import GET_STREAM_KEY, EventCallback, EventMessage, EventStore
from mcp_types import (
    INTERNAL_ERROR,
    ErrorData,
    JSONRPCError,
    JSONRPCMessage,
    JSONRPCResponse,
    jsonrpc_message_adapter,
)

from mcpconn.gateway.clients.event_log import Event, EventLog
from mcpconn.gateway.clients.session_ids import Session
from mcpconn.gateway.outcomes import tool_error
from mcpconn.gateway.store import Key, MemoryStore, Store, StoreUnavailable
from mcpconn.keys import OUTCOME

LONGEST = 256 * 1024
"""Bytes of an event that goes into the store, as of an answer in the ledger. A longer one stays in this process."""
LONG_EVENTS = 64 * 1024 * 1024
"""Bytes of longer events that this process keeps; the oldest are dropped."""
LOOK = 1.0
"""Seconds between looks at a log that another process writes."""


@dataclass(frozen=True)
class Origin:
    """The destination of the current code's messages."""

    session: Session | None
    request_id: Any = None
    method: str | None = None


ORIGIN: ContextVar[Origin | None] = ContextVar("mcpconn_gateway_origin", default=None)
"""The downstream session, and the request, that the present code works for."""


class Begun(NamedTuple):
    """What is known of the request that a stream answers."""

    owner: str
    """The process that answers it, as `Events` was given it."""
    call: bool
    """It is a `tools/call`."""
    numeric: bool
    """Its id is a number. The SDK names a stream by the id's text."""

    def __str__(self) -> str:
        """As a part of an event's id."""
        return f"{self.owner}-{'c' if self.call else 'r'}{'n' if self.numeric else 's'}"

    @classmethod
    def read(cls, text: str) -> Begun | None:
        """From an event's id; None if it says nothing."""
        found = re.fullmatch(r"([0-9A-Za-z]{1,64})-([cr])([ns])", text)
        return cls(found[1], found[2] == "c", found[3] == "n") if found else None


class Events(EventStore):
    """The SDK's event store, apart for each session."""

    def __init__(
        self,
        store: Store | None = None,
        *,
        owner: str | None = None,
        alive: Callable[[str], Awaitable[bool]] | None = None,
    ) -> None:
        """
        Args:
            store: Keeps the events.
            owner: This process, as `alive` knows it: letters and digits.
            alive: Whether a process that began to answer a request still runs. None: no other process answers for a
                session that this one has. So it is in a fleet: a replica that lost a session runs on, and has given up
                its requests.
        """
        self._log = EventLog(store or MemoryStore())
        self._last = 0
        # By session, the greatest number that another process has given, as far as it is known here.
        self._floors: dict[str, int] = {}
        self._owner = owner or secrets.token_hex(8)
        self._alive = alive
        # By session and stream, the requests that are not answered yet.
        self._begun: dict[str, dict[str, Begun]] = {}
        self._cut: set[tuple[str, str]] = set()
        self._long: OrderedDict[str, bytes] = OrderedDict()
        self._long_size = 0
        self._changed: dict[str, anyio.Event] = {}
        # By session, the stream of its last long answer, which is on its way to its client.
        self._leaving: dict[str, tuple[str, JSONRPCResponse]] = {}

    def running(self) -> AbstractAsyncContextManager[None]:
        """Write events behind the calls for as long as the block runs. Outside of it each waits for the store."""
        return self._log.running()

    async def store_event(self, stream_id: str, message: JSONRPCMessage | None) -> str:
        origin = ORIGIN.get() or Origin(None)
        sid = _sid(origin)
        number = self._number(sid)
        if message is None:
            begun = Begun(self._owner, origin.method == "tools/call", isinstance(origin.request_id, int))
            self._begun.setdefault(sid, {})[stream_id] = begun
            return _event_id(number, begun, stream_id)
        final = isinstance(message, JSONRPCResponse | JSONRPCError)
        about = self._begun.get(sid, {}).get(stream_id)
        dumped = message.model_dump_json(by_alias=True, exclude_unset=True).encode()
        cut = (sid, stream_id) in self._cut
        if len(dumped) > LONGEST:
            event = Event(number, stream_id, final, None, self._keep(dumped))
            if isinstance(message, JSONRPCResponse) and not cut:
                self._leaving[sid] = (stream_id, message)
        else:
            event = Event(number, stream_id, final, dumped)
        if final:
            self._forget(sid, stream_id)
        await self._log.append(_key(sid), event, soon=cut)
        if (changed := self._changed.pop(sid, None)) is not None:
            changed.set()
        return _event_id(number, about, stream_id)

    def over(self, origin: Origin) -> None:
        """The response to a request has ended. If its answer is still to come, its client is not there for it."""
        if origin.session is not None and origin.request_id is not None:
            sid, stream_id = origin.session.sid, str(origin.request_id)
            if self._leaving.get(sid, ("",))[0] == stream_id:
                # The SDK's server keeps each session's last message until the next one. (mcp 2.3.0, `message_router`)
                self._leaving.pop(sid)[1].result = {}
            if stream_id in self._begun.get(sid, {}):
                self._cut.add((sid, stream_id))

    def ended(self, session: Session) -> None:
        """A session was put away or deleted: its requests will not be answered."""
        for stream_id in tuple(self._begun.get(session.sid, {})):
            self._forget(session.sid, stream_id)
        self._floors.pop(session.sid, None)
        self._leaving.pop(session.sid, None)

    def _forget(self, sid: str, stream_id: str) -> None:
        """A request is answered."""
        streams = self._begun.get(sid, {})
        streams.pop(stream_id, None)
        if not streams:
            self._begun.pop(sid, None)
        self._cut.discard((sid, stream_id))

    def _number(self, sid: str) -> int:
        """Of an event: greater than all before it, those of this process and of the one that had the session before."""
        # Not the store's number, which would have to be waited for. One process at a time answers for a session.
        self._last = max(self._last + 1, time.time_ns() // 1000)
        if (floor := self._floors.get(sid)) is None:
            return self._last
        # The clock of the process before may be ahead of this one's. For this session alone: a client can name any.
        self._floors[sid] = number = max(self._last, floor + 1)
        return number

    async def replay_events_after(self, last_event_id: str, send_callback: EventCallback) -> str | None:
        head, _, stream_id = last_event_id.partition(".")
        number, _, about = head.partition("-")
        if not number.isdigit() or len(number) > 18 or not stream_id:
            return None
        sid = _sid(ORIGIN.get() or Origin(None))
        after, begun = int(number), Begun.read(about)
        if after > self._last:
            self._floors[sid] = max(after, self._floors.get(sid, 0))
        while True:
            changed = self._changed.setdefault(sid, anyio.Event())
            # Asked before the log is read: an answer that is stored in between is found by the next turn.
            goes_on = stream_id == GET_STREAM_KEY or await self._goes_on(sid, stream_id, begun)
            for event in await self._log.entries(_key(sid)):
                if event.stream != stream_id or event.number <= after:
                    continue
                after = event.number
                dumped = event.message if event.message is not None else self._long.get(event.long)
                message = (
                    _too_long(begun, stream_id) if dumped is None else jsonrpc_message_adapter.validate_json(dumped)
                )
                await send_callback(EventMessage(message, _event_id(after, begun, stream_id)))
                if event.final:
                    return None
            if not goes_on:
                await send_callback(EventMessage(_lost(begun, stream_id), _event_id(after, begun, stream_id)))
                return None
            with anyio.move_on_after(LOOK):
                await changed.wait()

    async def _goes_on(self, sid: str, stream_id: str, begun: Begun | None) -> bool:
        """Whether the process that started to answer a request is still working on it."""
        if begun is None:
            return False
        if begun.owner == self._owner:
            return stream_id in self._begun.get(sid, {})
        try:
            return self._alive is not None and await self._alive(begun.owner)
        except StoreUnavailable:
            return True

    def _keep(self, dumped: bytes) -> str:
        name = secrets.token_hex(8)
        self._long[name] = dumped
        self._long_size += len(dumped)
        while self._long_size > LONG_EVENTS and len(self._long) > 1:
            self._long_size -= len(self._long.popitem(last=False)[1])
        return name


def _sid(origin: Origin) -> str:
    return origin.session.sid if origin.session is not None else ""


def _key(sid: str) -> Key:
    # Another session's streams have the same names; its key is the only way to them.
    return Key(f"events/{sid}", "log")


def _event_id(number: int, begun: Begun | None, stream_id: str) -> str:
    return f"{number}.{stream_id}" if begun is None else f"{number}-{begun}.{stream_id}"


def _lost(begun: Begun | None, stream_id: str) -> JSONRPCMessage:
    """The answer to a request whose process is gone."""
    return _said(
        begun,
        stream_id,
        "The gateway was restarted while it waited for the answer of this call. It is not known whether the tool ran. "
        "Find out before you call again.",
        "unknown",
    )


def _too_long(begun: Begun | None, stream_id: str) -> JSONRPCMessage:
    """The answer to a request whose answer this process does not have."""
    return _said(begun, stream_id, "This call ran; its answer was too long to be kept over a cut stream.", "ran")


def _said(begun: Begun | None, stream_id: str, text: str, outcome: Any) -> JSONRPCMessage:
    # A client of an old version gets no first event, so whether its id is a number can only be guessed.
    numeric = stream_id.isdigit() and len(stream_id) < 16 if begun is None else begun.numeric
    request_id: int | str = int(stream_id) if numeric and re.fullmatch(r"-?[0-9]{1,20}", stream_id) else stream_id
    if begun is not None and begun.call:
        return JSONRPCResponse(jsonrpc="2.0", id=request_id, result=tool_error(text, outcome, {}))
    return JSONRPCError(
        jsonrpc="2.0", id=request_id, error=ErrorData(code=INTERNAL_ERROR, message=text, data={OUTCOME: outcome})
    )
