"""The record of one attempt at a call: the wire fills it in, the runtime reads it.

It travels in a context variable. The SDK's transports run each outgoing message in its sender's context,
so the HTTP client far below finds the record of the call it serves. A server never sees any of it, and so
cannot forge it: evidence does not travel in messages.
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar

from mcpconn.core.failures import Era, Evidence, Phase

NOT_PROCESSED = frozenset({301, 307, 308})
"""Redirects that say "this URL is not the place": the request was not processed (RFC 9110, 15.4.2, 15.4.8, 15.4.9).
After 302 and 303 the outcome is unknown: that is how a server answers what it has done already (15.4.3, 15.4.4)."""


class Attempt:
    """What happened to one attempt. The fields are those of `Evidence`, about the attempt's latest request.

    One attempt can take several requests: a message is sent again after a redirect or by an auth flow, and one call
    can take several messages. The record is about one of them at a time (`start`, `start_request`), and `earlier`
    remembers what those before it may have done.
    """

    __slots__ = (
        "answered",
        "challenge",
        "code",
        "content_type",
        "earlier",
        "era",
        "exception",
        "extend",
        "from_wire",
        "has_result",
        "hint",
        "http_status",
        "message",
        "phase",
        "progressed",
        "retry_after",
        "session_sent",
        "started",
        "unsafe",
        "written",
    )

    def __init__(
        self, phase: Phase, era: Era | None = None, *, written: bool | None = None, unsafe: bool = False
    ) -> None:
        """
        Args:
            phase: What the attempt is for.
            era: The session's era, where it is known.
            written: False where every request passes a stream that says when it is written; None where
                nobody will say, as in process.
            unsafe: Running it twice may do harm. See the attribute.
        """
        self.phase: Phase = phase
        self.era: Era | None = era
        self.progressed = False
        """Something came for the call before its answer (progress, a log message, an event id, a question of the
        server's), or may have: the call was running."""
        self.extend: Callable[[], None] | None = None
        """Gives the call more time, if progress does."""
        self.unsafe = unsafe
        """A tool is called that neither its caller nor its annotations declare idempotent. Its request needs a socket
        on which no other response can be waiting: one that is fresh, or was in use a moment ago."""
        self.has_result = False
        """The tool's result has been read: an error raised after that is no reason to call again."""
        self.earlier = 0
        """Requests before the latest one that were not refused. What an earlier one did is done."""
        self.started = False
        self._clear(written)

    def _clear(self, written: bool | None) -> None:
        self.exception: BaseException | None = None
        self.code: int | None = None
        self.message: str | None = None
        self.http_status: int | None = None
        self.content_type: str | None = None
        self.retry_after: float | None = None
        self.challenge: str | None = None
        self.hint: str | None = None
        self.session_sent: bool | None = None
        self.from_wire: bool | None = None
        self.written = written
        self.answered = False
        """The server answered the latest request, with a result or an error."""

    def start(self) -> None:
        """A message is about to be sent: what is noted from here on is about that one."""
        self._leave_behind()
        self._clear(written=False)

    def start_request(self, *, session_sent: bool, written: bool | None) -> None:
        """An HTTP request that carries the message is about to be made: what is noted from here on is about it.

        Args:
            session_sent: Whether it carries a session id.
            written: False if the transport will say when the first byte leaves, None if it will not.
        """
        self._leave_behind()
        self._clear(written=written)
        self.session_sent = session_sent

    def _leave_behind(self) -> None:
        """Count the request that the record is about, unless it is certain that it ran nothing."""
        status = self.http_status or 0
        # 408 is no refusal: the server may have begun. Nor is 5xx, whatever the body says.
        refused = (400 <= status < 500 and status != 408) or status in NOT_PROCESSED
        if self.code is not None and status < 400:
            refused = True
        if self.started and self.written is not False and not refused:
            self.earlier += 1
        self.started = True

    @property
    def failed(self) -> bool:
        """Whether the wire itself saw the latest request fail."""
        status = self.http_status or 0
        return self.exception is not None or status >= 300 or status == 202

    def evidence(self) -> Evidence:
        """What is known now."""
        return Evidence(
            exception=self.exception,
            code=self.code,
            message=self.message,
            http_status=self.http_status,
            content_type=self.content_type,
            retry_after=self.retry_after,
            challenge=self.challenge,
            hint=self.hint,
            session_sent=self.session_sent,
            from_wire=self.from_wire,
            written=self.written,
            era=self.era,
            phase=self.phase,
        )


ATTEMPT: ContextVar[Attempt | None] = ContextVar("mcpconn_attempt", default=None)
"""The attempt that the present code works for."""
