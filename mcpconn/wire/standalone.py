"""The standalone event stream of a session: a GET for server messages that belong to no request.

It is kept open for as long as the session lasts; `core.stream` determines the waits before it is reopened. Its failures
never prove that the session is lost: a refusal is a suspicion, which leads to a probe.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing

import anyio
import httpx2
from mcp.shared.message import SessionMessage
from mcp_types import JSONRPCError, JSONRPCResponse

from mcpconn.core.attempt import CUT_OFF, Attempt
from mcpconn.wire.events import Event, EventReader
from mcpconn.wire.evidence_client import Refused, body, close
from mcpconn.wire.messages import Limits, Unreadable, parse
from mcpconn.wire.waiting import Item
from mcpconn.wire.watch import Watch

NOT_OFFERED = 405
"""The server has no such stream (specification 2025-11-25, transports, "Listening for Messages from the Server")."""
NOT_ABOUT_SESSIONS = CUT_OFF | {401, 403, 407, 409, 429}
"""Refusals that are no evidence about the session. 409: the server has not yet noticed that the last stream was cut."""


class StandaloneStream:
    """Keeps the stream open for as long as its session lasts."""

    def __init__(
        self,
        watch: Watch,
        limits: Limits,
        *,
        deliver: Callable[[Item], Awaitable[None]],
        open: Callable[[bytes | None, Attempt], Awaitable[httpx2.Response]],  # noqa: A002 - what it does
        silence: float | None = None,
    ) -> None:
        """
        Args:
            watch: Its `stream` is kept up to date. Receives refusals that may concern the session.
            limits: Of one message.
            deliver: Takes messages for the session.
            open: Asks for the stream, after the event of this id if there is one. Raises what `send_recorded` raises.
            silence: Seconds without a byte after which it counts as dead; None: never.
        """
        self._watch = watch
        self._limits = limits
        self._deliver = deliver
        self._open = open
        self._silence = silence
        self._last_id: bytes | None = None
        self._retry: float | None = None
        """Seconds of the last `retry:` field: the wait that the server asks for after the end of the stream."""
        self._asked: float | None = None
        """Seconds that the server asks to wait before the next attempt."""
        # The stream is open, so a later refusal is reported again.
        self._suspected = False
        """Whether a refusal has been reported since the stream was last open."""
        # Set before `run` starts, because the session's first listing waits for the stream.
        watch.stream.opening()

    async def run(self) -> None:
        """Returns only if the server offers no such stream, or the session is known to be lost."""
        # `status()` shows this, and the catalogue waits for it.
        record = self._watch.stream
        while not self._watch.lost:
            record.opening()
            reason = await self._hold()
            # 405: the server has no such stream (specification, transports). It is not asked again on this session.
            if reason is None:
                record.refuse(f"HTTP {NOT_OFFERED}")
                return
            # The waits grow while the stream does not stay open, and are reset after it did.
            wait = record.lost(anyio.current_time(), reason, asked=self._asked)
            await anyio.sleep(wait)

    async def _hold(self) -> str | None:
        """Open the stream and read it to its end. Returns why it ended; None if the server offers none."""
        attempt = Attempt("idle")
        # A Retry-After of an earlier refusal counts once; `retry:` of the stream stays.
        self._asked = self._retry
        try:
            with anyio.fail_after(self._silence):
                # With the last event id, so that the server can send again what was missed.
                response = await self._open(self._last_id, attempt)
            return await self._read(response)
        except Refused as refused:
            # The server may have refused only an unknown event id.
            self._last_id = None
            self._asked = attempt.retry_after or self._retry
            if refused.status == NOT_OFFERED:
                return None
            self._suspect(refused.status, attempt)
            return f"HTTP {refused.status}"
        except TimeoutError:
            return f"silent for {self._silence:g} s" if self._silence is not None else "cut (TimeoutError)"
        except Exception as error:  # of the HTTP client, or of the auth flow, whose text may hold secrets
            return f"cut ({type(error).__name__})"

    async def _read(self, response: httpx2.Response) -> str:
        try:
            kind = response.headers.get("content-type", "").lower()
            if not kind.startswith("text/event-stream"):
                return f"HTTP {response.status_code} without an event stream"
            self._asked = self._retry = None
            self._suspected = False
            self._watch.stream.open(anyio.current_time())
            reader = EventReader(self._limits.size, skip=True)
            async with aclosing(body(response)) as chunks:
                while True:
                    chunk = await self._next(chunks)
                    if chunk is None:
                        return "the server ended it"
                    for event in reader.feed(chunk):
                        await self._take(event)
        finally:
            await close(response)

    async def _next(self, chunks: AsyncGenerator[bytes, None]) -> bytes | None:
        """The next bytes; None at the end of the response."""
        if self._silence is None:
            # A scope would take 1.5 KiB for as long as the stream is open.
            return await anext(chunks, None)
        with anyio.fail_after(self._silence):
            return await anext(chunks, None)

    async def _take(self, event: Event) -> None:
        # An empty id resets it in the HTML standard; servers send empty ids by mistake.
        self._last_id = event.id or self._last_id
        if event.retry is not None:
            self._asked = self._retry = event.retry / 1000
        if event.error is not None:
            self._watch.drop(str(event.error))
            return
        if event.type != "message" or not event.data:
            return
        try:
            message = await parse(event.data, self._limits)
        except Unreadable as error:
            self._watch.drop(str(error))
            return
        if isinstance(message, (JSONRPCResponse, JSONRPCError)):
            # Specification, transports: no responses on this stream. A forged response would answer another request.
            self._watch.drop("an answer came on the standalone event stream")
            return
        await self._deliver(SessionMessage(message))

    def _suspect(self, status: int, attempt: Attempt) -> None:
        """Report a refusal that may be about the session: once until the stream is open again.

        A server without a stream should answer 405, but some answer 404 each time. On a session whose stream was never
        open, other statuses are not reported, because a session that is a second old is not forgotten.
        """
        news = status == 404 or (400 <= status < 500 and self._watch.stream.opened > 0)
        if self._suspected or status in NOT_ABOUT_SESSIONS or not news:
            return
        self._suspected = True
        # Never proof, because a different part of the server may serve the stream.
        attempt.session_sent = None
        if self._watch.stream.opened == 0 and attempt.code is None:
            # The words of a page for an unknown URL.
            attempt.message = None
        self._watch.idle_failure(attempt.evidence())
