"""One call under way: what has become of it so far."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from mcpconn.core.attempt import Attempt
from mcpconn.core.failures import Failure, FailureKind
from mcpconn.runtime.session import Session

T = TypeVar("T")
Issue = Callable[[Any, Attempt], Awaitable[T]]
"""Makes the call on a client, noting in the attempt what only it can see (progress)."""
SPOKEN = frozenset({FailureKind.APPLICATION, FailureKind.PROTOCOL, FailureKind.CONFIG, FailureKind.SESSION_EXPIRED})
"""Kinds of failure that are an answer, of whatever sort."""
Safe = Callable[[], Awaitable[bool]]
"""Whether running the call twice does no harm. Asked only when that matters."""


class Call:
    """One call under way."""

    __slots__ = (
        "attempt",
        "attempts",
        "background",
        "began",
        "blocked",
        "deadline",
        "failure",
        "method",
        "replays",
        "resent",
        "safe_on",
        "session",
        "uncertain",
    )

    def __init__(self, method: str, began: float, deadline: float, *, background: bool = False) -> None:
        self.method = method
        self.background = background
        self.began = began
        self.deadline = deadline
        self.attempts = 0
        self.blocked = 0.0
        """Seconds spent waiting for the connection."""
        self.replays = 0
        """Times it was retried after a refusal or an unknown outcome."""
        self.resent = 0
        """Times it was retried because it had never left."""
        self.safe_on: int | None = None
        """The epoch on which the next attempt was found harmless, if the last one may have run."""
        self.attempt: Attempt | None = None
        """The record of the attempt in flight; None between attempts."""
        self.session: Session | None = None
        self.failure: Failure | None = None
        """Of the last attempt."""
        self.uncertain: Failure | None = None
        """Of the last attempt that may have run. What a later one says does not undo it."""


def seconds_of(timeout: float | None) -> float:
    """A time limit as a number: None is no limit."""
    return math.inf if timeout is None else timeout
