"""httpx2's own transport, extended to give the guarantees of mcpconn's engine as far as possible.

It is used for servers behind a proxy, and if the configuration selects it (`"engine": "httpx"`). It uses mcpconn's
sockets (`wire.backend`) and reports when it writes (`trace`), but bytes that follow a response stay in its parser,
where they cannot be detected. So an unsafe call gets its own socket, from a second transport that keeps none.
"""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Callable
from typing import Any

import h11
import httpx2
from anyio.lowlevel import checkpoint

from mcpconn.sdk.http import pool_of, use_backend
from mcpconn.wire.backend import Backend
from mcpconn.wire.extensions import UNSAFE_KEY
from mcpconn.wire.fairness import TinyChunks, Turns
from mcpconn.wire.reasons import protocol_reason
from mcpconn.wire.sweeping import Sweeping

SWEEP = 1.0
"""Seconds between two checks of the idle sockets of a pool."""


class Library(httpx2.AsyncBaseTransport):
    """Sends requests with httpx2, for one connection."""

    reports_writes = True

    def __init__(
        self,
        tls: ssl.SSLContext,
        *,
        keepalive_expiry: float,
        proxy: str | None = None,
        socket_options: tuple[tuple[int, int, int], ...] = (),
    ) -> None:
        """
        Args:
            tls: The TLS context.
            keepalive_expiry: Seconds an unused socket is kept.
            proxy: URL of a proxy.
            socket_options: Level, name and value of options for every socket.
        """
        options: dict[str, Any] = {"verify": tls, "socket_options": socket_options}
        if proxy is not None:
            options["proxy"] = proxy
        # The number of sockets is bounded by the calls in flight; a pool limit below it could only deadlock
        # against the standalone event streams, which hold a socket for as long as the session lives.
        keep = httpx2.Limits(max_connections=None, max_keepalive_connections=None, keepalive_expiry=keepalive_expiry)
        none = httpx2.Limits(max_connections=None, max_keepalive_connections=0)
        self._keeping = httpx2.AsyncHTTPTransport(limits=keep, **options)
        self._fresh = httpx2.AsyncHTTPTransport(limits=none, **options)
        for transport in (self._keeping, self._fresh):
            use_backend(transport, Backend(tunnels=proxy is not None))
        self._sweeping = Sweeping(self._sweep)
        self.tended = self._sweeping.within
        """A context manager for the time of a session, as `Engine.tended`."""

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        # Checked before the library writes, because it reports the write before it detects invalid headers.
        _check(request)
        # An unsafe call gets an unused socket, because httpcore2 cannot tell whether an idle one is clean.
        transport = self._fresh if request.extensions.get(UNSAFE_KEY) else self._keeping
        try:
            response = await transport.handle_async_request(request)
        except httpx2.RemoteProtocolError as error:
            text, cause = protocol_reason(error)
            raise httpx2.RemoteProtocolError(text) from cause
        except httpx2.ConnectError as error:
            # Its type tells, for example, that the certificate is the cause, which waiting does not fix.
            raise httpx2.ConnectError(str(error)) from getattr(error.__cause__, "reason", None)
        assert isinstance(response.stream, httpx2.AsyncByteStream)
        response.stream = _Paced(response.stream, self._sweeping.soon)
        return response

    async def sweep(self) -> bool:
        """Close idle sockets that are too old or that the server has closed. Returns whether there are others."""
        pool = pool_of(self._keeping)
        some = False
        for connection in tuple(pool.connections) if pool is not None else ():
            if not connection.is_idle():
                continue
            # True, too, if the server has closed it: httpcore2 looks at the socket.
            if connection.has_expired():
                await connection.aclose()
            else:
                # The sweeper continues only while there are idle sockets.
                some = True
        return some

    async def _sweep(self) -> float | None:
        # No event tells that a server has closed a socket, so each sweep looks at the idle ones.
        return SWEEP if await self.sweep() else None

    async def aclose(self) -> None:
        await self._keeping.aclose()
        await self._fresh.aclose()


def _check(request: httpx2.Request) -> None:
    """Refuse an invalid header before the library reports that it starts to write.

    Raises:
        httpx2.LocalProtocolError: There is one.
    """
    try:
        h11.Request(method=request.method, target=request.url.raw_path, headers=request.headers.raw)
    except h11.LocalProtocolError as error:
        raise httpx2.LocalProtocolError(protocol_reason(error)[0]) from None


class _Paced(httpx2.AsyncByteStream):
    """The body of a response. The library returns chunk after chunk without yielding to the loop."""

    def __init__(self, inner: httpx2.AsyncByteStream, closed: Callable[[], None]) -> None:
        self._inner = inner
        self._closed = closed
        self._parts = inner.__aiter__()
        self._turns = Turns()
        self._chunks = TinyChunks()

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        part = await self._parts.__anext__()
        self._chunks.count(len(part))
        if self._turns.over():
            await checkpoint()
        return part

    async def aclose(self) -> None:
        await self._inner.aclose()
        self._closed()
