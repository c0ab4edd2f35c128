"""The deadlines of a manager's calls, kept by one timer.

A timer for each call is a good part of what supervising a call costs: setting it up and taking it down again
takes longer than the gate, the record and the journal together, and hardly one ever fires. So calls note their
deadline here, and one task sleeps until the earliest of those it knows. It is there only while there are calls,
and wakes at most once in the time that a call may take.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Coroutine
from typing import Any

import anyio

Spawn = Callable[[Callable[[], Coroutine[Any, Any, None]]], bool]
"""Runs a function in a task. False where it cannot."""

ASK_AGAIN = 1000
"""Calls after which a task that was asked for and never came, because its connection ended, is asked for again."""


class Deadlines:
    """Ends the scopes that are open in it at their deadlines."""

    __slots__ = ("_make", "_now", "_open", "_sleeper", "_unwatched", "_wakes_at")

    def __init__(self, now: Callable[[], float]) -> None:
        """
        Args:
            now: The clock of the event loop.
        """
        self._now = now
        self._make: type[anyio.CancelScope] | None = None
        self._open: dict[anyio.CancelScope, float] = {}
        self._sleeper: anyio.CancelScope | None = None
        """What the task sleeps in; None where there is no task."""
        self._wakes_at = math.inf
        """When the task wakes."""
        self._unwatched = 0
        """Scopes opened since a task was asked for."""

    def open(self, deadline: float, spawn: Spawn) -> anyio.CancelScope:
        """A scope that is cancelled at `deadline`. To be given to `close`, however it ends.

        Args:
            deadline: On the clock of the event loop.
            spawn: Runs the task that watches, where there is none. It may end at any time: what is open then
                watches over itself, and the next scope brings a task of its own.
        """
        if self._make is None:
            # `anyio.CancelScope` finds out, for each scope, what event loop it is for. This one stays the same.
            self._make = type(anyio.CancelScope())
        scope = self._make()
        if deadline < math.inf:
            self._open[scope] = deadline
            if self._sleeper is None:
                scope.deadline = deadline
                if self._unwatched % ASK_AGAIN == 0:
                    spawn(self._watch)
                self._unwatched += 1
            elif deadline < self._wakes_at:
                self._wakes_at = self._sleeper.deadline = deadline
        return scope

    def close(self, scope: anyio.CancelScope) -> None:
        """The block of `scope` was left."""
        self._open.pop(scope, None)

    async def _watch(self) -> None:
        if self._sleeper is not None:
            return
        self._unwatched = 0
        try:
            while self._open:
                self._wakes_at = min(self._open.values())
                with anyio.CancelScope(deadline=self._wakes_at) as self._sleeper:
                    await anyio.sleep_forever()
                now = self._now()
                for scope, deadline in tuple(self._open.items()):
                    if deadline <= now:
                        self.close(scope)
                        scope.cancel()
        finally:
            self._sleeper = None
            for scope, deadline in self._open.items():
                scope.deadline = deadline
