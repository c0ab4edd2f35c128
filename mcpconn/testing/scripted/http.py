"""A scripted MCP server on a real TCP socket."""

from __future__ import annotations

import socket
from contextlib import suppress
from functools import partial
from types import TracebackType

import anyio
import anyio.abc
import anyio.lowlevel

from mcpconn.testing.scripted.conversation import Conversation
from mcpconn.testing.scripted.script import Script
from mcpconn.testing.scripted.sockets import arm_reset, listen, ready

_RECEIVE = 64 * 1024


class HttpServer:
    """Serves a `Script` at `http://127.0.0.1:PORT/mcp`.

    Sockets are handled directly rather than through AnyIO streams: those end a connection in
    an orderly way before they close it, and a server that fails on command has to be able to
    send a bare TCP reset.
    """

    def __init__(self, script: Script, *, port: int = 0) -> None:
        self.script = script
        self.port = port
        """The port served; chosen by the system at the first start if it was 0."""
        self.accepted = 0
        """How many connections have been accepted so far."""
        self._connections: set[Conversation] = set()
        self._tasks: anyio.abc.TaskGroup | None = None
        self._serving: anyio.CancelScope | None = None
        self._stopped = anyio.Event()

    @property
    def url(self) -> str:
        """The address of the MCP endpoint."""
        return f"http://127.0.0.1:{self.port}/mcp"

    @property
    def open_connections(self) -> int:
        """How many connections are open now."""
        return len(self._connections)

    async def __aenter__(self) -> HttpServer:
        tasks = anyio.create_task_group()
        self._tasks = await tasks.__aenter__()
        try:
            await self.start()
        except BaseException as exc:
            await tasks.__aexit__(type(exc), exc, exc.__traceback__)
            raise
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        assert self._tasks is not None, "the server was never entered"
        self._tasks.cancel_scope.cancel()
        try:
            # The task group is not notified of the exception, which it would wrap in a group.
            await self._tasks.__aexit__(None, None, None)
        finally:
            self._tasks = None

    async def start(self) -> None:
        """Accept connections, on the same port as before if there was one.

        Raises:
            RuntimeError: The server is running, or was not entered with `async with`.
        """
        if self._tasks is None or self._serving is not None:
            raise RuntimeError("start() needs an entered server that is not running")
        await self._tasks.start(self._serve)

    async def stop(self) -> None:
        """Stop listening and reset every connection. Does nothing if the server is not running."""
        if self._serving is not None:
            self._serving.cancel()
            await self._stopped.wait()

    async def reset_connections(self) -> None:
        """Reset every open connection and keep listening."""
        connections = tuple(self._connections)
        for connection in connections:
            connection.scope.cancel()
        for connection in connections:
            await connection.closed.wait()

    async def _serve(self, *, task_status: anyio.abc.TaskStatus[None]) -> None:
        """Listen until cancelled; every connection is a task of its own."""
        listener = await listen(self.port)
        self.port = listener.getsockname()[1]
        self._stopped = anyio.Event()
        try:
            with anyio.CancelScope() as self._serving, listener:
                async with anyio.create_task_group() as connections:
                    task_status.started()
                    while True:
                        # A client may be gone before its connection is accepted.
                        with suppress(ConnectionAbortedError):
                            peer, _ = await ready(listener, anyio.wait_readable, listener.accept)
                            self.accepted += 1
                            connections.start_soon(self._handle, peer)
        finally:
            self._serving = None
            self._stopped.set()

    async def _handle(self, peer: socket.socket) -> None:
        connection = Conversation(_TcpPeer(peer), self.script)
        self._connections.add(connection)
        try:
            await connection.run()
        finally:
            self._connections.discard(connection)


class _TcpPeer:
    """The other end of a TCP connection."""

    def __init__(self, peer: socket.socket) -> None:
        peer.setblocking(False)
        peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._peer = peer

    async def receive(self) -> bytes:
        return await ready(self._peer, anyio.wait_readable, lambda: self._peer.recv(_RECEIVE))

    async def send(self, data: bytes) -> None:
        rest = memoryview(data)
        await anyio.lowlevel.checkpoint()
        while rest:
            rest = rest[await ready(self._peer, anyio.wait_writable, partial(self._peer.send, rest)) :]

    def arm_reset(self) -> None:
        arm_reset(self._peer)

    def close(self) -> None:
        self._peer.close()
