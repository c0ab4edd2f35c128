"""Time and randomness, in one place, so that tests can supply their own."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import anyio


@dataclass(frozen=True)
class Clock:
    """Where a manager's time and randomness come from.

    The default is the event loop's own clock, so under a virtual-time loop everything is virtual.
    """

    now: Callable[[], float] = anyio.current_time
    """Monotonic seconds; must be the clock that the event loop's timers use."""
    wall: Callable[[], float] = time.time
    """Seconds since 1970, for people."""
    rng: random.Random = field(default_factory=random.Random)
    """Jitter."""

    def bound(self) -> Callable[[], float]:
        """`now` for the event loop that is running, and no other: without looking for it each time.

        Measured: 0.2 us a reading in place of 0.9.
        """
        if self.now is not anyio.current_time:
            return self.now
        try:
            # Where trio is a guest of asyncio's loop, that loop runs, but none of its tasks does.
            guest = asyncio.current_task() is None
        except RuntimeError:
            return self.now
        return self.now if guest else asyncio.get_running_loop().time
