"""Rate and concurrency limits: one bucket and one counter per principal, independent of others."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from mcpconn.gateway.access.rights import Rights
from mcpconn.gateway.principals import Principal

KEPT = 10_000
"""Principals that are remembered. One that is forgotten begins with a full bucket, as after a pause."""


class TooMany(Exception):
    """A limit is reached."""

    def __init__(self, text: str, retry_after: float) -> None:
        super().__init__(text)
        self.retry_after = max(1, math.ceil(retry_after))
        """Whole seconds, for the header."""


@dataclass
class _Use:
    tokens: float
    at: float
    running: int = 0


class Limits:
    """What all principals use at present."""

    def __init__(self, now: Callable[[], float]) -> None:
        """
        Args:
            now: Monotonic seconds.
        """
        self._now = now
        self._uses: OrderedDict[Principal, _Use] = OrderedDict()
        self.spent: Callable[[Principal, Rights], None] = lambda principal, rights: None
        """Told of each token that is taken from a bucket: the replicas of a fleet share theirs."""

    def enter(self, principal: Principal, rights: Rights) -> Callable[[], None]:
        """Count a request.

        Returns:
            A function to be called when it has ended.

        Raises:
            TooMany: it may not be made now. Nothing was counted.
        """
        now = self._now()
        use = self._uses.get(principal)
        if use is None:
            use = self._uses[principal] = _Use(float(rights.burst), now)
        self._uses.move_to_end(principal)
        self._forget()
        if rights.concurrent is not None and use.running >= rights.concurrent:
            raise TooMany(f"{rights.concurrent} requests of yours are running; wait for one of them", 1)
        if rights.rate is not None:
            # A token bucket: full after a pause, and filled by `rate` tokens a second.
            use.tokens = min(float(rights.burst), use.tokens + (now - use.at) * rights.rate)
            use.at = now
            if use.tokens < 1:
                raise TooMany(f"more than {rights.rate:g} requests a second", (1 - use.tokens) / rights.rate)
            use.tokens -= 1
            self.spent(principal, rights)
        use.running += 1

        def leave() -> None:
            use.running -= 1

        return leave

    def correct(self, principal: Principal, tokens: float) -> None:
        """A principal's bucket holds so many tokens now. Below zero, that many more have to flow in first."""
        use = self._uses.get(principal)
        if use is not None:
            use.tokens, use.at = tokens, self._now()

    def _forget(self) -> None:
        while len(self._uses) > KEPT:
            oldest = next(iter(self._uses))
            if self._uses[oldest].running:
                # Its counter must not begin again while requests are running.
                self._uses.move_to_end(oldest)
                return
            del self._uses[oldest]
