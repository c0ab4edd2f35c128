"""Events of legacy sessions, kept for a while, so that a client whose stream was cut gets its answer all the same.

The SDK's server numbers the events of a stream and gives them out again to a client that names the last one it has
(`Last-Event-ID`). They are in the store, so a client gets an answer that was made before the gateway's process died,
too. If the process died before that, nothing more will come, and the client is told that its call may have run.

Each session has one bounded log for all its streams. The SDK would go on from the replay with the live stream, but what
is stored in between would reach nobody; so a replay reads on in the log instead, until the answer is there.
"""

from __future__ import annotations

import json
import secrets
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

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

from mcpconn.gateway.outcomes import tool_error
from mcpconn.gateway.session_ids import Session
from mcpconn.gateway.store import Key, MemoryStore, Store, StoreUnavailable
from mcpconn.keys import OUTCOME
from mcpconn.observe import log

KEPT = 256
"""Events of one session."""
TTL = 300.0
"""Seconds after its last event for which a session's events are kept. A client comes back within seconds."""
LONGEST = 256 * 1024
"""Bytes of an event that goes into the store, as of an answer in the ledger. A longer one stays in this process."""
LONG_EVENTS = 64 * 1024 * 1024
"""Bytes of longer events that this process keeps; the oldest are dropped."""
PATIENCE = 0.1
"""Seconds that an event waits for the store. A healthy one takes milliseconds; a call waits for no other."""
REST = 5.0
"""Seconds for which nothing is given to a store that did not take an event in time: events stay in this process."""
LOOK = 1.0
"""Seconds between looks at a log that another process writes."""


@dataclass(frozen=True)
class Origin:
    """Where the present code's messages belong."""

    session: Session | None
    request_id: Any = None
    method: str | None = None


ORIGIN: ContextVar[Origin | None] = ContextVar("mcpconn_gateway_origin", default=None)
"""The downstream session, and the request, that the present code works for."""


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
            owner: This process, as `alive` knows it.
            alive: Whether a process that began to answer a request still runs.
        """
        self._store = store or MemoryStore()
        self._spare = MemoryStore()
        self._rest_until = 0.0
        self._last = 0
        self._owner = owner or secrets.token_hex(8)
        self._alive = alive
        self._long: OrderedDict[str, bytes] = OrderedDict()
        self._long_size = 0
        self._changed: dict[str, anyio.Event] = {}

    async def store_event(self, stream_id: str, message: JSONRPCMessage | None) -> str:
        origin = ORIGIN.get() or Origin(None)
        sid = _sid(origin)
        entry: dict[str, Any] = {"stream": stream_id}
        if message is None:
            entry |= {"owner": self._owner, "id": origin.request_id, "method": origin.method}
        else:
            dumped = message.model_dump_json(by_alias=True, exclude_unset=True)
            entry["final"] = _is_final(message)
            if len(dumped) > LONGEST:
                entry["long"] = self._keep(dumped.encode())
            else:
                entry["message"] = dumped
        number = entry["number"] = self._number()
        value = json.dumps(entry).encode()
        await self._append(_key(sid), value)
        if (changed := self._changed.pop(sid, None)) is not None:
            changed.set()
        return f"{number}.{stream_id}"

    def _number(self) -> int:
        """Of an event: greater than all before it, those of this process and of the one that had the session before."""
        # Not the store's number, which would have to be waited for. One process at a time answers for a session.
        self._last = max(self._last + 1, time.time_ns() // 1000)
        return self._last

    async def _append(self, key: Key, value: bytes) -> None:
        """Give an event to the store, without waiting for one that is slow or away."""
        if time.monotonic() >= self._rest_until:
            kept = False
            try:
                with anyio.move_on_after(PATIENCE):
                    await self._store.append(key, value, ttl=TTL, keep=KEPT)
                    kept = True
                why = f"no answer within {PATIENCE:g} s"
            except StoreUnavailable as error:
                why = str(error)
            if kept:
                return
            # The session goes on: only a stream that is cut now cannot be resumed in another process.
            log.warning("gateway.events_not_kept", error=why)
            self._rest_until = time.monotonic() + REST
        await self._spare.append(key, value, ttl=TTL, keep=KEPT)

    async def replay_events_after(self, last_event_id: str, send_callback: EventCallback) -> str | None:
        number, _, stream_id = last_event_id.partition(".")
        if not number.isdigit() or len(number) > 18 or not stream_id:
            return None
        sid = _sid(ORIGIN.get() or Origin(None))
        after, begun = int(number), None
        while True:
            changed = self._changed.setdefault(sid, anyio.Event())
            for entry in await self._entries(_key(sid)):
                if entry["stream"] != stream_id:
                    continue
                if "owner" in entry:
                    # The first of a stream: who began to answer the request.
                    begun = entry
                    continue
                if entry["number"] <= after:
                    continue
                after = entry["number"]
                dumped = entry.get("message") or self._long.get(entry["long"])
                message = (
                    _too_long(begun, stream_id) if dumped is None else jsonrpc_message_adapter.validate_json(dumped)
                )
                await send_callback(EventMessage(message, f"{after}.{stream_id}"))
                if entry["final"]:
                    return None
            if stream_id != GET_STREAM_KEY and not await self._will_go_on(begun):
                await send_callback(EventMessage(_lost(begun, stream_id), f"{after}.{stream_id}"))
                return None
            with anyio.move_on_after(LOOK):
                await changed.wait()

    async def _entries(self, key: Key) -> list[dict[str, Any]]:
        """A session's events, in order."""
        try:
            kept = await self._store.entries(key, after=0)
        except StoreUnavailable:
            kept = []
        # One that was given up on may have been kept all the same: then it is there twice, under one number.
        found = [json.loads(value) for _, value in (*kept, *await self._spare.entries(key, after=0))]
        return [each for _, each in sorted({each["number"]: each for each in found}.items())]

    async def _will_go_on(self, begun: dict[str, Any] | None) -> bool:
        """Whether the process that began to answer a request still works at it."""
        if begun is None:
            return False
        if begun["owner"] == self._owner or self._alive is None:
            return bool(begun["owner"] == self._owner)
        try:
            return await self._alive(begun["owner"])
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


def _is_final(message: JSONRPCMessage) -> bool:
    return isinstance(message, JSONRPCResponse | JSONRPCError)


def _lost(begun: dict[str, Any] | None, stream_id: str) -> JSONRPCMessage:
    """The answer to a request whose process is gone."""
    return _said(
        begun,
        stream_id,
        "The gateway was restarted while it waited for the answer of this call. It is not known whether the tool ran. "
        "Find out before you call again.",
        "unknown",
    )


def _too_long(begun: dict[str, Any] | None, stream_id: str) -> JSONRPCMessage:
    """The answer to a request whose answer this process does not have."""
    return _said(begun, stream_id, "This call ran; its answer was too long to be kept over a cut stream.", "ran")


def _said(begun: dict[str, Any] | None, stream_id: str, text: str, outcome: Any) -> JSONRPCMessage:
    request_id = begun["id"] if begun is not None else None
    if request_id is None:
        # The SDK names a stream by the text of its request's id.
        request_id = int(stream_id) if stream_id.isdigit() and len(stream_id) < 16 else stream_id
    if begun is not None and begun["method"] == "tools/call":
        return JSONRPCResponse(jsonrpc="2.0", id=request_id, result=tool_error(text, outcome, {}))
    return JSONRPCError(
        jsonrpc="2.0", id=request_id, error=ErrorData(code=INTERNAL_ERROR, message=text, data={OUTCOME: outcome})
    )
