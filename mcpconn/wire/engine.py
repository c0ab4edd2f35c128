"""An HTTP/1.1 engine with nothing in it that a connection to one MCP server does not need.

`httpx2` sends through httpcore2's pool, which is made for many origins, HTTP/2 and proxies; measured, that and
its layers of streams are more than half of what a call over HTTP costs a client. Here a connection has a list
of idle sockets, h11 (the parser that httpcore2 uses as well) reads and writes them, and a request leaves in one
packet. It runs on asyncio and trio alike. It knows no proxies: those are `httpx2.AsyncHTTPTransport`'s.

What it promises to the lens: `ConnectError`, `ConnectTimeout`, `UnsupportedProtocol` or `LocalProtocolError`
where nothing was written; any other error where something may have been. A request is never sent twice.
"""

from __future__ import annotations

import select
import ssl
import time
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from typing import Any

import anyio
import h11
import httpx2
from anyio.abc import ByteStream, SocketAttribute

HEAD_LIMIT = 100 * 1024
"""Bytes of a response's head, or of one chunk's header. httpcore2's figure."""
READ_SIZE = 64 * 1024
"""Bytes read at once. httpcore2's figure, too."""

# A socket that ends is no session that ends. anyio's errors are the same for both, so they are not passed on as
# causes: to the classification they would be proof that the transport is lost.
_GONE = (anyio.BrokenResourceError, anyio.ClosedResourceError)


class Engine(httpx2.AsyncBaseTransport):
    """Sends requests over sockets of its own. Not for sharing between origins."""

    def __init__(self, tls: Callable[[], ssl.SSLContext], *, keepalive_expiry: float) -> None:
        """
        Args:
            tls: The TLS context; asked for at the first https connect, and not before.
            keepalive_expiry: Seconds after which an unused socket is not used again, and is closed with the next
                request.
        """
        self._tls = tls
        self._keepalive_expiry = keepalive_expiry
        self._idle: list[_Wire] = []
        self._wires: set[_Wire] = set()

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        body = await request.aread()
        timeout: dict[str, float | None] = request.extensions.get("timeout", {})
        wire = await self._idle_wire(request) or await self._connect(request, timeout.get("connect"))
        try:
            head = await wire.exchange(request, body, timeout)
        except BaseException:
            await self._close(wire)
            raise
        return httpx2.Response(
            head.status_code,
            headers=head.headers.raw_items(),
            stream=_Body(self, wire),
            extensions={"http_version": b"HTTP/" + head.http_version, "reason_phrase": bytes(head.reason)},
        )

    async def aclose(self) -> None:
        self._idle.clear()
        for wire in tuple(self._wires):
            await self._close(wire)

    async def _idle_wire(self, request: httpx2.Request) -> _Wire | None:
        """The socket used last of those that are still good; the others are closed on the way."""
        origin = _origin(request.url)
        now = time.monotonic()
        while self._idle:
            wire = self._idle.pop()
            if wire.origin == origin and now - wire.idle_since <= self._keepalive_expiry and not wire.readable():
                return wire
            await self._close(wire)
        return None

    async def _connect(self, request: httpx2.Request, timeout: float | None) -> _Wire:
        scheme, host, port = origin = _origin(request.url)
        if scheme not in ("http", "https"):
            raise httpx2.UnsupportedProtocol(f"Request URL has an unsupported protocol {scheme!r}.")
        stream: ByteStream
        try:
            with anyio.fail_after(timeout):
                if scheme == "http":
                    stream = await anyio.connect_tcp(host, port)
                else:
                    name = request.extensions.get("sni_hostname") or host
                    stream = await anyio.connect_tcp(
                        host, port, tls=True, ssl_context=self._tls(), tls_hostname=name, tls_standard_compatible=False
                    )
        except TimeoutError:
            raise httpx2.ConnectTimeout(f"no connection within {timeout:g} s") from None
        except (OSError, anyio.EndOfStream, *_GONE) as error:
            raise httpx2.ConnectError(str(error) or "the TLS handshake was cut off") from None
        wire = _Wire(stream, origin)
        self._wires.add(wire)
        return wire

    async def _close(self, wire: _Wire) -> None:
        self._wires.discard(wire)
        # Closing does not wait for anything; a cancelled caller must not leave a socket behind.
        with anyio.CancelScope(shield=True):
            await wire.stream.aclose()

    async def release(self, wire: _Wire) -> None:
        """A response was read to its end, or given up."""
        if wire not in self._wires:
            return
        if wire.recycle():
            self._idle.append(wire)
        else:
            await self._close(wire)


class _Wire:
    """One socket, with the state of HTTP on it."""

    __slots__ = ("_http", "_read_timeout", "_socket", "idle_since", "origin", "stream")

    def __init__(self, stream: ByteStream, origin: tuple[str, str, int]) -> None:
        self.stream = stream
        self.origin = origin
        self.idle_since = 0.0
        self._http = h11.Connection(h11.CLIENT, max_incomplete_event_size=HEAD_LIMIT)
        self._read_timeout: float | None = None
        self._socket: Any = stream.extra(SocketAttribute.raw_socket)

    def readable(self) -> bool:
        """Whether there is something to read. On an idle socket that can only be the server's goodbye."""
        if hasattr(select, "poll"):
            poll = select.poll()
            poll.register(self._socket.fileno(), select.POLLIN)
            return bool(poll.poll(0))
        return bool(select.select([self._socket.fileno()], [], [], 0)[0])

    def recycle(self) -> bool:
        """Make ready for the next request. False where the socket cannot be used again."""
        http = self._http
        if http.our_state is not h11.DONE or http.their_state is not h11.DONE:
            return False
        http.start_next_cycle()
        self.idle_since = time.monotonic()
        return True

    async def exchange(self, request: httpx2.Request, body: bytes, timeout: dict[str, float | None]) -> h11.Response:
        """Send a request; return the head of its response."""
        http = self._http
        try:
            parts = [
                http.send(h11.Request(method=request.method, target=request.url.raw_path, headers=request.headers.raw))
            ]
            if body:
                parts.append(http.send(h11.Data(data=body)))
            parts.append(http.send(h11.EndOfMessage()))
        except h11.LocalProtocolError as error:
            raise httpx2.LocalProtocolError(str(error)) from error
        # A server that refuses a request may answer and close before it has read all of it.
        with suppress(*_GONE):
            await self._write(b"".join(part for part in parts if part), timeout.get("write"))
        self._read_timeout = timeout.get("read")
        while True:
            event = await self.event()
            if isinstance(event, h11.Response):
                return event
            if not isinstance(event, h11.InformationalResponse) or event.status_code == 101:
                raise httpx2.RemoteProtocolError("the server wants to speak another protocol")

    async def _write(self, data: bytes, timeout: float | None) -> None:
        if timeout is None:
            await self.stream.send(data)
            return
        try:
            with anyio.fail_after(timeout):
                await self.stream.send(data)
        except TimeoutError:
            raise httpx2.WriteTimeout(f"the request could not be written within {timeout:g} s") from None

    async def event(self) -> Any:
        """What the server says next."""
        http = self._http
        while True:
            try:
                event = http.next_event()
            except h11.RemoteProtocolError as error:
                raise httpx2.RemoteProtocolError(str(error)) from error
            if event is not h11.NEED_DATA:
                return event
            data = await self._read()
            if not data and http.their_state is h11.SEND_RESPONSE:
                raise httpx2.RemoteProtocolError("Server disconnected without sending a response.")
            http.receive_data(data)

    async def _read(self) -> bytes:
        try:
            if self._read_timeout is None:
                return await self.stream.receive(READ_SIZE)
            with anyio.fail_after(self._read_timeout):
                return await self.stream.receive(READ_SIZE)
        except anyio.EndOfStream:
            return b""
        except _GONE as error:
            raise httpx2.ReadError(str(error.__cause__ or error)) from None
        except TimeoutError:
            raise httpx2.ReadTimeout(f"nothing was received for {self._read_timeout:g} s") from None


class _Body(httpx2.AsyncByteStream):
    """The body of a response. No generator: one that is left unfinished would hold its socket until collected."""

    def __init__(self, engine: Engine, wire: _Wire) -> None:
        self._engine = engine
        self._wire: _Wire | None = wire

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        if self._wire is None:
            raise StopAsyncIteration
        try:
            event = await self._wire.event()
        except BaseException:
            await self.aclose()
            raise
        if isinstance(event, h11.Data):
            return bytes(event.data)
        await self.aclose()
        raise StopAsyncIteration

    async def aclose(self) -> None:
        wire, self._wire = self._wire, None
        if wire is not None:
            await self._engine.release(wire)


def _origin(url: httpx2.URL) -> tuple[str, str, int]:
    return url.scheme, url.raw_host.decode("ascii"), url.port or (443 if url.scheme == "https" else 80)
