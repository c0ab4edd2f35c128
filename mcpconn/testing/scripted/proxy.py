"""A TCP proxy that disturbs its connections on command."""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable
from functools import partial
from types import TracebackType
from typing import Protocol

import anyio
import anyio.abc

from mcpconn.testing.scripted.sockets import arm_reset, listen, ready

_PIECE = 16 * 1024


class _Server(Protocol):
    @property
    def port(self) -> int: ...


class FaultProxy:
    """Stands between a client and a server on this machine.

        async with HttpServer(script) as server, FaultProxy(server) as proxy:
            async with Connection(proxy.url) as connection:
                proxy.latency = 0.05

    A setting takes effect at once, for existing and new connections.
    """

    def __init__(self, server: _Server, *, path: str = "/mcp") -> None:
        """
        Args:
            server: The target of connections: any object with a `port`, which is read for each connection.
            path: The path of `url`.
        """
        self._server = server
        self._path = path
        self.port = 0
        """The port served."""
        self.latency = 0.0
        """Seconds for which each piece is held back, in either direction."""
        self.bandwidth: float | None = None
        """Bytes a second from the server to the client, for each connection; None for no limit."""
        self._truncate: int | None = None
        self.slow_close = 0.0
        """Seconds by which the closing of one side is delayed for the other."""
        self.silent = False
        """Accept new connections, but carry nothing over them, as `half_open` does for existing ones."""
        self.refusing = False
        """Reset new connections."""
        self.accepted = 0
        """How many connections have been accepted so far."""
        self._connections: set[_Connection] = set()
        self._tasks: anyio.abc.TaskGroup | None = None

    @property
    def url(self) -> str:
        """The address of the endpoint behind the proxy."""
        return f"http://127.0.0.1:{self.port}{self._path}"

    @property
    def truncate(self) -> int | None:
        """Bytes towards the client, counted from when this is set, after which a connection is closed; None for never.

        The close is orderly, so the answer is cut and the connection is not reset.
        """
        return self._truncate

    @truncate.setter
    def truncate(self, value: int | None) -> None:
        self._truncate = value
        for connection in self._connections:
            connection.answered = 0

    @property
    def open_connections(self) -> int:
        """How many connections go through the proxy now."""
        return len(self._connections)

    async def __aenter__(self) -> FaultProxy:
        tasks = anyio.create_task_group()
        self._tasks = await tasks.__aenter__()
        listener = await listen(self.port)
        self.port = listener.getsockname()[1]
        self._tasks.start_soon(self._serve, listener)
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        assert self._tasks is not None
        self._tasks.cancel_scope.cancel()
        # The task group is not notified of the exception, which it would wrap in a group.
        await self._tasks.__aexit__(None, None, None)

    def reset(self) -> None:
        """Reset every connection, towards both sides."""
        for connection in tuple(self._connections):
            connection.scope.cancel()

    def half_open(self) -> None:
        """Carry nothing more over existing connections, without telling either side, as if a peer had lost power."""
        for connection in self._connections:
            connection.silent = True

    async def _serve(self, listener: socket.socket) -> None:
        assert self._tasks is not None
        with listener:
            while True:
                peer, _ = await ready(listener, anyio.wait_readable, listener.accept)
                self.accepted += 1
                self._tasks.start_soon(self._handle, peer)

    async def _handle(self, peer: socket.socket) -> None:
        connection = _Connection(self, peer)
        self._connections.add(connection)
        try:
            await connection.run(self._server.port)
        finally:
            self._connections.discard(connection)


class _Connection:
    """One connection through the proxy."""

    def __init__(self, proxy: FaultProxy, client: socket.socket) -> None:
        self.proxy = proxy
        self.client = client
        self.server = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        for end in (self.client, self.server):
            end.setblocking(False)
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.scope = anyio.CancelScope()
        self.silent = proxy.silent
        self.answered = 0
        """Bytes sent to the client."""

    async def run(self, port: int) -> None:
        """Carry bytes both ways until both sides have ended; reset both if anything else ends it."""
        with self.client, self.server, self.scope:
            try:
                if self.proxy.refusing:
                    raise ConnectionRefusedError
                await ready(self.server, anyio.wait_writable, partial(_connect, self.server, port))
                async with anyio.create_task_group() as group:
                    group.start_soon(self._pump, self.client, self.server, self._ask, group)
                    group.start_soon(self._pump, self.server, self.client, self._answer, group)
            except OSError:
                # One side is gone, and the other gets a reset too.
                arm_reset(self.client)
                arm_reset(self.server)
            except BaseException:
                arm_reset(self.client)
                arm_reset(self.server)
                raise

    async def _pump(
        self,
        source: socket.socket,
        target: socket.socket,
        shape: Callable[[int], int | None],
        group: anyio.abc.TaskGroup,
    ) -> None:
        try:
            while data := await ready(source, anyio.wait_readable, partial(source.recv, _PIECE)):
                if self.proxy.latency:
                    await anyio.sleep(self.proxy.latency)
                if self.silent:
                    await anyio.sleep_forever()
                allowed = shape(len(data))
                await self._send(target, data[:allowed], source is self.server)
                if allowed is not None:
                    # The rest is never sent.
                    group.cancel_scope.cancel()
                    return
            await anyio.sleep(self.proxy.slow_close)
            target.shutdown(socket.SHUT_WR)
        except OSError:
            arm_reset(self.client)
            arm_reset(self.server)
            group.cancel_scope.cancel()

    def _ask(self, size: int) -> None:
        return None

    def _answer(self, size: int) -> int | None:
        """How many of the given number of bytes may still be sent; None: all, and more later."""
        before, self.answered = self.answered, self.answered + size
        limit = self.proxy.truncate
        return None if limit is None or self.answered < limit else max(0, limit - before)

    async def _send(self, target: socket.socket, data: bytes, answer: bool) -> None:
        rest = memoryview(data)
        while rest:
            piece = rest
            if answer and self.proxy.bandwidth is not None:
                # The amount for 50 ms at a time.
                piece = rest[: max(1, int(self.proxy.bandwidth / 20))]
                await anyio.sleep(len(piece) / self.proxy.bandwidth)
            rest = rest[await ready(target, anyio.wait_writable, partial(target.send, piece)) :]


def _connect(sock: socket.socket, port: int) -> None:
    """Connect a non-blocking socket: `connect` is repeated until it reports that the connection exists."""
    try:
        sock.connect(("127.0.0.1", port))
    except OSError as error:
        if error.errno == errno.EISCONN:
            return
        raise
