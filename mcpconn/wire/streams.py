"""The streams between the SDK's session and a transport.

Both streams of every transport are wrapped. The outgoing wrapper encodes each message, and registers each request as
waiting; the incoming one shows each message to the watch. It also reports the end of the transport, because the SDK
does not notify an idle client that its stdio child exited or that its event stream ended.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from contextvars import Context, copy_context
from types import TracebackType
from typing import Any

import anyio
from mcp.shared.message import SessionMessage
from mcp_types import JSONRPCNotification, JSONRPCRequest, RequestId
from typing_extensions import Self

from mcpconn.core.attempt import ATTEMPT
from mcpconn.wire.messages import Outgoing, encode
from mcpconn.wire.waiting import Item
from mcpconn.wire.watch import Watch

CANCEL_PATIENCE = 0.25
"""Seconds for sending a cancel notification to a blocked transport. The SDK shields that write for 5 s, but a call must
not exceed its deadline by more than half a second."""
STRAY = 2.0
"""Seconds for the answer to the only waiting request after an answer came that names no request. That one may be
meant for this request, and then no other follows; or it is a stray. Two seconds are much longer than the time between
two lines of one server, and a server that returns wrong ids delays its callers by no more."""


class Inbox:
    """The queue of received messages of mcpconn's transports. It keeps the context of the sender, because the SDK
    handles a message (a progress callback, a request from the server) in the context of the call that it belongs to."""

    def __init__(self) -> None:
        self._send, self._receive = anyio.create_memory_object_stream[tuple[Context, Item]](0)
        self.last_context: Context | None = None

    async def put(self, item: Item) -> None:
        """Pass `item` to the session when it is ready. Does nothing if the session has ended."""
        try:
            # With the context of the sender: the SDK runs callbacks in it, and they find their call's record there.
            await self._send.send((copy_context(), item))
        except (anyio.ClosedResourceError, anyio.BrokenResourceError):
            return

    def end(self) -> None:
        """Nothing more will come."""
        self._send.close()

    def close(self) -> None:
        """The reader has closed."""
        self._send.close()
        self._receive.close()

    async def __anext__(self) -> Item:
        self.last_context, item = await self._receive.__anext__()
        return item


class _Stream:
    """A stream that its transport closes, at its own end.

    Closed by the session before, an answer that comes late would be an error in the transport, and would
    interrupt its DELETE to the server.
    """

    async def aclose(self) -> None:
        """Nothing."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        await self.aclose()


class WatchedRead(_Stream):
    """A read stream that records messages, and reports its end."""

    def __init__(self, inner: Any, watch: Watch, *, shared: bool = True) -> None:
        """
        Args:
            inner: The transport's own read stream.
            watch: Receives the messages.
            shared: All requests have their answers on this one stream.
        """
        self._inner = inner
        self._watch = watch
        self._shared = shared
        self._doubt: tuple[RequestId, float] | None = None
        """The doubted request (`Waiting.doubted`), and when the wait for its answer ends, by anyio's clock."""
        watch.passes = True

    @property
    def last_context(self) -> Context | None:
        """The sender's context of the last item; the SDK's dispatcher asks for it."""
        return getattr(self._inner, "last_context", None)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Item:
        try:
            # Errors of the transport end the stream as well; the session handles both in the same way.
            while self._watch.waiting.doubted is not None:
                with anyio.CancelScope(deadline=self._patience(self._watch.waiting.doubted)):
                    return self._received(await self._inner.__anext__())
                # Nothing is lost: a read that has its message is not cancelled.
                if (failed := self._watch.waiting.condemn()) is not None:
                    return failed
            return self._received(await self._inner.__anext__())
        except (StopAsyncIteration, anyio.ClosedResourceError, anyio.BrokenResourceError):
            self._watch.end()
            raise

    def _received(self, item: Item) -> Item:
        # Recorded before the session sees the message, so that the record is complete when the caller wakes up.
        return self._watch.received(item, shared=self._shared)

    def _patience(self, doubted: RequestId) -> float:
        """When the wait for the answer to the doubted request ends."""
        if self._doubt is None or self._doubt[0] != doubted:
            self._doubt = doubted, anyio.current_time() + STRAY
        return self._doubt[1]

    async def receive(self) -> Item:
        try:
            return await self.__anext__()
        except StopAsyncIteration:
            raise anyio.EndOfStream from None


class WatchedWrite(_Stream):
    """A write stream that encodes messages, and notes each request in the record of its attempt."""

    def __init__(self, inner: Any, watch: Watch, *, final: bool, encoded: bool = True) -> None:
        """
        Args:
            inner: The transport's own write stream.
            watch: Receives each request.
            final: Whether a message that `inner` accepted counts as written. Not for HTTP, where the HTTP client
                reports writes.
            encoded: Whether the transport sends bytes.
        """
        self._inner = inner
        self._watch = watch
        self._final = final
        self._encoded = encoded

    async def send(self, item: SessionMessage) -> None:
        """Pass `item` on.

        Raises:
            ValueError: it cannot be put into JSON; nothing was written.
        """
        message = item.message
        # Encoded here, in the sender's task, because an encoding error in the transport would end the session.
        body = encode(message) if self._encoded else b""
        item = Outgoing(message, item.metadata, body)
        if isinstance(message, JSONRPCRequest):
            await self._send_request(item, message)
            return
        self._watch.sent(message, None)
        if isinstance(message, JSONRPCNotification) and message.method == "notifications/cancelled":
            request_id = (message.params or {}).get("requestId")
            if request_id is not None:
                # Done first, because an answer that crosses the cancellation has no caller.
                self._watch.waiting.give_up(request_id)
            # Best effort: a child that does not read must not delay the caller that has just been cancelled.
            with anyio.move_on_after(CANCEL_PATIENCE):
                await self._inner.send(item)
        else:
            await self._inner.send(item)

    async def _send_request(self, item: Outgoing, message: JSONRPCRequest) -> None:
        attempt = ATTEMPT.get()
        # The SDK's own message, such as the answer to a request of the server.
        if attempt is None:
            self._watch.sent(message, None)
            await self._inner.send(item)
            return
        # From here on the record is about this message: a call may take several.
        attempt.start()
        self._watch.sent(message, attempt)
        # If the send is interrupted, the receiver may have taken the message; only a closed stream certainly has not.
        attempt.written = None if self._final else False
        try:
            await self._inner.send(item)
        except (anyio.ClosedResourceError, anyio.BrokenResourceError):
            attempt.written = False
            raise
        if self._final:
            attempt.written = True


def watched(
    transport: AbstractAsyncContextManager[Any],
    watch: Watch,
    *,
    final: bool,
    shared: bool = True,
    encoded: bool = True,
) -> AbstractAsyncContextManager[tuple[Any, Any]]:
    """`transport` with both its streams watched. Satisfies the SDK's `Transport`.

    Args:
        transport: A read and a write stream, when entered.
        watch: Receives their messages.
        final: See `WatchedWrite`.
        shared: See `WatchedRead`.
        encoded: See `WatchedWrite`.
    """

    def wrap(read: Any, write: Any) -> tuple[Any, Any]:
        return WatchedRead(read, watch, shared=shared), WatchedWrite(write, watch, final=final, encoded=encoded)

    return _Watched(transport, wrap)


class _Watched(AbstractAsyncContextManager[tuple[Any, Any]]):
    """A transport whose streams are wrapped. A class, because it is entered for the whole time of a session, and a
    generator that is suspended as long takes 600 bytes more."""

    __slots__ = ("_transport", "_wrap")

    def __init__(
        self, transport: AbstractAsyncContextManager[Any], wrap: Callable[[Any, Any], tuple[Any, Any]]
    ) -> None:
        self._transport = transport
        self._wrap = wrap

    async def __aenter__(self) -> tuple[Any, Any]:
        read, write = await self._transport.__aenter__()
        return self._wrap(read, write)

    async def __aexit__(self, *raised: Any) -> bool | None:
        return await self._transport.__aexit__(*raised)
