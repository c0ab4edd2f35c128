"""What happened to a connection: its last transitions, its counts, and those who want to be told."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from mcpconn.core.failures import Failure
from mcpconn.core.states import Event, State

KEPT = 20
"""Transitions kept for `status()`."""


@dataclass(frozen=True)
class Change:
    """One transition of one connection."""

    server: str
    """Name of the connection."""
    epoch: int
    """Number of its current session, after the transition."""
    source: State
    event: Event
    target: State
    failure: Failure | None
    """Why, where there was a failure."""
    at: float
    """When, in seconds since 1970."""
    elapsed: float
    """Seconds spent in `source`; for `established` and `give_up`, seconds since the dialling began."""
    attempt: int = 0
    """Dials that have failed in a row."""
    wait: float | None = None
    """Seconds until the next dial or probe, where one is scheduled."""

    def __str__(self) -> str:
        why = f": {self.failure.summary}" if self.failure else ""
        return f"{self.server}: {self.source} --{self.event}--> {self.target}{why}"


@dataclass(frozen=True)
class Replay:
    """A call about to be made again."""

    server: str
    method: str
    epoch: int
    """The epoch it failed on."""
    failure: Failure
    attempt: int
    """Times it was issued so far."""


class Finished(NamedTuple):
    """A call that is over. A tuple: one is made for every call, and a frozen dataclass costs five times as much."""

    server: str
    method: str
    outcome: str
    """`answered`, `error` (the application's), `failed`, `unknown`, `timeout`, `cancelled`."""
    attempts: int
    elapsed: float
    """Seconds from the call to its end."""
    blocked: float
    """Seconds of it spent waiting for the connection."""
    epoch: int
    failure: Failure | None


Notice = Change | Replay | Finished


class Journal:
    """Keeps what `status()` shows, and passes everything on to listeners."""

    def __init__(self, report: Callable[[str, Exception], None] = lambda *_: None) -> None:
        """
        Args:
            report: Told what raised that must not end the connection: a `listener`, an `errand`.
        """
        self.report = report
        self.changes: deque[Change] = deque(maxlen=KEPT)
        self.counts: Counter[str] = Counter()
        self._listeners: list[tuple[Callable[[Notice], None], Callable[[], bool]]] = []

    def subscribe(
        self, listener: Callable[[Notice], None], *, bored: Callable[[], bool] = lambda: False
    ) -> Callable[[], None]:
        """Have `listener` called for every notice, at once, in the loop's thread. Returns its end.

        Args:
            listener: The function.
            bored: Whether it would do nothing, at present, with a call that was simply answered. Those are the
                many, and where everybody is bored they are counted and no notice is made of them.
        """
        entry = (listener, bored)
        self._listeners.append(entry)

        def unsubscribe() -> None:
            if entry in self._listeners:
                self._listeners.remove(entry)

        return unsubscribe

    def answered(self) -> bool:
        """A call was answered. Returns whether everybody is bored: otherwise it must be added."""
        for _, bored in self._listeners:
            if not bored():
                return False
        self.counts["calls"] += 1
        self.counts["outcome.answered"] += 1
        return True

    def add(self, notice: Notice) -> None:
        """Keep and pass on a notice."""
        if isinstance(notice, Finished):
            self.counts["calls"] += 1
            self.counts[f"outcome.{notice.outcome}"] += 1
        elif isinstance(notice, Change):
            self.changes.append(notice)
            self.counts[f"event.{notice.event}"] += 1
        else:
            self.counts["replayed"] += 1
        for listener, _ in tuple(self._listeners):
            try:
                listener(notice)
            except Exception as error:  # a listener is host code
                self.report("listener", error)
