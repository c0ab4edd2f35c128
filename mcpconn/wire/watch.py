"""What passes between the SDK's session and a transport, and what is known from it.

Both streams of every transport are wrapped. The wrapper on the way out encodes each message, and enters each
request in the table of those that wait; the one on the way in strikes off what is answered, and writes down
whether the server said it. That is how evidence is told from words: an error that the SDK or a transport made up
on this side never came in as bytes that were parsed here, whatever its text says.

An idle client is not told that its stdio child died or that its event stream ended; the wrapper around the
read stream is, because it is what the session's receive loop reads from.
"""

from __future__ import annotations

import logging
import math
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from contextvars import Context, copy_context
from types import TracebackType
from typing import Any

import anyio
from mcp.shared.dispatcher import coerce_request_id
from mcp.shared.message import SessionMessage
from mcp_types import (
    CONNECTION_CLOSED,
    JSONRPCError,
    JSONRPCMessage,
    JSONRPCNotification,
    JSONRPCRequest,
    JSONRPCResponse,
    RequestId,
)
from typing_extensions import Self

from mcpconn.core.decide import RETURNED_LIMIT
from mcpconn.core.exchange import EXCHANGE, Exchange
from mcpconn.core.failures import Evidence
from mcpconn.core.stream import StreamRecord
from mcpconn.wire.era import Discovery
from mcpconn.wire.messages import Made, Outgoing, Unreadable, encode, made

logger = logging.getLogger("mcpconn")

CANCEL_PATIENCE = 0.25
"""Seconds to offer a courtesy cancel to a transport that is stuck. The SDK shields that write for 5 s, and
a call must not end later than its deadline by more than half a second."""

RUNNING = frozenset({"notifications/message"})
"""Notifications that say that some request is being worked on, but not which."""


def _verbatim(text: str) -> str:
    return text


class Watch:
    """What the wire has noticed about one session, shared by its streams, its HTTP client and its child."""

    def __init__(
        self,
        sign: Callable[[Evidence], None],
        redact: Callable[[str], str] = _verbatim,
        name: str = "",
        chance: Callable[[], float] = lambda: 0.0,
        discovery: Discovery | None = None,
    ) -> None:
        """
        Args:
            sign: Told what happened to the session while no call was there to fail.
            redact: Hides secrets in what a server said.
            name: Of the connection, for the log.
            chance: A random number from 0 to 1, for the waits before the event stream is reopened.
            discovery: What is being asked about the server's era.
        """
        self.sign = sign
        self.discovery = discovery or Discovery(math.inf)
        self._redact = redact
        self._name = name
        self.dropped = 0
        """Messages that were read and not passed on."""
        self.ended = False
        """The transport has ended: no answer can come any more."""
        self.doomed = False
        """The session is known to be gone: do not say goodbye to it."""
        self.reason: BaseException | None = None
        """Why the transport ended, where somebody knows."""
        self.stream = StreamRecord(chance)
        """The session's event stream, which is reopened for as long as the session lives."""
        self.doubt: BaseException | None = None
        """The child has ended, and its pipes have not: why nobody may be there. Gone with the next message."""
        self.proof: BaseException = anyio.EndOfStream()
        """What that will have been if a probe is not answered."""
        self.last_words: Callable[[], str] = str
        """The last line that the child wrote to stderr."""
        self.sever: Callable[[BaseException], None] = lambda _: None
        """Ends the transport for this reason: its session and the calls on it are told at once."""
        self._probes: set[anyio.CancelScope] = set()
        self.passes = False
        """All messages pass these streams, so that what was not seen here was not received."""
        self._waiting: dict[RequestId, Exchange] = {}
        """Requests that were sent and not answered, by id, with the record of the attempt each belongs to."""
        self._listening: set[RequestId] = set()
        """Those among them that wait for as long as the session lives (`subscriptions/listen`)."""
        self._named: set[RequestId] = set()
        """Ids of requests that are texts. The others are numbers, and rise."""
        self._highest = 0
        self._quiet_since = 0
        """The highest id when something else than a request was sent last. That may be what is answered without an
        id, rightly or not."""

    def end(self) -> None:
        """The read stream has ended."""
        if self.ended:
            return
        self.ended = True
        reason = self.reason or anyio.EndOfStream()
        self.sign(Evidence(exception=reason, from_wire=False, phase="idle"))

    def suspect(self, reason: BaseException, proof: BaseException) -> None:
        """Nobody may be there any more. Probes that are under way have a second left for their answer.

        Args:
            reason: Why.
            proof: What that will have been if no probe is answered.
        """
        self.doubt, self.proof = reason, proof
        for probe in self._probes:
            probe.deadline = min(probe.deadline, anyio.current_time() + RETURNED_LIMIT)
        self.sign(Evidence(exception=reason, from_wire=False, phase="idle"))

    async def probing(self, probe: Awaitable[None]) -> None:
        """Await the answer to a probe, for a second at most once there is a doubt.

        Raises:
            TimeoutError: a doubt arose, and none came in time.
        """
        with anyio.CancelScope() as scope:
            self._probes.add(scope)
            try:
                await probe
            finally:
                self._probes.discard(scope)
            return
        raise TimeoutError

    def drop(self, why: str) -> None:
        """A message is not passed on. The first of a session is worth a line to whoever runs the server."""
        self.dropped += 1
        level = logging.WARNING if self.dropped == 1 else logging.DEBUG
        logger.log(level, "message.dropped connection=%s why=%r", self._name, why)

    # -- what was sent

    def sent(self, message: JSONRPCMessage, exchange: Exchange | None) -> None:
        """`message` is about to be sent, for the attempt that `exchange` records."""
        if not self.discovery.shaken.is_set():
            self.discovery.sent(message)
        if not isinstance(message, JSONRPCRequest):
            self._quiet_since = self._highest
            return
        key = coerce_request_id(message.id)
        if isinstance(key, int):
            self._highest = max(self._highest, key)
        else:
            self._named.add(key)
        if message.method == "subscriptions/listen":
            self._listening.add(key)
        self._waiting[key] = exchange or Exchange("call")

    def given_up(self, request_id: RequestId) -> None:
        """Nobody waits for this answer any more. One that comes all the same is no longer news."""
        self._strike(coerce_request_id(request_id))

    def _strike(self, key: RequestId) -> Exchange | None:
        self._listening.discard(key)
        return self._waiting.pop(key, None)

    def _never_sent(self, key: RequestId) -> bool:
        """Whether no request had this id: not even one that was answered, or given up, before."""
        return key > self._highest if isinstance(key, int) else key not in self._named

    # -- what was received

    def received(self, item: SessionMessage | Exception, *, shared: bool) -> SessionMessage | Exception:
        """Write down what `item` says about the requests that wait.

        Args:
            item: What came over the transport.
            shared: All requests have their answers on this one stream.

        Returns:
            What the session should see: `item`, or the end of a request that `item` was a failed answer to.
        """
        self.doubt = None
        if isinstance(item, Unreadable):
            return self._unreadable(item) if shared else item
        if not isinstance(item, SessionMessage):
            return item
        message = item.message
        if isinstance(message, (JSONRPCResponse, JSONRPCError)):
            return self._answered(item, message, shared)
        self._note_running(message, shared)
        return item

    def _answered(
        self, item: SessionMessage, message: JSONRPCResponse | JSONRPCError, shared: bool
    ) -> SessionMessage | Exception:
        key = None if message.id is None else coerce_request_id(message.id)
        if shared and (key is None or self._never_sent(key)):
            # JSON-RPC 2.0, 5: the id is null if the server could not make it out in the request.
            return self._anonymous(item)
        exchange = self._strike(key) if key is not None else None
        if exchange is not None and not isinstance(item, Made):
            exchange.answered = True
            if not self.discovery.shaken.is_set():
                self.discovery.heard(message)
            if isinstance(message, JSONRPCError):
                exchange.code, exchange.message = message.error.code, self._redact(message.error.message)
                exchange.from_wire = True
        return item

    def _anonymous(self, item: SessionMessage | Exception) -> SessionMessage | Exception:
        """An answer to no request that there is or was. If only one request waits, it was meant for that."""
        waiting = [key for key in self._waiting if key not in self._listening]
        alone = waiting[0] if len(waiting) == 1 else None
        if not isinstance(alone, int) or alone <= self._quiet_since:
            return item
        return self._unreadable(Unreadable("the answer does not name the request", answers=alone))

    def _unreadable(self, error: Unreadable) -> SessionMessage | Exception:
        """A broken answer is its caller's, if it can be made out whose it was."""
        if error.anonymous:
            return self._anonymous(error)
        key = None if error.answers is None or error.asks else coerce_request_id(error.answers)
        exchange = self._strike(key) if key is not None else None
        if key is None or exchange is None:
            return error
        exchange.exception = error
        return made(key, CONNECTION_CLOSED, str(error))

    def _note_running(self, message: JSONRPCRequest | JSONRPCNotification, shared: bool) -> None:
        params = message.params or {}
        if message.method == "notifications/progress":
            token = params.get("progressToken")
            if isinstance(token, (int, str)) and not isinstance(token, bool):
                exchange = self._waiting.get(coerce_request_id(token))
                if exchange is not None:
                    exchange.progressed = True
        elif shared and (isinstance(message, JSONRPCRequest) or message.method in RUNNING):
            # One of the requests that wait is being worked on. Which one is not said, so it may be any of them.
            for exchange in self._waiting.values():
                exchange.progressed = True


Item = SessionMessage | Exception


class Inbox:
    """Where a transport of ours puts what it has received. Keeps the context of whoever puts it: the SDK runs
    what a message causes (a progress callback, a request from the server) in the context of the call it came for."""

    def __init__(self) -> None:
        self._send, self._receive = anyio.create_memory_object_stream[tuple[Context, Item]](0)
        self.last_context: Context | None = None

    async def put(self, item: Item) -> None:
        """Hand `item` to the session, when it is ready for it. Nothing happens if it has ended."""
        try:
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
    interrupt its goodbye to the server.
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
            item = await self._inner.__anext__()
        except (StopAsyncIteration, anyio.ClosedResourceError, anyio.BrokenResourceError):
            self._watch.end()
            raise
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
                self._watch.given_up(request_id)
            with anyio.move_on_after(CANCEL_PATIENCE):
                await self._inner.send(item)
        else:
            await self._inner.send(item)

    async def _send_request(self, item: Outgoing, message: JSONRPCRequest) -> None:
        exchange = EXCHANGE.get()
        if exchange is None:
            self._watch.sent(message, None)
            await self._inner.send(item)
            return
        exchange.start()
        self._watch.sent(message, exchange)
        # Whatever interrupts the hand-over, the other side may have taken it; only a closed stream has not.
        exchange.written = None if self._final else False
        try:
            await self._inner.send(item)
        except (anyio.ClosedResourceError, anyio.BrokenResourceError):
            exchange.written = False
            raise
        if self._final:
            exchange.written = True


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
