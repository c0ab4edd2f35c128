"""What the connections of one manager have to do with each other's dials: limits, and news of a server."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Protocol

import anyio

from mcpconn.core.failures import Failure
from mcpconn.policy import Policy
from mcpconn.runtime.scouts import Route, Scouts


class Slot:
    """The right to dial, of one connection."""

    def __init__(self, *limiters: anyio.CapacityLimiter) -> None:
        self._limiters = limiters
        self._held: list[anyio.CapacityLimiter] = []

    async def acquire(self) -> None:
        """Return when it is free, from all limiters in turn."""
        for limiter in self._limiters:
            # On behalf of the slot and not of the task: another task may release it (see `Dialling._make_room`).
            await limiter.acquire_on_behalf_of(self)
            self._held.append(limiter)

    def release(self) -> None:
        """Let the next one dial. A dial may do so before it is over, and its end then releases nothing."""
        while self._held:
            self._held.pop().release_on_behalf_of(self)


class Elsewhere(Protocol):
    """Other processes that dial the same servers, such as the other replicas of a gateway."""

    async def may_scout(self, origin: str) -> bool:
        """Whether this process is the one that dials a server that refuses, in this second."""

    async def returned(self, origin: str) -> None:
        """This process has found that a server which had refused is back."""


class Dials:
    """The dials of one manager: at most so many at once, to one origin and in all. Those that wait go in order."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._total: anyio.CapacityLimiter | None = None
        self._origins: dict[str, anyio.CapacityLimiter] = {}
        self._members: dict[str, dict[object, Callable[[], None]]] = {}
        # A policy of shorter waits than a second, as tests have it, is not slowed down.
        self._interval = min(policy.waiting_ceiling, policy.backoff.initial)
        self._scouts = Scouts(self._interval)
        self._under_way = 0
        self._idle: anyio.Event | None = None
        self._returned: dict[str, tuple[Route, anyio.Event]] = {}
        """What other processes can have news of: where dials of this one were refused."""
        self.elsewhere: Elsewhere | None = None
        """Other processes; None if there are none."""

    async def dial(
        self, origin: str, route: Route | None, attempt: Callable[[Slot], Awaitable[Failure | None]]
    ) -> Failure | None:
        """Make one dial, or learn what another connection's dial has found of a server that refuses.

        Args:
            origin: What dials are limited by.
            route: What the outcome says something about; None: about nobody else.
            attempt: Dials. Returns the failure, or None if a session was opened.

        Returns:
            The failure of the dial, which may be another connection's; None if a session was opened.
        """
        if route is None:
            async with self.take(origin) as slot:
                return await attempt(slot)
        while True:
            # One that has nobody to share with keeps its own pace.
            alone = len(self._members.get(origin, ())) <= 1
            async with self._scouts.turn(None if alone else route) as turn:
                if turn.failure is not None:
                    return turn.failure
                known = self._scouts.failure(route)
                if known is not None and not await self._scouts_for_all(origin, route):
                    # Still refused, another process has found by now. That counts as a dial of this one's.
                    self._scouts.found(route, known)
                    return known
                async with self.take(origin) as slot:
                    # Those that waited for a slot behind a dial that was refused have to wait for their turn now.
                    if not (alone or turn.scout) and self._scouts.refuses(route):
                        continue
                    failure = await attempt(slot)
                # Before the turn ends: who comes next must know.
                if self._scouts.found(route, failure):
                    self.server_returned(origin)
                    if self.elsewhere is not None:
                        await self.elsewhere.returned(origin)
                return failure

    async def _scouts_for_all(self, origin: str, route: Route) -> bool:
        """Whether this process dials a server that refuses. If not, it waits for what another one's dial finds."""
        if self.elsewhere is None or await self.elsewhere.may_scout(origin):
            return True
        _, returned = self._returned.setdefault(origin, (route, anyio.Event()))
        with anyio.move_on_after(self._interval):
            await returned.wait()
        return returned.is_set()

    def returned_elsewhere(self, origin: str) -> None:
        """Another process has found that a server which had refused is back."""
        route, event = self._returned.pop(origin, (None, None))
        if route is not None and event is not None:
            event.set()
            self._scouts.found(route, None)
        self.server_returned(origin)

    @asynccontextmanager
    async def take(self, origin: str) -> AsyncIterator[Slot]:
        """Hold one slot. The origin's comes first: those who wait for one busy server keep no other waiting."""
        if self._total is None:
            # Made here, where an event loop runs.
            self._total = anyio.CapacityLimiter(self._policy.dials)
        limiter = self._origins.get(origin)
        if limiter is None:
            limiter = self._origins[origin] = anyio.CapacityLimiter(self._policy.dials_per_origin)
        # Counted while it waits for a slot, too: `wait_until_idle` is about dials that somebody wants.
        self._under_way += 1
        slot = Slot(limiter, self._total)
        try:
            await slot.acquire()
            yield slot
        finally:
            # May be the second time, and then does nothing.
            slot.release()
            self._under_way -= 1
            if self._under_way == 0 and self._idle is not None:
                self._idle.set()
                self._idle = None

    async def wait_until_idle(self) -> None:
        """Return when nobody dials."""
        while self._under_way:
            if self._idle is None:
                self._idle = anyio.Event()
            await self._idle.wait()

    def join(self, origin: str, on_return: Callable[[], None]) -> Callable[[], None]:
        """Be told when a server that refused is back.

        Args:
            origin: Its host and port.
            on_return: Told so; it must not raise.

        Returns:
            A function that ends it.
        """
        # Not the callback itself: the same function may be joined twice.
        key = object()
        members = self._members.setdefault(origin, {})
        members[key] = on_return

        def leave() -> None:
            members.pop(key, None)
            # The last one out removes the entries, so that hosts which come and go do not add up.
            if not members and self._members.get(origin) is members:
                del self._members[origin]
                self._origins.pop(origin, None)
                self._returned.pop(origin, None)

        return leave

    def server_returned(self, origin: str) -> None:
        """A dial succeeded after others to the same origin had failed: whoever waits for it need not wait longer."""
        # A copy: a listener may close its connection, which leaves.
        for on_return in tuple(self._members.get(origin, {}).values()):
            on_return()
