"""Time and randomness, in one place, so that tests can supply their own."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import anyio


@dataclass(frozen=True)
class Clock:
    """The source of a manager's time and randomness.

    The default is the event loop's own clock, so with a virtual-time loop all times are virtual.
    """

    now: Callable[[], float] = anyio.current_time
    """Monotonic seconds; must be the clock that the event loop's timers use."""
    wall: Callable[[], float] = time.time
    """Seconds since 1970, for display."""
    rng: random.Random = field(default_factory=random.Random)
    """Jitter."""
