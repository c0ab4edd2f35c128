"""What passes between the SDK's session and a transport.

Both streams of every transport are wrapped. The wrapper on the way out encodes each message, and enters each request
among those that wait; the one on the way in shows each message to the watch. It reports the end of the transport,
too: an idle client is not told that its stdio child died or that its event stream ended, and the read stream is what
the session's receive loop reads from.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from contextvars import Context, copy_context
from types import TracebackType
from typing import Any

import anyio
from mcp.shared.message import SessionMessage
from mcp_types import JSONRPCNotification, JSONRPCRequest
from typing_extensions import Self

from mcpconn.core.attempt import ATTEMPT
from mcpconn.wire.messages import Outgoing, encode
from mcpconn.wire.waiting import Item
from mcpconn.wire.watch import Watch

CANCEL_PATIENCE = 0.25
"""Seconds to offer a courtesy cancel to a transport that is stuck. The SDK shields that write for 5 s, and
a call must not end later than its deadline by more than half a second."""


class Inbox:
    """Where a transport of ours puts what it has received. Keeps the context of whoever puts it: the SDK runs
    what a message causes (a progress callback, a request from the server) in the context of the call it came for."""

    def __init__(self) -> None:
        self._send, self._receive = anyio.create_memory_object_stream[tuple[Context, Item]](0)
        self.last_context: Context | None = None

    async def put(self, item: Item) -> None:
        """Hand `item` to the session, when it is ready for it. Nothing happens if it has ended."""
        try:
            # With the context of whoever delivers it: the SDK runs callbacks in it, and they find their call's record
            # there.
            await self._send.send((copy_context(), item))
        except (anyio.ClosedResourceError, anyio.BrokenResourceError):
            return

    def end(self) -> None:
        """Nothing more will come."""
        self._send.close()

    def close(self) -> None:
        """Nobody reads any more."""
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
    """A read stream that writes down what comes, and reports its end."""

    def __init__(self, inner: Any, watch: Watch, *, shared: bool = True) -> None:
        """
        Args:
            inner: The transport's own read stream.
            watch: What it is told to.
            shared: All requests have their answers on this one stream.
        """
        self._inner = inner
        self._watch = watch
        self._shared = shared
        watch.passes = True

    @property
    def last_context(self) -> Context | None:
        """The sender's context of the last item; the SDK's dispatcher asks for it."""
        return getattr(self._inner, "last_context", None)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Item:
        try:
            # Errors of the transport end the stream as well: to the session they are one thing.
            item: Item = await self._inner.__anext__()
        except (StopAsyncIteration, anyio.ClosedResourceError, anyio.BrokenResourceError):
            self._watch.end()
            raise
        # Before the session sees it, so that the record is complete when its caller wakes up.
        return self._watch.received(item, shared=self._shared)

    async def receive(self) -> Item:
        try:
            return await self.__anext__()
        except StopAsyncIteration:
            raise anyio.EndOfStream from None


class WatchedWrite(_Stream):
    """A write stream that encodes what it passes on, and notes each request in the record of its attempt."""

    def __init__(self, inner: Any, watch: Watch, *, final: bool, encoded: bool = True) -> None:
        """
        Args:
            inner: The transport's own write stream.
            watch: Told of each request.
            final: A message that `inner` took is as good as written. For HTTP it is not: there the HTTP
                client says what was.
            encoded: The transport sends bytes.
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
        # Here, in the task of whoever sends it: a transport that finds out by itself ends, with its session.
        body = encode(message) if self._encoded else b""
        item = Outgoing(message, item.metadata, body)
        if isinstance(message, JSONRPCRequest):
            await self._send_request(item, message)
            return
        self._watch.sent(message, None)
        if isinstance(message, JSONRPCNotification) and message.method == "notifications/cancelled":
            request_id = (message.params or {}).get("requestId")
            if request_id is not None:
                # First: an answer that crosses the cancellation has no caller any more.
                self._watch.waiting.give_up(request_id)
            # A courtesy. A child that does not read must not hold up whoever has just given up on it.
            with anyio.move_on_after(CANCEL_PATIENCE):
                await self._inner.send(item)
        else:
            await self._inner.send(item)

    async def _send_request(self, item: Outgoing, message: JSONRPCRequest) -> None:
        attempt = ATTEMPT.get()
        # A message of the SDK's own, such as the answer to a request of the server's.
        if attempt is None:
            self._watch.sent(message, None)
            await self._inner.send(item)
            return
        # From here on the record is about this message: a call may take several.
        attempt.start()
        self._watch.sent(message, attempt)
        # Whatever interrupts the hand-over, the other side may have taken it; only a closed stream has not.
        attempt.written = None if self._final else False
        try:
            await self._inner.send(item)
        except (anyio.ClosedResourceError, anyio.BrokenResourceError):
            attempt.written = False
            raise
        if self._final:
            attempt.written = True


@asynccontextmanager
async def watched(
    transport: AbstractAsyncContextManager[Any],
    watch: Watch,
    *,
    final: bool,
    shared: bool = True,
    encoded: bool = True,
) -> AsyncIterator[tuple[Any, Any]]:
    """`transport` with both its streams watched. Satisfies the SDK's `Transport`.

    Args:
        transport: A read and a write stream, when entered.
        watch: What is told of them.
        final: See `WatchedWrite`.
        shared: See `WatchedRead`.
        encoded: See `WatchedWrite`.
    """
    async with transport as (read, write):
        yield (
            WatchedRead(read, watch, shared=shared),
            WatchedWrite(write, watch, final=final, encoded=encoded),
        )
