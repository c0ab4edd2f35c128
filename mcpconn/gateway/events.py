"""Events of legacy sessions, kept for a while, so that a client whose stream was cut gets its answer all the same.

The SDK's server numbers the events of a stream and gives them out again to a client that names the last one it has
(`Last-Event-ID`). It says the stream, not the session, so the session is taken from the request's context. They are
kept in memory: to write each event of each call to a disk would cost more than the call, and a process that dies takes
the calls with it whose answers these are.
"""

from __future__ import annotations

from contextvars import ContextVar

from mcp.server.streamable_http import EventCallback, EventMessage, EventStore
from mcp_types import JSONRPCMessage, jsonrpc_message_adapter

from mcpconn.gateway.sessions import Session
from mcpconn.gateway.store import Key, MemoryStore

KEPT = 64
"""Events of one stream."""
TTL = 300.0
"""Seconds after its last event for which a stream can be resumed. A client comes back within seconds."""

SESSION: ContextVar[Session | None] = ContextVar("mcpconn_gateway_session", default=None)
"""The downstream session that the present code works for."""


class Events(EventStore):
    """The SDK's event store, apart for each session."""

    def __init__(self, store: MemoryStore | None = None) -> None:
        self._store = store or MemoryStore()

    async def store_event(self, stream_id: str, message: JSONRPCMessage | None) -> str:
        dumped = b"" if message is None else message.model_dump_json(by_alias=True, exclude_unset=True).encode()
        number = await self._store.append(self._key(stream_id), dumped, ttl=TTL, keep=KEPT)
        return f"{number}.{stream_id}"

    async def replay_events_after(self, last_event_id: str, send_callback: EventCallback) -> str | None:
        number, _, stream_id = last_event_id.partition(".")
        if not number.isdigit() or len(number) > 18:
            return None
        for later, dumped in await self._store.entries(self._key(stream_id), after=int(number)):
            if dumped:
                message = jsonrpc_message_adapter.validate_json(dumped)
                await send_callback(EventMessage(message, f"{later}.{stream_id}"))
        return stream_id

    def _key(self, stream_id: str) -> Key:
        session = SESSION.get()
        # Another session's streams have the same names; its key is the only way to them.
        return Key(f"events/{session.sid if session is not None else ''}", stream_id)
