"""The wait before the next dial, and the budget of replays of a manager."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


class Dice(Protocol):
    """The source of jitter: a `random.Random`, or a test's own. The core has no randomness of its own."""

    def random(self) -> float:
        """A number from 0 to 1."""


@dataclass(frozen=True, kw_only=True)
class Backoff:
    """Exponential backoff with jitter, as in gRPC's connection-backoff document.

    gRPC's figures are 1 s, factor 1.6, jitter 0.2, maximum 120 s; the maximum here is half of that, because usually a
    person is waiting.
    """

    initial: float = 1.0
    """Seconds before the first delayed attempt."""
    factor: float = 1.6
    """Growth from one attempt to the next."""
    maximum: float = 60.0
    """Seconds, before jitter."""
    jitter: float = 0.2
    """Each delay is multiplied by a random number from 1 - jitter to 1 + jitter."""

    def delay(self, attempt: int, rng: Dice, *, floor: float | None = None, ceiling: float | None = None) -> float:
        """Seconds to wait before attempt number `attempt`.

        Args:
            attempt: The number of consecutive failed attempts. 0 means none, and no wait.
            rng: The source of the jitter.
            floor: Seconds that the server asked for (Retry-After); the result is never less.
            ceiling: The maximum delay in seconds, before jitter, if a longer wait is useless.
        """
        if attempt <= 0:
            return max(0.0, floor or 0.0)
        # The exponent is capped because 1.6 ** 1600 overflows; the maximum is reached long before.
        seconds = min(self.maximum, self.initial * self.factor ** min(attempt - 1, 64))
        if ceiling is not None:
            seconds = min(seconds, ceiling)
        seconds *= 1 + self.jitter * (2 * rng.random() - 1)
        return max(seconds, floor or 0.0)


class ReplayBudget:
    """Limits replays to a share of the calls plus a small reserve, to prevent retry storms.

    It counts only replays of calls whose outcome is unknown. Replaying a call that was never sent, or that was refused
    before it ran, adds no work for a server and is free, as in gRPC.
    """

    __slots__ = ("_balance", "_maximum", "_ratio")

    def __init__(self, ratio: float = 0.2, reserve: float = 10.0, maximum: float = 100.0) -> None:
        """
        Args:
            ratio: Replays earned by each call. 0.2 allows a fifth of the calls to be replayed.
            reserve: Replays that are available before the first call.
            maximum: The maximum balance, so that long periods without replays do not accumulate a large budget.
        """
        self._ratio = ratio
        self._balance = reserve
        self._maximum = max(reserve, maximum)

    @property
    def balance(self) -> float:
        """The replays that are available now. Never negative."""
        return self._balance

    def deposit(self) -> None:
        """Record a call."""
        balance = self._balance + self._ratio
        self._balance = balance if balance < self._maximum else self._maximum

    def withdraw(self) -> bool:
        """Take one replay from the budget. Returns False, and takes nothing, if the budget is spent."""
        if self._balance < 1:
            return False
        self._balance -= 1
        return True
