"""The record of one attempt at a call: the wire fills it in, the runtime reads it.

It travels in a context variable. The SDK's transports run each outgoing message in its sender's context, so the HTTP
client finds the record of the call that it serves. Evidence never travels in messages, so a server cannot see or forge
it.
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar

from mcpconn.core.failures import Era, Evidence, Phase

NOT_PROCESSED = frozenset({301, 307, 308})
"""Redirects that mean that the request was not processed at this URL (RFC 9110, 15.4.2, 15.4.8, 15.4.9).
After 302 and 303 the outcome is unknown, because a server may answer so after it has processed the request (15.4.3,
15.4.4)."""
CUT_OFF = frozenset({408, 499})
"""Statuses of class 4xx that are no refusals: the server may have begun. 499 is what proxies answer if they take the
client for gone (nginx), and what gateways make of a CANCELLED in gRPC (google/rpc/code.proto)."""


class Attempt:
    """The record of one attempt. The fields are those of `Evidence`, for the attempt's latest request.

    One attempt can take several requests: a message is sent again after a redirect or by an auth flow, and one call can
    take several messages. The record describes one of them at a time (`start`, `start_request`), and `earlier` counts
    previous ones that may have run something.
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
            phase: The purpose of the attempt.
            era: The session's era, if known.
            written: False if every request passes through a stream that reports when it is written; None if nothing
                reports it, as for a server in this process.
            unsafe: Running it twice may be harmful. See the attribute.
        """
        self.phase: Phase = phase
        self.era: Era | None = era
        self.progressed = False
        """Something arrived for the call before its answer (progress, a log message, an event id, a question), or may
        have arrived: the call was running."""
        self.extend: Callable[[], None] | None = None
        """Extends the call's deadline, if progress extends it."""
        self.unsafe = unsafe
        """The attempt calls a tool that neither its caller nor its annotations declare idempotent. Its request needs a
        socket on which no other response can be pending: a fresh one, or one that was in use a moment ago."""
        self.has_result = False
        """The tool's result has been read: an error that is raised afterwards is no reason to retry."""
        self.earlier = 0
        """The number of requests before the latest one that were not refused, and so may have run something."""
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
        """Called before a message is sent: later notes concern this message."""
        self._leave_behind()
        self._clear(written=False)

    def start_request(self, *, session_sent: bool, written: bool | None) -> None:
        """Called before an HTTP request for the message is made: later notes concern this request.

        Args:
            session_sent: Whether it carries a session id.
            written: False if the transport reports when the first byte is sent, None if it does not.
        """
        self._leave_behind()
        self._clear(written=written)
        self.session_sent = session_sent

    def _leave_behind(self) -> None:
        """Count the recorded request, unless it certainly ran nothing."""
        status = self.http_status or 0
        # 5xx is not a refusal either, regardless of the body.
        refused = (400 <= status < 500 and status not in CUT_OFF) or status in NOT_PROCESSED
        if self.code is not None and status < 400:
            refused = True
        if self.started and self.written is not False and not refused:
            self.earlier += 1
        self.started = True

    @property
    def failed(self) -> bool:
        """Whether the wire layer itself observed that the latest request failed."""
        status = self.http_status or 0
        return self.exception is not None or status >= 300 or status == 202

    def evidence(self) -> Evidence:
        """The evidence so far."""
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
"""The attempt that the current code runs for."""
