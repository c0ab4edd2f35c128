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
from typing import Any, NamedTuple

import anyio
from mcp.server.streamable_http import GET_STREAM_KEY, EventCallback, EventMessage, EventStore
from mcp_types import (
    INTERNAL_ERROR,
    ErrorData,
    JSONRPCError,
    JSONRPCMessage,
    JSONRPCRequest,
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


class Events:
    """The events of all sessions."""

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

    def running(self) -> AbstractAsyncContextManager[None]:
        """Write events behind the calls for as long as the block runs. Outside of it each waits for the store."""
        return self._log.running()

    def of(self, session: Session | None) -> SessionEvents:
        """Those of one session."""
        return SessionEvents(self, session.sid if session is not None else "")

    def ended(self, session: Session) -> None:
        """A session was put away or deleted: its requests will not be answered."""
        for stream_id in tuple(self._begun.get(session.sid, {})):
            self._forget(session.sid, stream_id)
        self._floors.pop(session.sid, None)

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


class SessionEvents(EventStore):
    """The events of one session: the SDK's event store."""

    def __init__(self, events: Events, sid: str) -> None:
        """
        Args:
            events: Those of all sessions.
            sid: The session.
        """
        self._all = events
        self._sid = sid

    def begin(self, request: JSONRPCRequest) -> str:
        """A request came. Returns the id of the first event of its stream, which has no message."""
        begun = Begun(self._all._owner, request.method == "tools/call", isinstance(request.id, int))
        self._all._begun.setdefault(self._sid, {})[str(request.id)] = begun
        return _event_id(self._all._number(self._sid), begun, str(request.id))

    def answered(self, stream_id: str) -> None:
        """A request was answered without a stream."""
        self._all._forget(self._sid, stream_id)

    def left(self, stream_id: str) -> None:
        """The response to a request has ended. If its answer is still to come, its client is not there for it."""
        if stream_id in self._all._begun.get(self._sid, {}):
            self._all._cut.add((self._sid, stream_id))

    async def store_event(self, stream_id: str, message: JSONRPCMessage | None, dumped: bytes | None = None) -> str:
        """Store an event; returns its id.

        Args:
            stream_id: Its stream: the text of a request's id, or the session's own stream.
            message: The message. None is not stored, it has only an id.
            dumped: The message's JSON, if it is known.
        """
        every, sid = self._all, self._sid
        number = every._number(sid)
        about = every._begun.get(sid, {}).get(stream_id)
        if message is not None:
            final = isinstance(message, JSONRPCResponse | JSONRPCError)
            dumped = dump(message) if dumped is None else dumped
            cut = (sid, stream_id) in every._cut
            long = every._keep(dumped) if len(dumped) > LONGEST else ""
            if final:
                every._forget(sid, stream_id)
            await every._log.append(
                _key(sid), Event(number, stream_id, final, None if long else dumped, long), soon=cut
            )
            if (changed := every._changed.pop(sid, None)) is not None:
                changed.set()
        return _event_id(number, about, stream_id)

    async def replay_events_after(self, last_event_id: str, send_callback: EventCallback) -> str | None:
        head, _, stream_id = last_event_id.partition(".")
        number, _, about = head.partition("-")
        if not number.isdigit() or len(number) > 18 or not stream_id:
            return None
        every, sid = self._all, self._sid
        after, begun = int(number), Begun.read(about)
        if after > every._last:
            every._floors[sid] = max(after, every._floors.get(sid, 0))
        while True:
            changed = every._changed.setdefault(sid, anyio.Event())
            # Asked before the log is read: an answer that is stored in between is found by the next turn.
            goes_on = stream_id == GET_STREAM_KEY or await every._goes_on(sid, stream_id, begun)
            for event in await every._log.entries(_key(sid)):
                if event.stream != stream_id or event.number <= after:
                    continue
                after = event.number
                dumped = event.message if event.message is not None else every._long.get(event.long)
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


def dump(message: JSONRPCMessage) -> bytes:
    """The JSON of a message."""
    return message.model_dump_json(by_alias=True, exclude_unset=True).encode()


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
