"""Stream wrappers that notice what the SDK keeps to itself: what is being sent, and the end of a transport.

An idle client is not told that its stdio child died or that its event stream ended; the wrapper around the
read stream is, because it is what the session's receive loop reads from.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from contextvars import Context, ContextVar
from types import TracebackType
from typing import Any

import anyio
from mcp.shared.message import SessionMessage
from mcp_types import JSONRPCError, JSONRPCMessage, JSONRPCNotification, JSONRPCRequest
from typing_extensions import Self

from mcpconn.core.exchange import EXCHANGE
from mcpconn.core.failures import Evidence

OUTBOUND: ContextVar[JSONRPCMessage | None] = ContextVar("mcpconn_outbound", default=None)
"""The message being sent. The SDK's HTTP transports hand the sender's context on to the HTTP client."""

CANCEL_PATIENCE = 0.25
"""Seconds to offer a courtesy cancel to a transport that is stuck. The SDK shields that write for 5 s, and
a call must not end later than its deadline by more than half a second."""


class Watch:
    """What the wire has noticed about one session, shared by its streams, its HTTP client and its child."""

    def __init__(self, sign: Callable[[Evidence], None]) -> None:
        """
        Args:
            sign: Told what happened to the session while no call was there to fail.
        """
        self.sign = sign
        self.ended = False
        """The transport has ended: no answer can come any more."""
        self.doomed = False
        """The session is known to be gone: do not say goodbye to it."""
        self.reason: BaseException | None = None
        """Why the transport ended, where somebody knows."""
        self.stream_opened = False
        """The server has opened its standalone event stream once."""
        self.grace = 2.0
        """Seconds a child gets to end by itself. 2 s is the SDK's figure."""
        self.background: Callable[[Callable[[], Coroutine[Any, Any, None]]], object] = lambda _: None
        """Runs a function beside the session, ended with it."""
        self.inject: Callable[[JSONRPCError], object] | None = None
        """Puts an answer into the read stream, for transports whose answers come another way than requests."""

    def end(self) -> None:
        """The read stream has ended."""
        if self.ended:
            return
        self.ended = True
        reason = self.reason or anyio.EndOfStream()
        self.sign(Evidence(exception=reason, from_wire=False, phase="idle"))


class WatchedRead:
    """A read stream that reports its end."""

    def __init__(self, inner: Any, watch: Watch) -> None:
        self._inner = inner
        self._watch = watch

    @property
    def last_context(self) -> Context | None:
        """The sender's context of the last item; the SDK's dispatcher asks for it."""
        return getattr(self._inner, "last_context", None)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> SessionMessage | Exception:
        try:
            return await self._inner.__anext__()  # type: ignore[no-any-return]
        except (StopAsyncIteration, anyio.ClosedResourceError, anyio.BrokenResourceError):
            self._watch.end()
            raise

    async def receive(self) -> SessionMessage | Exception:
        try:
            return await self.__anext__()
        except StopAsyncIteration:
            raise anyio.EndOfStream from None

    async def aclose(self) -> None:
        """Nothing: the transport closes both streams at its own end.

        Closed before, an answer that comes late would be an error in the SDK's transport, and would interrupt
        its goodbye to the server.
        """

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        await self.aclose()


class WatchedWrite:
    """A write stream that notes each request it passes on in the record of the call it is for."""

    def __init__(self, inner: Any, *, final: bool) -> None:
        """
        Args:
            inner: The transport's own write stream.
            final: A message that `inner` took is as good as written. For HTTP it is not: there the HTTP
                client says what was.
        """
        self._inner = inner
        self._final = final

    async def send(self, item: SessionMessage) -> None:
        message = item.message
        if not isinstance(message, JSONRPCError):
            _encodable(message)
        token = OUTBOUND.set(message)
        try:
            if isinstance(message, JSONRPCRequest):
                await self._send_request(item)
            elif isinstance(message, JSONRPCNotification) and message.method == "notifications/cancelled":
                with anyio.move_on_after(CANCEL_PATIENCE):
                    await self._inner.send(item)
            else:
                await self._inner.send(item)
        finally:
            OUTBOUND.reset(token)

    async def _send_request(self, item: SessionMessage) -> None:
        exchange = EXCHANGE.get()
        if exchange is None:
            await self._inner.send(item)
            return
        exchange.start()
        # Whatever interrupts the hand-over, the other side may have taken it; only a closed stream has not.
        exchange.written = None if self._final else False
        try:
            await self._inner.send(item)
        except (anyio.ClosedResourceError, anyio.BrokenResourceError):
            exchange.written = False
            raise
        if self._final:
            exchange.written = True

    async def aclose(self) -> None:
        """Nothing; see `WatchedRead`."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        await self.aclose()


def _encodable(message: JSONRPCMessage) -> None:
    """Return if `message` can be sent. A transport that finds out by itself ends, and its session with it.

    Raises:
        ValueError: half a surrogate pair is in one of its texts, which is no JSON. Nothing was written.
    """
    try:
        message.model_dump_json()
    except ValueError:
        raise ValueError(
            "the message cannot be sent: one of its texts is no valid Unicode (half a surrogate pair)"
        ) from None


@asynccontextmanager
async def watched(
    transport: AbstractAsyncContextManager[Any], watch: Watch, *, final: bool
) -> AsyncIterator[tuple[Any, Any]]:
    """`transport` with both its streams watched. Satisfies the SDK's `Transport`."""
    async with transport as (read, write):
        yield WatchedRead(read, watch), WatchedWrite(write, final=final)


@asynccontextmanager
async def injectable(transport: AbstractAsyncContextManager[Any], watch: Watch) -> AsyncIterator[tuple[Any, Any]]:
    """`transport` with a read stream that `watch.inject` can put answers into.

    Only the SSE transport needs it: there a request's refusal is seen by the POST, but its answer is
    awaited on the event stream, and the SDK connects the two no further than its log.
    """
    async with transport as (read, write), anyio.create_task_group() as group:
        send, receive = anyio.create_memory_object_stream[Any](64)

        async def pump() -> None:
            async with send:
                try:
                    async for item in read:
                        if isinstance(item, Exception):
                            # Whatever cut the stream, it is the end of this transport. (Its own error would be a
                            # suspicion: over plain HTTP a cut socket proves nothing.)
                            watch.reason = anyio.EndOfStream(str(item) or type(item).__name__)
                        await send.send(item)
                except anyio.BrokenResourceError:
                    return

        async def put(error: JSONRPCError) -> None:
            try:
                await send.send(SessionMessage(error))
            except (anyio.ClosedResourceError, anyio.BrokenResourceError):
                return

        watch.inject = lambda error: group.start_soon(put, error)
        group.start_soon(pump)
        try:
            yield receive, write
        finally:
            watch.inject = None
            group.cancel_scope.cancel()
            send.close()
            receive.close()
