"""How a call ended: one vocabulary for exceptions, handlers, notices, metrics and the gateway."""

from __future__ import annotations

from enum import Enum


class Outcome(str, Enum):
    """How a call ended, and with it whether the server can have run it. Equal to its value, a string."""

    ANSWERED = "answered"
    """There is a result."""
    ERROR = "error"
    """The server's application answered with an error. What it had done by then, the error does not say."""
    RAN = "ran"
    """It ran: there was an answer, which reports an error or cannot be used."""
    NOT_RUN = "not_run"
    """It certainly did not run: nothing was sent, or the server refused the request unread."""
    UNKNOWN = "unknown"
    """It may have run."""
    CANCELLED = "cancelled"
    """The caller left."""

    def __str__(self) -> str:
        return self.value
