"""A scripted MCP server inside the process, reached through an HTTP transport without sockets."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable

import anyio
import anyio.lowlevel
import httpx2

from mcpconn.testing.scripted.script import Script
from mcpconn.testing.scripted.steps import Close, Feed, Follow, Hang, Raw, Reply, Reset, Send, Sleep


class ScriptTransport(httpx2.AsyncBaseTransport):
    """Plays a `Script` for `httpx2.AsyncClient(transport=...)`.

    Time passes only in `anyio.sleep`, so virtual clocks work. The read timeout of a request
    is honoured the way a real connection honours it.
    """

    def __init__(self, script: Script) -> None:
        self.script = script
        self.down = False
        """While true, no connection can be made. Exchanges in progress continue; see `drop`."""
        self.refusing = 0
        """Number of upcoming requests that find no connection: they fail before they are written."""
        self.refused = 0
        """How many requests have found no connection."""
        self._waits: set[anyio.CancelScope] = set()

    @property
    def waiting(self) -> int:
        """How many exchanges are in progress, waiting for the server."""
        return len(self._waits)

    def drop(self) -> None:
        """Reset every exchange that is waiting for the server."""
        for scope in tuple(self._waits):
            scope.cancel()

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Answer one request."""
        body = await request.aread()
        await anyio.lowlevel.checkpoint()
        if self.down or self.refusing:
            self.refused += 1
            self.refusing = max(0, self.refusing - 1)
            raise httpx2.ConnectError("All connection attempts failed", request=request)
        reply = self.script.decide(request.method, dict(request.headers), body)
        exchange = _Exchange(reply, request, self._waits)
        try:
            first = await exchange.head()
        except BaseException:
            # The generator ended with the exception, so this does not wait for anything.
            await exchange.close()
            raise
        status = reply.status if reply.status is not None else 500
        stream = _Body(exchange, first)
        return httpx2.Response(status, headers=list(reply.headers), stream=stream, request=request)


class _Exchange:
    """One reply while it is played."""

    def __init__(self, reply: Reply, request: httpx2.Request, waits: set[anyio.CancelScope]) -> None:
        self._reply = reply
        self._request = request
        self._waits = waits
        self._timeout: float | None = request.extensions.get("timeout", {}).get("read")
        self.body = self._play()
        """The body still to come."""

    async def head(self) -> bytes | None:
        """Play up to the first body bytes, which follow the headers; None if the body is empty."""
        try:
            return await self.body.__anext__()
        except StopAsyncIteration:
            if self._reply.status is None:
                raise self._disconnected("Server disconnected without sending a response.") from None
            return None

    async def _play(self) -> AsyncGenerator[bytes, None]:
        """Play the steps and yield body bytes."""
        for step in self._reply.steps:
            if isinstance(step, Send):
                # A checkpoint, so that endless bodies can be cancelled.
                await anyio.lowlevel.checkpoint()
                yield step.data
            elif isinstance(step, Raw):
                raise RuntimeError("raw bytes need a server with sockets: HttpServer or MemoryTransport")
            elif isinstance(step, Sleep):
                await self._wait(_sleeper(step.seconds))
            elif isinstance(step, Hang):
                await self._wait(anyio.sleep_forever)
            elif isinstance(step, Follow):
                while (data := await self._news(step.feed)) is not None:
                    yield data
            elif isinstance(step, Reset):
                raise httpx2.ReadError("Connection reset by peer", request=self._request)
            elif isinstance(step, Close):
                raise self._disconnected(
                    "peer closed connection without sending complete message body (incomplete chunked read)"
                )

    async def _news(self, feed: Feed) -> bytes | None:
        """What a feed receives next; None once it is closed."""
        while not feed.pending:
            if feed.closed:
                return None
            changed = anyio.Event()
            feed.wake = changed.set
            await self._wait(changed.wait)
        return feed.pending.popleft()

    async def _wait(self, wait: Callable[[], Awaitable[object]]) -> None:
        """Wait, within the read timeout and until the transport drops its exchanges."""
        with anyio.CancelScope() as dropped:
            self._waits.add(dropped)
            try:
                with anyio.move_on_after(self._timeout) as limit:
                    await wait()
            finally:
                self._waits.discard(dropped)
            if limit.cancelled_caught:
                raise httpx2.ReadTimeout("The read operation timed out", request=self._request)
        if dropped.cancelled_caught:
            raise httpx2.ReadError("Connection reset by peer", request=self._request)

    def _disconnected(self, text: str) -> httpx2.RemoteProtocolError:
        return httpx2.RemoteProtocolError(text, request=self._request)

    async def close(self) -> None:
        """Stop playing."""
        await self.body.aclose()
        self._reply.close_steps()


class _Body(httpx2.AsyncByteStream, AsyncIterator[bytes]):
    """The body of a response: bytes already produced by the head, then the rest of the steps."""

    def __init__(self, exchange: _Exchange, first: bytes | None) -> None:
        self._exchange = exchange
        self._first = first

    def __aiter__(self) -> AsyncIterator[bytes]:
        # Not a generator: a client may leave it unfinished, and trio warns about generators left so.
        return self

    async def __anext__(self) -> bytes:
        first, self._first = self._first, b""
        if first is None:
            raise StopAsyncIteration
        return first or await self._exchange.body.__anext__()

    async def aclose(self) -> None:
        await self._exchange.close()


def _sleeper(seconds: float) -> Callable[[], Awaitable[None]]:
    return lambda: anyio.sleep(seconds)
