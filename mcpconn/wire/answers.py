"""The event stream that one request is answered on, over as many HTTP responses as it takes."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing

import anyio
import httpx2
from mcp.shared.message import SessionMessage
from mcp_types import JSONRPCError, JSONRPCResponse, RequestId

from mcpconn.core.attempt import Attempt
from mcpconn.wire.events import Event, EventReader
from mcpconn.wire.evidence_client import DRAIN, Refused, close
from mcpconn.wire.messages import Limits, Unreadable, parse, same_id
from mcpconn.wire.waiting import Item

RESUME_DELAY = 1.0
"""Seconds before a stream is resumed, where the server names no time. The SDK's figure."""
RESUME_FLOOR = 0.1
"""The least of that: `retry: 0` from ten servers in trouble made 40 requests a second."""
RESUME_ATTEMPTS = 2
"""Attempts in a row that may fail. The SDK's figure."""


class StreamCut(httpx2.ReadError):
    """The event stream ended before the answer, and cannot be resumed."""

    def __init__(self, why: str = "") -> None:
        super().__init__(f"the event stream ended before the answer{why}")


class AnswerStream:
    """Reads the answer to one request, and delivers what comes before it."""

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
            resume: Opens the stream anew, after the event of this id. Raises what `EvidenceClient.note` raises.
            drop: Told of messages that are not delivered.
            on_event_id: Told of each event id.
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
        """Return once the answer is delivered.

        Raises:
            StreamCut: it did not come.
            Unreadable: what came in its place is no message, or too large.
        """
        while not await self._read_one(response):
            # Only if the server gave an event id: without one it is unknown what was missed (`StreamCut`).
            response = await self._reopened()

    async def resume_from(self, event_id: str) -> None:
        """As `read`, of a stream that broke off in an earlier session, after the event of this id."""
        self._last_id, self._delay = event_id.encode(), 0.0
        await self.read(await self._reopened())

    async def _read_one(self, response: httpx2.Response) -> bool:
        """Whether the answer was on this response."""
        # A new one for each response: half an event of the last one must not be put together with this one.
        reader = EventReader(self._limits.size)
        answered = False
        try:
            with anyio.CancelScope() as scope:
                async with aclosing(response.aiter_bytes()) as chunks:
                    while (chunk := await self._next(chunks)) is not None:
                        for event in reader.feed(chunk):
                            # The first answer counts. What follows it on the same stream is read and dropped.
                            if not answered and await self._take(event):
                                # Read to its end, the response leaves a socket that can be used again.
                                answered = True
                                scope.deadline = anyio.current_time() + DRAIN
        except Unreadable:
            if not answered:
                raise
        except httpx2.DecodingError as error:
            # Not a cut: what came cannot be read, and would come again on a resumed stream.
            if not answered:
                raise Unreadable(str(error)) from None
        except httpx2.HTTPError:
            # Cut off. Whether that matters is seen from what came before.
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
            # The server keeps what it says for this request, so it has begun to work on it.
            self._last_id, self._attempt.progressed = event.id, True
            if self._on_event_id is not None:
                await self._on_event_id(event.id.decode("utf-8", "replace"))
        if event.type != "message" or not event.data:
            return False
        try:
            message = await parse(event.data, self._limits)
        except Unreadable as error:
            # A message that cannot be read and is not a request of the server's may be the answer: then the call fails
            # with it.
            if not error.asks:
                raise
            self._drop(str(error))
            self._attempt.progressed = True
            return False
        if not isinstance(message, (JSONRPCResponse, JSONRPCError)):
            self._attempt.progressed = True
            await self._deliver(SessionMessage(message))
            return False
        # The one request on this stream is this one, so an error without an id is about it.
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
                    refused.status >= 500 or refused.status in (408, 409, 429)
                ):
                    raise StreamCut(f", and cannot be resumed (HTTP {refused.status})") from None
            except httpx2.HTTPError as error:
                if resumption + 1 == RESUME_ATTEMPTS:
                    raise StreamCut(f", and cannot be resumed ({type(error).__name__})") from None
            # A second attempt waits at least as long as the SDK would.
            self._delay = max(self._delay, RESUME_DELAY)
        raise AssertionError("unreachable")
