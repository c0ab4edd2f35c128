"""The engine: selects the socket for a request, and decides what happens to the socket afterwards."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import anyio
import h11
import httpx2

from mcpconn.wire.engine.channel import Channel
from mcpconn.wire.engine.connect import Connector, Origin, origin_of
from mcpconn.wire.engine.http1 import HttpSocket, Timeouts
from mcpconn.wire.engine.lifetimes import Lifetimes
from mcpconn.wire.extensions import HEADERS_STARTED, UNSAFE_KEY
from mcpconn.wire.reasons import connect_reason, place
from mcpconn.wire.sweeping import Sweeping

LARGE = 64 * 1024
"""Bytes of a body above which a request gets a fresh socket. A server may refuse such a request before it has read it,
and only on a fresh socket is it certain that the refusal belongs to this request. Compared with such a body, a connect
is cheap."""

SWEEP_SHORTEST = 0.05
"""Minimum seconds between two sweeps of idle sockets, so that sockets that expire in succession are closed together."""
SWEEP_LONGEST = 5.0
"""The maximum: a server that exits closes sockets before the promised time."""

Connect = Callable[[Origin, "str | None"], Awaitable[Channel]]
"""Opens a channel to an origin; the name for TLS, if it is another than the host's."""


class Engine(httpx2.AsyncBaseTransport):
    """Sends requests over sockets of its own, for one connection."""

    reports_writes = True
    """It calls the `trace` extension before the first byte of a request is sent, as httpcore2 does."""

    def __init__(
        self,
        tls: Callable[[], ssl.SSLContext] | None = None,
        *,
        keepalive_expiry: float,
        socket_options: tuple[tuple[int, int, int], ...] = (),
        connect: Connect | None = None,
        now: Callable[[], float] = anyio.current_time,
    ) -> None:
        """
        Args:
            tls: The TLS context; asked for at the first https connect, and not before.
            keepalive_expiry: Seconds that an unused socket is kept, if the server does not specify a time.
            socket_options: Level, name and value of options for every socket.
            connect: Opens channels, in place of TCP and TLS.
            now: The clock, in seconds.
        """
        self._connect = connect or Connector(tls or ssl.create_default_context, socket_options)
        self._now = now
        self._lifetimes = Lifetimes(keepalive_expiry, now)
        self._idle: list[HttpSocket] = []
        """In the order of their last use."""
        self._sockets: set[HttpSocket] = set()
        self._sweeping = Sweeping(self._sweep, over=self._close_idle)
        self.tended = self._sweeping.within
        """A context manager for the time of a session: idle sockets are swept, and closed at the end of the last one.
        Without it a socket that the server has closed would stay half-closed until the next request."""

    def __repr__(self) -> str:
        return f"<Engine sockets={len(self._sockets)} idle={len(self._idle)}>"

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        # Read completely, because MCP messages are in memory anyway and a request is written in one piece.
        body = await request.aread()
        timeout: Timeouts = request.extensions.get("timeout", {})
        unsafe = bool(request.extensions.get(UNSAFE_KEY))
        socket = self._reuse(request, unsafe=unsafe, large=len(body) > LARGE)
        # No pool of waiting requests: a connection opens as many sockets as it has calls, which the gate limits.
        if socket is None:
            socket = await self._open(request, timeout.get("connect"))
        trace = request.extensions.get("trace")

        async def writing() -> None:
            if trace is not None:
                await trace(HEADERS_STARTED, {"request": request})

        idle = self._now() - socket.idle_since
        try:
            head = await socket.exchange(request, body, timeout, writing)
        except BaseException as error:
            # If a used socket ends without a response, the server closed it while it was idle. Its idle time is
            # remembered, and sockets are given up sooner.
            if socket.used and not socket.heard and isinstance(error, (httpx2.NetworkError, httpx2.ProtocolError)):
                self._lifetimes.died(idle)
            self._close(socket)
            raise
        self._lifetimes.promise(_header(head, b"keep-alive"))
        return httpx2.Response(
            head.status_code,
            headers=head.headers.raw_items(),
            stream=_Body(self, socket),
            extensions={"http_version": b"HTTP/" + head.http_version, "reason_phrase": bytes(head.reason)},
        )

    # -- sockets

    def _reuse(self, request: httpx2.Request, *, unsafe: bool, large: bool) -> HttpSocket | None:
        """The most recently used trustworthy socket. Sockets that are too old or not clean are closed."""
        # A refusal of a large body ends in a reset. On a fresh socket the refusal can be read before it.
        if large:
            return None
        origin = origin_of(request.url)
        now = self._now()
        limit = self._lifetimes.limit
        wanted = self._lifetimes.limit_for_unsafe if unsafe else limit
        # The most recently used one is most likely to be open.
        for socket in reversed(self._idle):
            age = now - socket.idle_since
            if socket.origin != origin:
                continue
            if age > limit or not socket.is_clean():
                self._close(socket)
            elif age <= wanted:
                self._idle.remove(socket)
                return socket
            else:
                # The ones before it are even older.
                return None
        return None

    async def _open(self, request: httpx2.Request, timeout: float | None) -> HttpSocket:
        origin = origin_of(request.url)
        if origin[0] not in ("http", "https"):
            raise httpx2.UnsupportedProtocol(f"Request URL has an unsupported protocol {origin[0]!r}.")
        try:
            with anyio.fail_after(timeout):
                channel = await self._connect(origin, request.extensions.get("sni_hostname"))
        except TimeoutError as error:
            # The system's own limit has an errno; mcpconn's has none.
            within = f" within {timeout:g} s" if error.errno is None and timeout is not None else ""
            raise httpx2.ConnectTimeout(f"{place(*origin[1:])}: no connection{within or ' in time'}") from None
        except (OSError, anyio.ClosedResourceError) as error:
            text, cause = connect_reason(error, *origin[1:])
            raise httpx2.ConnectError(text) from cause
        socket = HttpSocket(channel, origin)
        self._sockets.add(socket)
        if not socket.is_clean():
            self._close(socket)
            raise httpx2.ConnectError("the server sent data, or closed the connection, before the first request")
        return socket

    def _close(self, socket: HttpSocket) -> None:
        self._sockets.discard(socket)
        if socket in self._idle:
            self._idle.remove(socket)
        socket.channel.close()

    def release(self, socket: HttpSocket) -> None:
        """A response was read to its end, or abandoned."""
        # Closed in the meantime by the end of the engine.
        if socket not in self._sockets:
            return
        if socket.recycle(self._now()):
            self._idle.append(socket)
            self._sweeping.soon()
        else:
            self._close(socket)

    # -- idle sockets

    def sweep(self) -> float | None:
        """Close idle sockets that are too old or that the server has closed. Returns the seconds until the next one is
        too old."""
        now, limit = self._now(), self._lifetimes.limit
        for socket in tuple(self._idle):
            if now - socket.idle_since >= limit or not socket.is_clean():
                self._close(socket)
        return self._idle[0].idle_since + limit - now if self._idle else None

    async def _sweep(self) -> float | None:
        wait = self.sweep()
        return None if wait is None else min(max(wait, SWEEP_SHORTEST), SWEEP_LONGEST)

    def _close_idle(self) -> None:
        for socket in tuple(self._idle):
            self._close(socket)

    async def aclose(self) -> None:
        for socket in tuple(self._sockets):
            self._close(socket)


class _Body(httpx2.AsyncByteStream):
    """The body of a response. Not a generator, because an unfinished one would hold its socket until it is
    garbage-collected."""

    def __init__(self, engine: Engine, socket: HttpSocket) -> None:
        self._engine = engine
        self._socket: HttpSocket | None = socket

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        if self._socket is None:
            raise StopAsyncIteration
        try:
            piece = await self._socket.piece()
        except BaseException:
            self._release()
            raise
        if piece is None:
            self._release()
            raise StopAsyncIteration
        return piece

    async def aclose(self) -> None:
        self._release()

    def _release(self) -> None:
        socket, self._socket = self._socket, None
        if socket is not None:
            self._engine.release(socket)


def _header(head: h11.Response, name: bytes) -> str | None:
    found: Any = next((value for key, value in head.headers if key == name), None)
    return None if found is None else bytes(found).decode("latin-1")
