"""The state of one call in progress."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from mcpconn.core.attempt import Attempt
from mcpconn.core.failures import Failure, FailureKind
from mcpconn.runtime.session import Session

T = TypeVar("T")
Issue = Callable[[Any, Attempt], Awaitable[T]]
"""Makes the call on a client, and records in the attempt what only it can observe (progress)."""
SPOKEN = frozenset({FailureKind.APPLICATION, FailureKind.PROTOCOL, FailureKind.CONFIG, FailureKind.SESSION_EXPIRED})
"""Kinds of failure that are answers of some kind."""
Safe = Callable[[], Awaitable[bool]]
"""Whether running the call twice is harmless. Evaluated only when needed."""


class Call:
    """One call in progress."""

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
        """Times it was retried because it had never been sent."""
        self.safe_on: int | None = None
        """The epoch for which a repeat was found safe, if the last attempt may have run."""
        self.attempt: Attempt | None = None
        """The record of the attempt in flight; None between attempts."""
        self.session: Session | None = None
        self.failure: Failure | None = None
        """Of the last attempt."""
        self.uncertain: Failure | None = None
        """The failure of the last attempt that may have run. A later attempt does not change it."""


def seconds_of(timeout: float | None) -> float:
    """A time limit as a number; None means no limit."""
    return math.inf if timeout is None else timeout
