"""While a server refuses, its connections share one dial a second: a scout's, whatever their number.

A hundred clients that lose the same server would dial it a hundred times a second otherwise, just when it starts. What
the scout finds is true for all that wait for their turn: they fail with it, so that each counts its attempts and loses
patience as if it had dialled itself, or they all follow at once.

A port that nobody listens on is the trouble of every connection to that host and port. A server that accepts and hangs
up, or answers 5xx, is the trouble of one URL: another URL behind the same proxy may be served by another process.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import AsyncIterator, Hashable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import anyio

from mcpconn.core.failures import Delivery, Failure, FailureKind

REMEMBERED = 60.0
"""Seconds without a dial after which a refusal is forgotten: nobody who was there then is in a hurry now."""


@dataclass(frozen=True)
class Route:
    """What a dial's failure says something about."""

    port: Hashable
    """Where its connection leads to. Two routes through different transports are two ports."""
    url: Hashable
    """What it asked for there."""


@dataclass(eq=False)
class _Refusal:
    failure: Failure
    due: float
    """When the next scout may dial."""
    round: int = 0
    """Dials that have failed; who waits shares the failure of the next one."""
    scouting: bool = False
    changed: anyio.Event = field(default_factory=anyio.Event)

    def tell(self) -> None:
        self.changed.set()
        self.changed = anyio.Event()


@dataclass(frozen=True)
class Turn:
    """What came of waiting for a turn to dial."""

    failure: Failure | None = None
    """Of another connection's dial that was made meanwhile: then there is nothing to dial."""
    scout: bool = False
    """The server refuses, and this one dials it for all others."""


class Scouts:
    """The servers that refuse, as the connections of one manager have found."""

    def __init__(self, interval: float) -> None:
        """
        Args:
            interval: Seconds between two dials of one server that refuses.
        """
        self._interval = interval
        # In the order of their last dials, oldest first.
        self._refusals: OrderedDict[Hashable, _Refusal] = OrderedDict()

    def refuses(self, route: Route) -> bool:
        """Whether the last dial of this route found the server refusing."""
        return self.failure(route) is not None

    def failure(self, route: Route) -> Failure | None:
        """How the last dial of this route failed, if it found the server refusing."""
        refusal = self._refusals.get(route.port) or self._refusals.get(route.url)
        return None if refusal is None else refusal.failure

    @asynccontextmanager
    async def turn(self, route: Route | None) -> AsyncIterator[Turn]:
        """Wait while the server refuses, until a scout is due. Within the block, it is this one's turn.

        Args:
            route: What is to be dialled; None: something that has nothing in common with any other.
        """
        taken: list[_Refusal] = []
        try:
            failure = None
            if route is not None:
                failure = await self._wait(route.port, taken) or await self._wait(route.url, taken)
            yield Turn(failure, scout=bool(taken))
        finally:
            for refusal in taken:
                # It may have been cancelled before it found anything: then the next in line dials at once.
                refusal.scouting = False
                refusal.tell()

    async def _wait(self, place: Hashable, taken: list[_Refusal]) -> Failure | None:
        joined: tuple[_Refusal, int] | None = None
        while (refusal := self._refusals.get(place)) is not None:
            joined = joined or (refusal, refusal.round)
            # Another refusal than at the beginning: the server was back in between, and refuses again.
            if joined != (refusal, refusal.round):
                return refusal.failure
            if not refusal.scouting and anyio.current_time() >= refusal.due:
                refusal.scouting = True
                taken.append(refusal)
                return None
            deadline = math.inf if refusal.scouting else refusal.due
            with anyio.CancelScope(deadline=deadline):
                await refusal.changed.wait()
        return None

    def found(self, route: Route, failure: Failure | None) -> bool:
        """A dial has ended. Whether it found a server back that had refused.

        Args:
            route: What was dialled.
            failure: How it failed; None: a session was opened.
        """
        place = None if failure is None else _shared(route, failure)
        back = False
        for each in (route.port, route.url):
            if each != place and (refusal := self._refusals.pop(each, None)) is not None:
                back = True
                refusal.tell()
        if place is not None and failure is not None:
            self._refused(place, failure)
        return back

    def _refused(self, place: Hashable, failure: Failure) -> None:
        now = anyio.current_time()
        refusal = self._refusals.setdefault(place, _Refusal(failure, now))
        self._refusals.move_to_end(place)
        refusal.failure, refusal.due = failure, now + self._interval
        refusal.round += 1
        refusal.tell()
        # Servers that were removed from the configuration must not add up.
        while (oldest := next(iter(self._refusals.values()))).due + REMEMBERED < now and not oldest.scouting:
            self._refusals.popitem(last=False)


def _shared(route: Route, failure: Failure) -> Hashable | None:
    """What else a dial that failed so says something about; None: it is this connection's own trouble.

    A server that asked for a wait asked one client.
    """
    if failure.retry_after is not None:
        return None
    if failure.kind is FailureKind.UNAVAILABLE:
        return route.port if failure.delivery is Delivery.NOT_SENT else route.url
    return route.url if failure.kind is FailureKind.TRANSPORT_LOST else None
