"""An event stream that is reopened for as long as its session lasts: its state, and the waits.

In the legacy era the stream is a separate GET, in the modern era it is `subscriptions/listen`. Both can end silently:
by a proxy's timeout, a cut, or a refusal. The reader of a stream keeps a `StreamRecord` and follows these rules:

    ended, cut or refused   reopen after a wait: 1 s, doubling to 60 s
    it was open for 30 s    the next wait is 1 s again
    405                     final: the server offers no such stream
    409                     the server still holds the last one: reopen, as after any other refusal

The end of a stream, or its refusal, never proves that a session is lost.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum

from typing_extensions import TypedDict

REOPEN_FLOOR = 1.0
"""Minimum seconds before a stream is reopened, even if the server asks for less: `retry: 0` caused 200 requests a
second."""
REOPEN_CEILING = 60.0
"""The longest wait in seconds, unless the server asks for more."""
STEADY = 30.0
"""Seconds a stream must have been open to count as working, so that the next wait is the floor again."""
ASKED_CEILING = 300.0
"""Seconds of Retry-After or `retry:` that are honoured. Server messages are lost while the stream is closed."""
SILENCE = 300.0
"""Seconds without a byte after which a stream counts as dead, if keepalive is on. Proxies and NAT gateways silently
drop idle connections after 350 s (AWS) or less."""
JITTER = 0.2
"""Waits are lengthened by up to this share: all clients of a server that restarts lose their streams at once."""


class StreamState(Enum):
    """The state of an event stream."""

    NONE = "none"
    """The stream was not requested: the transport has no such stream, or it is not needed."""
    OPENING = "opening"
    OPEN = "open"
    WAITING = "waiting"
    """It ended or was refused, and will be reopened."""
    REFUSED = "refused"
    """The server offers none. Final for this session."""


class StreamStatus(TypedDict):
    """An event stream in `status()`."""

    state: str
    opened: int
    """How often it has been opened."""
    reason: str | None
    """Why it last ended or was refused."""
    retry_in: float | None
    """Seconds until it is reopened, while it is waiting."""


class StreamRecord:
    """The record of one session's event stream."""

    __slots__ = ("_chance", "_listeners", "_next", "due", "opened", "opened_at", "reason", "state")

    def __init__(self, chance: Callable[[], float] = lambda: 0.0) -> None:
        """
        Args:
            chance: A random number from 0 to 1, for the jitter.
        """
        self.state = StreamState.NONE
        self.opened = 0
        """How often it has been opened."""
        self.opened_at = 0.0
        self.reason: str | None = None
        """Why it last ended or was refused. Contains no secrets."""
        self.due = 0.0
        """When it will be reopened, while it waits."""
        self._next = REOPEN_FLOOR
        self._chance = chance
        self._listeners: list[Callable[[], None]] = []

    @property
    def known(self) -> bool:
        """Whether it is known if the server offers a stream; False while the first one is being opened."""
        return self.state is not StreamState.OPENING or self.opened > 0 or self.reason is not None

    def subscribe(self, listener: Callable[[], None]) -> Callable[[], None]:
        """Call `listener` after every change of state. Returns an unsubscribe function."""
        self._listeners.append(listener)

        def unsubscribe() -> None:
            if listener in self._listeners:
                self._listeners.remove(listener)

        return unsubscribe

    def opening(self) -> None:
        """A request for it is about to be sent."""
        self._enter(StreamState.OPENING)

    def open(self, now: float) -> None:
        """The server has opened it."""
        self.opened += 1
        self.opened_at = now
        self._enter(StreamState.OPEN)

    def lost(self, now: float, reason: str, *, asked: float | None = None) -> float:
        """It ended, was cut or was refused.

        Args:
            now: The current time, on the clock used for `open`.
            reason: Why, for people.
            asked: Seconds that the server asks the client to wait (Retry-After, or the stream's `retry:`).

        Returns:
            Seconds to wait before it is reopened.
        """
        if self.state is StreamState.OPEN and now - self.opened_at >= STEADY:
            self._next = REOPEN_FLOOR
        wait = max(self._next, min(asked or 0.0, ASKED_CEILING)) * (1 + JITTER * self._chance())
        self._next = min(self._next * 2, REOPEN_CEILING)
        self.reason = reason
        self.due = now + wait
        self._enter(StreamState.WAITING)
        return wait

    def refuse(self, reason: str) -> None:
        """The server offers no such stream; it is not requested again on this session."""
        self.reason = reason
        self._enter(StreamState.REFUSED)

    def status(self, now: Callable[[], float]) -> StreamStatus | None:
        """For `status()`: plain data. None if there is no such stream.

        Args:
            now: The current time, on the clock used for `open` and `lost`.
        """
        if self.state is StreamState.NONE:
            return None
        return {
            "state": self.state.value,
            "opened": self.opened,
            "reason": self.reason,
            "retry_in": max(0.0, self.due - now()) if self.state is StreamState.WAITING else None,
        }

    def _enter(self, state: StreamState) -> None:
        self.state = state
        for listener in tuple(self._listeners):
            listener()
