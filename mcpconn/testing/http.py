"""A scripted MCP server on a real TCP socket."""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING

import anyio
import anyio.abc
import anyio.lowlevel

from mcpconn.testing.script import Script
from mcpconn.testing.sockets import arm_reset, listen, ready
from mcpconn.testing.steps import Close, Feed, Follow, Hang, Raw, Reply, Reset, Send, Sleep

if TYPE_CHECKING:
    import h11

__all__ = ["HttpServer"]

_RECEIVE = 64 * 1024


class _GoneError(Exception):
    """The connection is over, whoever ended it."""


class HttpServer:
    """Serves a `Script` at `http://127.0.0.1:PORT/mcp`.

    Sockets are handled directly rather than through AnyIO streams: those end a connection in
    an orderly way before they close it, and a server that fails on command has to be able to
    send a bare TCP reset.
    """

    def __init__(self, script: Script, *, port: int = 0) -> None:
        # `mcpconn` brings this module along, and few of its users serve anything.
        global h11
        import h11

        self.script = script
        self.port = port
        """The port served; chosen by the system at the first start if it was 0."""
        self.accepted = 0
        """How many connections have been accepted so far."""
        self._connections: set[_Connection] = set()
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
            # The task group is not told of the exception, which it would wrap in a group.
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
        connection = _Connection(peer, self.script)
        self._connections.add(connection)
        try:
            await connection.run()
        finally:
            self._connections.discard(connection)
            connection.closed.set()


class _Connection:
    """One accepted connection and the requests that arrive on it."""

    def __init__(self, peer: socket.socket, script: Script) -> None:
        peer.setblocking(False)
        peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.scope = anyio.CancelScope()
        self.closed = anyio.Event()
        self._peer = peer
        self._script = script
        self._http = h11.Connection(h11.SERVER)

    async def run(self) -> None:
        """Serve requests until either side ends the connection; a cancelled connection is reset."""
        with self._peer, self.scope:
            try:
                while await self._serve_one():
                    pass
            except (_GoneError, OSError, h11.RemoteProtocolError):
                return
            except BaseException:
                arm_reset(self._peer)
                raise

    async def _serve_one(self) -> bool:
        """Serve one request; whether the connection can be used again."""
        request = await self._next_event()
        if not isinstance(request, h11.Request):
            return False
        body = bytearray()
        while not isinstance(event := await self._next_event(), h11.EndOfMessage):
            if not isinstance(event, h11.Data):
                return False
            body += event.data
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in request.headers}
        reply = self._script.decide(request.method.decode("ascii"), headers, bytes(body))
        try:
            raw = await self._play(reply)
        finally:
            reply.close_steps()
        if raw:
            # What was sent went past this side's parser, which begins anew with what the client sent since.
            waiting, _ = self._http.trailing_data
            self._http = h11.Connection(h11.SERVER)
            if waiting:
                self._http.receive_data(waiting)
            return True
        if self._http.our_state is not h11.DONE or self._http.their_state is not h11.DONE:
            return False
        self._http.start_next_cycle()
        return True

    async def _next_event(self) -> object:
        while (event := self._http.next_event()) is h11.NEED_DATA:
            self._http.receive_data(await self._receive())
        return event

    async def _play(self, reply: Reply) -> bool:
        """Take the steps of a reply; whether it was sent as raw bytes. Raises `_GoneError` when the connection ends."""
        begun = raw = False
        for step in reply.steps:
            if isinstance(step, Raw):
                raw = True
                await self._write(step.data)
            elif isinstance(step, Send):
                if not begun:
                    begun = True
                    await self._begin(reply)
                await self._send(h11.Data(data=step.data))
            elif isinstance(step, Sleep):
                await self._until(_sleeper(step.seconds))
            elif isinstance(step, Hang):
                await self._until(anyio.sleep_forever)
            elif isinstance(step, Follow):
                await self._follow(step.feed)
            elif isinstance(step, Reset):
                arm_reset(self._peer)
                raise _GoneError
            elif isinstance(step, Close):
                raise _GoneError
        if raw:
            return True
        if not begun:
            await self._begin(reply)
        await self._send(h11.EndOfMessage())
        return False

    async def _begin(self, reply: Reply) -> None:
        if reply.status is None:
            raise _GoneError
        await self._send(h11.Response(status_code=reply.status, headers=list(reply.headers)))

    async def _follow(self, feed: Feed) -> None:
        """Forward what a feed receives until it is closed."""
        while True:
            changed = anyio.Event()
            feed.wake = changed.set
            while feed.pending:
                await self._send(h11.Data(data=feed.pending.popleft()))
            if feed.closed:
                return
            if not changed.is_set():
                await self._until(changed.wait)

    async def _until(self, wait: Callable[[], Awaitable[object]]) -> None:
        """Wait for something, but only as long as the client stays connected."""
        gone = False

        async def watch(scope: anyio.CancelScope) -> None:
            nonlocal gone
            try:
                while data := await self._receive():
                    # A request sent ahead of time waits until this one is answered.
                    self._http.receive_data(data)
            except OSError:
                pass
            gone = True
            scope.cancel()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(watch, tasks.cancel_scope)
            await wait()
            tasks.cancel_scope.cancel()
        if gone:
            raise _GoneError

    async def _receive(self) -> bytes:
        return await ready(self._peer, anyio.wait_readable, lambda: self._peer.recv(_RECEIVE))

    async def _send(self, event: h11.Event) -> None:
        await self._write(self._http.send(event) or b"")

    async def _write(self, sent: bytes) -> None:
        data = memoryview(sent)
        await anyio.lowlevel.checkpoint()
        while data:
            data = data[await ready(self._peer, anyio.wait_writable, partial(self._peer.send, data)) :]


def _sleeper(seconds: float) -> Callable[[], Awaitable[None]]:
    return lambda: anyio.sleep(seconds)
