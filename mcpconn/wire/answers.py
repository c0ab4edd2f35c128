"""The event stream that carries the answer to one request, on as many HTTP responses as needed."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing

import anyio
import httpx2
from mcp.shared.message import SessionMessage
from mcp_types import JSONRPCError, JSONRPCResponse, RequestId

from mcpconn.core.attempt import CUT_OFF, Attempt
from mcpconn.wire.events import Event, EventReader
from mcpconn.wire.evidence_client import DRAIN, Refused, body, close
from mcpconn.wire.messages import Limits, Unreadable, parse, same_id
from mcpconn.wire.waiting import Item

RESUME_DELAY = 1.0
"""Seconds before a stream is resumed, if the server specifies no time. The SDK's value."""
RESUME_FLOOR = 0.1
"""The minimum of that: `retry: 0` from ten failing servers caused 40 requests a second."""
RESUME_ATTEMPTS = 2
"""Consecutive attempts that may fail. The SDK's value."""


class StreamCut(httpx2.ReadError):
    """The event stream ended before the answer, and cannot be resumed."""

    def __init__(self, why: str = "") -> None:
        super().__init__(f"the event stream ended before the answer{why}")


class AnswerStream:
    """Reads the answer to one request, and delivers the messages before it."""

    def __init__(
        self,
        request_id: RequestId,
        attempt: Attempt,
        limits: Limits,
        *,
        deliver: Callable[[Item], Awaitable[None]],
        resume: Callable[[bytes], Awaitable[httpx2.Response]],
        drop: Callable[[str], None],
        on_event_id: Callable[[str], Awaitable[None]] | None = None,
        silence: float | None = None,
    ) -> None:
        """
        Args:
            request_id: Of the request.
            attempt: The record of the attempt.
            limits: Of one message.
            deliver: Takes messages for the session.
            resume: Reopens the stream after the event with this id. Raises what `EvidenceClient.note` raises.
            drop: Called with messages that are not delivered.
            on_event_id: Called with each event id.
            silence: Seconds without a byte after which the stream counts as cut; None: never.
        """
        self._silence = silence
        self._id = request_id
        self._attempt = attempt
        self._limits = limits
        self._deliver = deliver
        self._resume = resume
        self._drop = drop
        self._on_event_id = on_event_id
        self._last_id: bytes | None = None
        self._delay = RESUME_DELAY

    async def read(self, response: httpx2.Response) -> None:
        """Return when the answer has been delivered.

        Raises:
            StreamCut: it did not come.
            Unreadable: what came in its place is no message, or too large.
        """
        while not await self._read_one(response):
            # Resumed only if the server sent an event id: without one it is unknown what was missed (`StreamCut`).
            response = await self._reopened()

    async def resume_from(self, event_id: str) -> None:
        """Like `read`, for a stream that was cut in an earlier session, after the event with this id."""
        self._last_id, self._delay = event_id.encode(), 0.0
        await self.read(await self._reopened())

    async def _read_one(self, response: httpx2.Response) -> bool:
        """Whether the answer was on this response."""
        # A new parser for each response, so that a partial event of the last response is not combined with this one.
        reader = EventReader(self._limits.size)
        answered = False
        try:
            with anyio.CancelScope() as scope:
                async with aclosing(body(response)) as chunks:
                    while (chunk := await self._next(chunks)) is not None:
                        for event in reader.feed(chunk):
                            # Only the first answer counts. Anything after it on the same stream is read and dropped.
                            if not answered and await self._take(event):
                                # The response is read to its end, so that its socket can be reused.
                                answered = True
                                scope.deadline = anyio.current_time() + DRAIN
        except Unreadable:
            if not answered:
                raise
        except httpx2.DecodingError as error:
            # This is not a cut: the data is unreadable, and would be sent again on a resumed stream.
            if not answered:
                raise Unreadable(str(error)) from None
        except httpx2.HTTPError:
            # The stream was cut. Whether that matters depends on what came before.
            pass
        finally:
            await close(response)
        return answered

    async def _next(self, chunks: AsyncGenerator[bytes, None]) -> bytes | None:
        """The next bytes; None at the end of the response."""
        if self._silence is None:
            return await anext(chunks, None)
        try:
            with anyio.fail_after(self._silence):
                return await anext(chunks, None)
        except TimeoutError:
            raise httpx2.ReadTimeout(f"silent for {self._silence:g} s") from None

    async def _take(self, event: Event) -> bool:
        """Whether `event` is the answer."""
        if event.retry is not None:
            # `retry:` is in milliseconds (HTML, server-sent events, 9.2.6).
            self._delay = max(event.retry / 1000, RESUME_FLOOR)
        if event.id is not None:
            # The server stores the events of this request, so it has started to process it.
            self._last_id, self._attempt.progressed = event.id, True
            if self._on_event_id is not None:
                await self._on_event_id(event.id.decode("utf-8", "replace"))
        if event.type != "message" or not event.data:
            return False
        try:
            message = await parse(event.data, self._limits)
        except Unreadable as error:
            # An unreadable message that is not a request of the server may be the answer: then the call fails with it.
            if not error.asks:
                raise
            self._drop(str(error))
            self._attempt.progressed = True
            return False
        if not isinstance(message, (JSONRPCResponse, JSONRPCError)):
            self._attempt.progressed = True
            await self._deliver(SessionMessage(message))
            return False
        # This stream belongs to one request, so an error without an id concerns that request.
        if message.id is None:
            raise Unreadable("the server answered with an error that names no request")
        if not same_id(message.id, self._id):
            self._drop("an answer to another request came on this request's event stream")
            return False
        message.id = self._id
        await self._deliver(SessionMessage(message))
        return True

    async def _reopened(self) -> httpx2.Response:
        if self._last_id is None:
            raise StreamCut
        for resumption in range(RESUME_ATTEMPTS):
            await anyio.sleep(self._delay)
            try:
                return await self._resume(self._last_id)
            except Refused as refused:
                if resumption + 1 == RESUME_ATTEMPTS or not (
                    refused.status >= 500 or refused.status in CUT_OFF | {409, 429}
                ):
                    raise StreamCut(f", and cannot be resumed (HTTP {refused.status})") from None
            except httpx2.HTTPError as error:
                if resumption + 1 == RESUME_ATTEMPTS:
                    raise StreamCut(f", and cannot be resumed ({type(error).__name__})") from None
            # The second attempt waits at least as long as the SDK would.
            self._delay = max(self._delay, RESUME_DELAY)
        raise AssertionError("unreachable")
