"""The record of a connection: its last transitions, its counts, and its listeners."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from mcpconn.core.failures import Failure
from mcpconn.core.outcome import Outcome
from mcpconn.core.states import Event, State
from mcpconn.runtime.listeners import Listeners, Report

KEPT = 20
"""Number of transitions kept for `status()`."""
_COUNTED = {event: f"event.{event}" for event in Event}
"""Under what a transition is counted."""


@dataclass(frozen=True, slots=True)
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
    """The cause, if there was a failure."""
    at: float
    """The time, in seconds since 1970."""
    elapsed: float
    """Seconds spent in `source`; for `established` and `give_up`, seconds since dialling began."""
    attempt: int = 0
    """Consecutive failed dials."""
    wait: float | None = None
    """Seconds until the next dial, if one is scheduled."""

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
    """How often it was issued so far."""


class Finished(NamedTuple):
    """A call that has ended. A tuple, because one is created for every call, and a frozen dataclass costs five times as
    much."""

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
    """Keeps the data that `status()` shows, and passes everything to listeners."""

    def __init__(self, report: Report = lambda *_: None) -> None:
        """
        Args:
            report: Called with exceptions of the host's code that must not end the connection.
        """
        self.report = report
        self.changes: list[Change] = []
        """The last transitions, oldest first. A list, because an empty deque takes 600 bytes."""
        self.counts: Counter[str] = Counter()
        self._listeners: Listeners[Notice] = Listeners()
        self._wanting: list[Callable[[], bool]] = []

    def subscribe(
        self, listener: Callable[[Notice], None], *, wants_answered: Callable[[], bool] = lambda: True
    ) -> Callable[[], None]:
        """Call `listener` with every notice, immediately, in the loop's thread.

        Args:
            listener: The function. Its exceptions are reported and have no other effect.
            wants_answered: Whether it currently needs notices of successful calls. Most calls are successful; while no
                listener needs them, they are only counted, and no notice is created.

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
        """Count a successful call. False if a listener needs the notice: then add it instead."""
        for wants in self._wanting:
            if wants():
                return False
        # Counted although no notice is created, because `status()` shows the count.
        self.counts["calls"] += 1
        self.counts["outcome.answered"] += 1
        return True

    def add(self, notice: Notice) -> None:
        """Keep a notice and pass it on."""
        if isinstance(notice, Finished):
            self.counts["calls"] += 1
            self.counts[f"outcome.{notice.outcome.value}"] += 1
        elif isinstance(notice, Change):
            self.changes.append(notice)
            # A connection that flaps for days keeps only its last transitions.
            if len(self.changes) > KEPT:
                del self.changes[0]
            self.counts[_COUNTED[notice.event]] += 1
        else:
            self.counts["replayed"] += 1
        # Listeners come last: one may close the connection, and must then find this notice counted.
        self._listeners.tell(notice, self.report)
