"""How a call ended: one vocabulary for exceptions, handlers, notices, metrics and the gateway."""

from __future__ import annotations

from enum import Enum


class Outcome(str, Enum):
    """How a call ended, which includes whether the server may have run it. Equal to its value, a string."""

    ANSWERED = "answered"
    """The call has a result."""
    ERROR = "error"
    """The server's application answered with an error. The error does not say what the server had done by then."""
    RAN = "ran"
    """The call ran: there was an answer, which reports an error or is unusable."""
    NOT_RUN = "not_run"
    """The call certainly did not run: nothing was sent, or the server refused the request before running it."""
    UNKNOWN = "unknown"
    """The call may have run."""
    CANCELLED = "cancelled"
    """The caller was cancelled."""

    def __str__(self) -> str:
        return self.value
