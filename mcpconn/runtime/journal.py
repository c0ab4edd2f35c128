"""What happened to a connection: its last transitions, its counts, and those who want to be told."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from mcpconn.core.failures import Failure
from mcpconn.core.outcome import Outcome
from mcpconn.core.states import Event, State
from mcpconn.runtime.listeners import Listeners, Report

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
    """A call about to be retried."""

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
    outcome: Outcome
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

    def __init__(self, report: Report = lambda *_: None) -> None:
        """
        Args:
            report: Called with what host code raised that must not end the connection.
        """
        self.report = report
        self.changes: deque[Change] = deque(maxlen=KEPT)
        self.counts: Counter[str] = Counter()
        self._listeners: Listeners[Notice] = Listeners()
        self._wanting: list[Callable[[], bool]] = []

    def subscribe(
        self, listener: Callable[[Notice], None], *, wants_answered: Callable[[], bool] = lambda: True
    ) -> Callable[[], None]:
        """Call `listener` with every notice, at once, in the loop's thread.

        Args:
            listener: The function. What it raises is reported and changes nothing.
            wants_answered: Whether it would now do anything with a call that was simply answered. Those are the
                many; while no listener wants them they are counted, and no notice is made of them.

        Returns:
            An unsubscribe function.
        """
        end = self._listeners.subscribe(listener)
        self._wanting.append(wants_answered)

        def unsubscribe() -> None:
            end()
            if wants_answered in self._wanting:
                self._wanting.remove(wants_answered)

        return unsubscribe

    def answered(self) -> bool:
        """Count a call that was answered. False if a listener wants to hear of it: then it must be added instead."""
        for wants in self._wanting:
            if wants():
                return False
        # Counted although no notice is made: `status()` shows it.
        self.counts["calls"] += 1
        self.counts["outcome.answered"] += 1
        return True

    def add(self, notice: Notice) -> None:
        """Keep a notice and pass it on."""
        if isinstance(notice, Finished):
            self.counts["calls"] += 1
            self.counts[f"outcome.{notice.outcome.value}"] += 1
        elif isinstance(notice, Change):
            # A deque with a limit: a connection that flaps for days keeps its last transitions only.
            self.changes.append(notice)
            self.counts[f"event.{notice.event}"] += 1
        else:
            self.counts["replayed"] += 1
        # Last: a listener may close the connection, and then finds this notice counted.
        self._listeners.tell(notice, self.report)
