"""A scripted MCP server in the process, behind mcpconn's HTTP engine and connections in memory.

`ScriptTransport` answers requests; here they are bytes on connections that are reused, so a server can leave stray
bytes on one (`scripted.poison`). Time passes only in `anyio.sleep`, so virtual clocks work.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TYPE_CHECKING

import anyio
import anyio.lowlevel
import httpx2
from anyio.abc import TaskGroup
from typing_extensions import Self

from mcpconn.testing.scripted.conversation import Conversation
from mcpconn.testing.scripted.script import Script

if TYPE_CHECKING:
    from mcpconn.wire.engine.connect import Origin


READ_SIZE = 64 * 1024
"""Bytes read at once."""


class MemoryTransport(httpx2.AsyncBaseTransport):
    """Connects `httpx2.AsyncClient(transport=...)` with a `Script`, inside `serving()`."""

    reports_writes = True

    def __init__(self, script: Script, *, keepalive_expiry: float = 4.0) -> None:
        """
        Args:
            script: The server.
            keepalive_expiry: Seconds an unused connection is kept.
        """
        # Imported late, because `mcpconn.testing` imports this module, and few users serve anything.
        from mcpconn.wire.engine.pool import Engine

        self.script = script
        self.down = False
        """While true, no connection can be made. Existing ones continue; see `drop`."""
        self.refusing = 0
        """Number of upcoming requests that find no connection: they fail before they are written."""
        self.refused = 0
        """How many requests have found no connection."""
        self._engine = Engine(keepalive_expiry=keepalive_expiry, connect=self._connect)
        self._conversations: set[Conversation] = set()
        self._tasks: TaskGroup | None = None

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[Self]:
        """Run the server's side while the block runs. (The client enters the transport itself.)"""
        try:
            async with anyio.create_task_group() as self._tasks:
                yield self
                self._tasks.cancel_scope.cancel()
        finally:
            self._tasks = None
            await self._engine.aclose()

    def drop(self) -> None:
        """Reset every connection."""
        for conversation in tuple(self._conversations):
            conversation.scope.cancel()

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        await anyio.lowlevel.checkpoint()
        if self.down or self.refusing:
            self.refused += 1
            self.refusing = max(0, self.refusing - 1)
            raise httpx2.ConnectError("All connection attempts failed", request=request)
        return await self._engine.handle_async_request(request)

    def tended(self) -> AbstractAsyncContextManager[None]:
        """Check idle connections for the time of a session, as `Engine.tended` does."""
        return self._engine.tended()

    async def aclose(self) -> None:
        """Does nothing, because the connections end with `serving`, and until then another client may use this
        transport."""

    async def _connect(self, origin: Origin, sni: str | None) -> MemoryChannel:
        if self.down or self._tasks is None:
            raise ConnectionRefusedError("Connection refused")
        there, back = _Pipe(), _Pipe()
        conversation = Conversation(_MemoryPeer(there, back), self.script)
        self._conversations.add(conversation)
        self._tasks.start_soon(self._serve, conversation)
        return MemoryChannel(there, back)

    async def _serve(self, conversation: Conversation) -> None:
        try:
            await conversation.run()
        finally:
            self._conversations.discard(conversation)


class _Pipe:
    """Bytes in transit in one direction."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.taken = 0
        """Bytes that can be read on the other side."""
        self.ended = False
        """The sender has closed its side."""
        self.broken = False
        """The reader gets a reset after the bytes that had arrived before it."""
        self.changed = anyio.Event()

    def wake(self) -> None:
        self.changed.set()
        self.changed = anyio.Event()

    def push(self, data: bytes) -> None:
        self.data += data
        self.wake()

    def take(self, limit: int) -> bytes | None:
        """The bytes that have arrived; b"" at the end of the stream; None if there are none yet. Raises OSError after a
        reset."""
        if self.data:
            found = bytes(self.data[:limit])
            del self.data[:limit]
            self.taken += len(found)
            return found
        if self.broken:
            raise ConnectionResetError("Connection reset by peer")
        return b"" if self.ended else None

    async def wait(self) -> None:
        """Return when `take` would not return None."""
        while not (self.data or self.broken or self.ended):
            await self.changed.wait()


class MemoryChannel:
    """The client's end of a connection. A `mcpconn.wire.engine.channel.Channel`."""

    def __init__(self, there: _Pipe, back: _Pipe) -> None:
        self._there = there
        self._back = back
        self._closed = False
        self.sent = 0

    def acknowledged_since(self, mark: int) -> bool:
        """Whether the server has read any byte after the first `mark`; there is no system buffer in between."""
        return self._there.taken > mark

    def receive_nowait(self, limit: int = READ_SIZE) -> bytes | None:
        return self._back.take(limit)

    def send_nowait(self, data: memoryview) -> int:
        if self._back.ended or self._back.broken or self._closed:
            raise BrokenPipeError("Broken pipe")
        self._there.push(bytes(data))
        self.sent += len(data)
        return len(data)

    def flush_nowait(self) -> bool:
        return True

    async def readable(self) -> None:
        await self._back.wait()
        if self._closed:
            raise anyio.ClosedResourceError

    async def writable(self) -> None:
        await anyio.lowlevel.checkpoint()

    def close(self) -> None:
        self._closed = self._there.ended = True
        self._there.wake()
        self._back.broken = True
        self._back.wake()


class _MemoryPeer:
    """The client, as the server sees it."""

    def __init__(self, there: _Pipe, back: _Pipe) -> None:
        self._there = there
        self._back = back
        self._reset = False

    async def receive(self) -> bytes:
        await anyio.lowlevel.checkpoint()
        await self._there.wait()
        found = self._there.take(READ_SIZE)
        assert found is not None
        return found

    async def send(self, data: bytes) -> None:
        await anyio.lowlevel.checkpoint()
        if self._there.ended:
            raise BrokenPipeError("Broken pipe")
        self._back.push(data)

    def arm_reset(self) -> None:
        self._reset = True

    def close(self) -> None:
        # As in TCP: closing with unread data sends a reset.
        if self._reset:
            self._back.data.clear()
        self._back.broken = self._back.broken or self._reset or bool(self._there.data)
        self._back.ended = True
        self._back.wake()
