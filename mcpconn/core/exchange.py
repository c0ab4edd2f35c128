"""The record of one attempt at a call: the wire fills it in, the runtime reads it.

It travels in a context variable. The SDK's transports run each outgoing message in its sender's context,
so the HTTP client far below finds the record of the call it serves. A server never sees any of it, and so
cannot forge it: evidence does not travel in messages.
"""

from __future__ import annotations

from contextvars import ContextVar

from mcpconn.core.failures import Era, Evidence, Phase


class Exchange:
    """What happened to one attempt. The fields are those of `Evidence`, about the attempt's latest request."""

    __slots__ = (
        "answered",
        "challenge",
        "code",
        "content_type",
        "earlier",
        "era",
        "exception",
        "from_wire",
        "http_status",
        "message",
        "phase",
        "progressed",
        "retry_after",
        "session_sent",
        "started",
        "written",
    )

    def __init__(self, phase: Phase, era: Era | None = None, *, written: bool | None = None) -> None:
        """
        Args:
            phase: What the attempt is for.
            era: The session's era, where it is known.
            written: False where every request passes a stream that says when it is written; None where
                nobody will say, as in process.
        """
        self.phase: Phase = phase
        self.era: Era | None = era
        self.progressed = False
        """Something came for the call before its answer (progress, a log message, an event id, a question of the
        server's), or may have: the call was running."""
        self.earlier = 0
        """Requests before the latest one that were not refused. One call can take several (input rounds, a
        listing to check its answer against), and what an earlier one did is done."""
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
        self.session_sent: bool | None = None
        self.from_wire: bool | None = None
        self.written = written
        self.answered = False
        """The server answered the latest request, with a result or an error."""

    def start(self) -> None:
        """A request is about to be sent: what is noted from here on is about that one."""
        refused = self.code is not None or (self.http_status or 0) >= 400 or self.written is False
        if self.started and not refused:
            self.earlier += 1
        self.started = True
        self._clear(written=False)

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
            session_sent=self.session_sent,
            from_wire=self.from_wire,
            written=self.written,
            era=self.era,
            phase=self.phase,
        )


EXCHANGE: ContextVar[Exchange | None] = ContextVar("mcpconn_exchange", default=None)
"""The attempt that the present code works for."""
