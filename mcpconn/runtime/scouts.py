"""While a server refuses, all its connections share one dial a second: the scout.

Otherwise a hundred clients that lose the same server would dial it a hundred times a second, just when it starts. The
scout's result applies to all connections that wait for their turn: they fail with it, so that each counts the attempt
as if it had dialled itself, or they all follow at once.

A port without a listener affects every connection to that host and port. A server that accepts and disconnects, or
answers 5xx, affects one URL only, because another process may serve another URL behind the same proxy.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass

import anyio
from typing_extensions import Self

from mcpconn.core.failures import Delivery, Failure, FailureKind

REMEMBERED = 60.0
"""Seconds without a dial after which a refusal is forgotten."""


@dataclass(frozen=True)
class Route:
    """What a dial's failure applies to."""

    port: Hashable
    """The port of the connection. Routes through different transports have different ports."""
    url: Hashable
    """The URL of the request."""


@dataclass(eq=False)
class _Refusal:
    failure: Failure
    due: float
    """When the next scout may dial."""
    round: int = 0
    """The number of failed dials; waiting connections share the next failure."""
    scouting: bool = False
    timed: bool = False
    """Whether one of the waiting connections has a timer that ends at `due`."""
    changed: anyio.Event | None = None
    """There while a connection waits."""

    def tell(self) -> None:
        """Wake the waiting connections."""
        if self.changed is not None:
            self.changed.set()
            self.changed = None

    async def wait(self) -> None:
        """Return at the next change; for one of the waiting connections also when a scout may dial."""
        changed = self.changed = self.changed or anyio.Event()
        # The first to wait has the timer, and dials when it ends. With a timer each, a thousand connections would wake
        # every second to find that another one dials.
        if self.scouting or self.timed:
            await changed.wait()
            return
        self.timed = True
        try:
            with anyio.CancelScope(deadline=self.due):
                await changed.wait()
        except BaseException:
            # It was cancelled: another one takes over the timer.
            self.tell()
            raise
        finally:
            self.timed = False


class Turn:
    """A connection's turn to dial: entering waits for it. While a server refuses, that is until a scout is due."""

    __slots__ = ("_route", "_scouts", "_taken", "failure")

    def __init__(self, scouts: Scouts, route: Route | None) -> None:
        self._scouts = scouts
        self._route = route
        self._taken: list[_Refusal] = []
        self.failure: Failure | None = None
        """The failure of another connection's dial in the meantime: then no dial is needed."""

    @property
    def scout(self) -> bool:
        """Whether the server refuses and this connection dials it for all others."""
        return bool(self._taken)

    async def __aenter__(self) -> Self:
        route, taken = self._route, self._taken
        if route is not None:
            try:
                self.failure = await self._scouts.wait(route.port, taken) or await self._scouts.wait(route.url, taken)
            except BaseException:
                self._end()
                raise
        return self

    async def __aexit__(self, *_: object) -> None:
        self._end()

    def _end(self) -> None:
        for refusal in self._taken:
            # If the dial was cancelled before it had a result, the next connection dials at once.
            refusal.scouting = False
            refusal.tell()


class Scouts:
    """The refusing servers that the connections of one manager have found."""

    def __init__(self, interval: float) -> None:
        """
        Args:
            interval: Seconds between two dials of a refusing server.
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

    def turn(self, route: Route | None) -> Turn:
        """Wait while the server refuses, until a scout is due. Within the block, this connection has the turn.

        Args:
            route: The route to dial; None: it is shared with no other connection.
        """
        return Turn(self, route)

    async def wait(self, place: Hashable, taken: list[_Refusal]) -> Failure | None:
        """Wait while a place refuses, until this connection may scout it. Returns the failure of another one's scout.

        Args:
            place: A route's port, or its URL.
            taken: Receives the refusal if this connection is its scout.
        """
        joined: tuple[_Refusal, int] | None = None
        while (refusal := self._refusals.get(place)) is not None:
            joined = joined or (refusal, refusal.round)
            # This refusal is not the one at the beginning: the server was back in between, and refuses again.
            if joined != (refusal, refusal.round):
                return refusal.failure
            if not refusal.scouting and anyio.current_time() >= refusal.due:
                refusal.scouting = True
                taken.append(refusal)
                return None
            await refusal.wait()
        return None

    def found(self, route: Route, failure: Failure | None) -> bool:
        """Record the end of a dial. Returns whether it found that a refusing server is back.

        Args:
            route: The dialled route.
            failure: The failure; None: a session was opened.
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
        refusal = self._refusals.get(place)
        if refusal is None:
            refusal = self._refusals[place] = _Refusal(failure, now)
        self._refusals.move_to_end(place)
        refusal.failure, refusal.due = failure, now + self._interval
        refusal.round += 1
        refusal.tell()
        # Servers that were removed from the configuration must not accumulate.
        while (oldest := next(iter(self._refusals.values()))).due + REMEMBERED < now and not oldest.scouting:
            self._refusals.popitem(last=False)


def _shared(route: Route, failure: Failure) -> Hashable | None:
    """What a dial with this failure applies to; None: only to this connection.

    A server that asked for a wait asked only one client.
    """
    if failure.retry_after is not None:
        return None
    if failure.kind is FailureKind.UNAVAILABLE:
        return route.port if failure.delivery is Delivery.NOT_SENT else route.url
    return route.url if failure.kind is FailureKind.TRANSPORT_LOST else None
