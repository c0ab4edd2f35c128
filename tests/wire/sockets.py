"""A server that is a socket and a list of replies, and a client over one engine or the other.

A test says with them exactly what comes over the wire, and when.
"""

from __future__ import annotations

import socket
import ssl
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Literal

import anyio
import httpx2
from anyio.abc import SocketAttribute
from anyio.streams.tls import TLSListener

from mcpconn.wire.engine.pool import Engine
from mcpconn.wire.library import Library
from tests.support import SAFETY

Name = Literal["direct", "httpx"]
RESET = struct.pack("ii", 1, 0)
OK = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello"


@dataclass
class Reply:
    """Bytes to send for one request, and what to do with the socket then."""

    data: bytes = OK
    then: Literal["keep", "close", "reset", "hang", "stall", "more", "leave"] = "keep"
    """`hang` notices when the client leaves, `stall` does not even read, `more` sends `more` when it may (`speak`), and
    `leave` closes then."""
    more: bytes = b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n"
    read: bool = True
    """Read the request's body first."""
    early: bytes = b""
    """Sent before that."""


def _set() -> anyio.Event:
    event = anyio.Event()
    event.set()
    return event


@dataclass
class Server:
    """A socket that answers with what it was given, request by request."""

    replies: list[Reply]
    port: int = 0
    scheme: str = "http"
    greeting: bytes = b""
    """Sent to whoever connects, as servers of other protocols do."""
    accepted: int = 0
    bodies: list[bytes] = field(default_factory=list)
    heads: list[bytes] = field(default_factory=list)
    hanging: anyio.Event = field(default_factory=anyio.Event)
    sent: anyio.Event = field(default_factory=anyio.Event)
    """A reply was sent."""
    speak: anyio.Event = field(default_factory=lambda: _set())
    """`more` waits for it; set unless a test puts another one here."""
    spoken: anyio.Event = field(default_factory=anyio.Event)
    gone: anyio.Event = field(default_factory=anyio.Event)
    """A socket was closed, by whichever side."""

    @property
    def url(self) -> str:
        return f"{self.scheme}://127.0.0.1:{self.port}/mcp"

    async def handle(self, stream: Any) -> None:
        self.accepted += 1
        try:
            async with stream:
                if self.greeting:
                    await stream.send(self.greeting)
                with suppress(anyio.EndOfStream, anyio.BrokenResourceError):
                    while await self._answer(stream):
                        pass
        finally:
            self.gone.set()

    async def _answer(self, stream: Any) -> bool:
        received = b""
        while b"\r\n\r\n" not in received:
            received += await stream.receive()
        head, _, body = received.partition(b"\r\n\r\n")
        reply = self.replies.pop(0)
        length = next((int(line[15:]) for line in head.lower().split(b"\r\n") if line[:15] == b"content-length:"), 0)
        if reply.early:
            await stream.send(reply.early)
        while reply.read and len(body) < length:
            body += await stream.receive()
        self.heads.append(head)
        self.bodies.append(body)
        if reply.data:
            await stream.send(reply.data)
        self.sent.set()
        if reply.then == "more":
            await self.speak.wait()
            await stream.send(reply.more)
            self.spoken.set()
        if reply.then == "leave":
            await self.speak.wait()
        if reply.then == "hang":
            self.hanging.set()
            await stream.receive()
        if reply.then == "stall":
            await anyio.sleep_forever()
        if reply.then == "reset":
            stream.extra(SocketAttribute.raw_socket).setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        return reply.then in ("keep", "more")


@asynccontextmanager
async def listening(*replies: Reply, tls: ssl.SSLContext | None = None) -> AsyncIterator[Server]:
    server = Server(list(replies), scheme="https" if tls else "http")
    with anyio.fail_after(SAFETY):
        listener: Any = await anyio.create_tcp_listener(local_host="127.0.0.1", local_port=0)
        server.port = listener.extra(SocketAttribute.local_port)
        if tls is not None:
            listener = TLSListener(listener, tls, standard_compatible=False)
        async with listener, anyio.create_task_group() as group:
            group.start_soon(listener.serve, server.handle)
            yield server
            group.cancel_scope.cancel()


@asynccontextmanager
async def client(
    engine: Name, *, expiry: float = 60.0, tls: ssl.SSLContext | None = None, **options: Any
) -> AsyncIterator[httpx2.AsyncClient]:
    def context() -> ssl.SSLContext:
        assert tls is not None
        return tls

    transport: httpx2.AsyncBaseTransport
    if engine == "direct":
        transport = Engine(context, keepalive_expiry=expiry)
    else:
        transport = Library(tls or httpx2.create_ssl_context(verify=False), keepalive_expiry=expiry)
    async with httpx2.AsyncClient(transport=transport, **{"timeout": None, **options}) as made:
        yield made


async def free_port() -> int:
    async with await anyio.create_tcp_listener(local_host="127.0.0.1", local_port=0) as listener:
        return int(listener.extra(SocketAttribute.local_port))
