"""Coordinates the dials of the connections of one manager: limits, and shared information about servers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol

import anyio
import anyio.lowlevel
from typing_extensions import Self

from mcpconn.core.failures import Failure
from mcpconn.policy import Policy
from mcpconn.runtime.scouts import Route, Scouts


class Slot:
    """The right to dial, of one connection: entering waits for it."""

    __slots__ = ("_ended", "_held", "_limiters")

    def __init__(self, *limiters: anyio.CapacityLimiter, ended: Callable[[], None]) -> None:
        """
        Args:
            limiters: They are acquired in this order.
            ended: Called when the block ends, and if entering it was cancelled.
        """
        self._limiters = limiters
        self._ended = ended
        self._held: list[anyio.CapacityLimiter] = []

    async def __aenter__(self) -> Self:
        try:
            await self.acquire()
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        # If the slot was already released, this does nothing.
        self.release()
        self._ended()

    async def acquire(self) -> None:
        """Acquire the slot from all limiters in turn."""
        # A cancelled connection opens nothing, not even up to its first wait.
        await anyio.lowlevel.checkpoint_if_cancelled()
        for limiter in self._limiters:
            # Acquired on behalf of the slot, not of the task, because another task may release it (see
            # `Dialling._make_room`).
            try:
                # No checkpoint if the limiter is free: the dial that follows has one.
                limiter.acquire_on_behalf_of_nowait(self)
            except anyio.WouldBlock:
                await limiter.acquire_on_behalf_of(self)
            self._held.append(limiter)

    def release(self) -> None:
        """Release the slot. A dial may do so before it ends; its end then releases nothing."""
        while self._held:
            self._held.pop().release_on_behalf_of(self)


class Elsewhere(Protocol):
    """Coordinates with other processes that dial the same servers, such as the other replicas of a gateway."""

    async def may_scout(self, origin: str) -> bool:
        """Whether this process may dial a refusing server in the current second."""

    async def returned(self, origin: str) -> None:
        """Tell other processes that this one has found a refusing server to be back."""


class Dials:
    """The dials of one manager, with limits on concurrent dials to one origin and in total. Waiting dials proceed in
    order."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._total: anyio.CapacityLimiter | None = None
        self._origins: dict[str, anyio.CapacityLimiter] = {}
        self._members: dict[str, dict[object, Callable[[], None]]] = {}
        self.connections = 0
        """Connections that run: all members, counted, because each session asks for their number."""
        # A policy with waits shorter than a second, as in tests, is not slowed down.
        self._interval = min(policy.waiting_ceiling, policy.backoff.initial)
        self._scouts = Scouts(self._interval)
        self._under_way = 0
        self._idle: anyio.Event | None = None
        self._returned: dict[str, tuple[Route, anyio.Event]] = {}
        """Servers on which other processes can report: those that refused dials of this process."""
        self.elsewhere: Elsewhere | None = None
        """Other processes; None if there are none."""

    async def dial(
        self, origin: str, route: Route | None, attempt: Callable[[Slot], Awaitable[Failure | None]]
    ) -> Failure | None:
        """Make one dial, or share the result of another connection's dial of a refusing server.

        Args:
            origin: The key by which dials are limited.
            route: The port and URL to which the result applies; None: to no other connection.
            attempt: Makes the dial. Returns the failure, or None if a session was opened.

        Returns:
            The failure of the dial, which may be another connection's; None if a session was opened.
        """
        if route is None:
            async with self.take(origin) as slot:
                return await attempt(slot)
        while True:
            # A connection that shares with no other follows its own schedule.
            alone = len(self._members.get(origin, ())) <= 1
            async with self._scouts.turn(None if alone else route) as turn:
                if turn.failure is not None:
                    return turn.failure
                known = self._scouts.failure(route)
                if known is not None and not await self._scouts_for_all(origin, route):
                    # Another process has found that the server still refuses. That counts as a dial of this connection.
                    self._scouts.found(route, known)
                    return known
                async with self.take(origin) as slot:
                    # Dials that waited for a slot behind a refused dial have to wait for their turn now.
                    if not (alone or turn.scout) and self._scouts.refuses(route):
                        continue
                    failure = await attempt(slot)
                # Recorded before the turn ends, so that the next dial sees it.
                if self._scouts.found(route, failure):
                    self.server_returned(origin)
                    if self.elsewhere is not None:
                        await self.elsewhere.returned(origin)
                if self.elsewhere is not None and self._scouts.refuses(route):
                    # From now on, and not only once a turn is denied: the next news may be that the server is back.
                    self._watched(origin, route)
                return failure

    def _watched(self, origin: str, route: Route) -> anyio.Event:
        """Set when another process reports that the refusing server is back."""
        return self._returned.setdefault(origin, (route, anyio.Event()))[1]

    async def _scouts_for_all(self, origin: str, route: Route) -> bool:
        """Whether this process dials a refusing server. If not, it waits for the result of another process's dial."""
        if self.elsewhere is None or await self.elsewhere.may_scout(origin):
            return True
        returned = self._watched(origin, route)
        with anyio.move_on_after(self._interval):
            await returned.wait()
        return returned.is_set()

    def returned_elsewhere(self, origin: str) -> None:
        """Another process has found that a refusing server is back."""
        route, event = self._returned.pop(origin, (None, None))
        if route is not None and event is not None:
            event.set()
            self._scouts.found(route, None)
        self.server_returned(origin)

    def take(self, origin: str) -> Slot:
        """Hold one slot. The origin's limiter comes first, so that dials that wait for one busy server do not block
        others."""
        if self._total is None:
            # Created here because it needs a running event loop.
            self._total = anyio.CapacityLimiter(self._policy.dials)
        limiter = self._origins.get(origin)
        if limiter is None:
            limiter = self._origins[origin] = anyio.CapacityLimiter(self._policy.dials_per_origin)
        # A dial is counted while it waits for a slot too, because `wait_until_idle` covers all requested dials.
        self._under_way += 1
        return Slot(limiter, self._total, ended=self._one_ended)

    def _one_ended(self) -> None:
        self._under_way -= 1
        if self._under_way == 0 and self._idle is not None:
            self._idle.set()
            self._idle = None

    async def wait_until_idle(self) -> None:
        """Return when no dial is in progress."""
        while self._under_way:
            if self._idle is None:
                self._idle = anyio.Event()
            await self._idle.wait()

    def join(self, origin: str, on_return: Callable[[], None]) -> Callable[[], None]:
        """Subscribe to the return of a server that refused.

        Args:
            origin: Its host and port.
            on_return: Called when it is back; it must not raise.

        Returns:
            An unsubscribe function.
        """
        # The entry is not the callback itself, because the same function may be registered twice.
        key = object()
        members = self._members.setdefault(origin, {})
        members[key] = on_return
        self.connections += 1

        def leave() -> None:
            members.pop(key, None)
            self.connections -= 1
            # The last subscriber removes the entries, so that hosts that come and go do not accumulate.
            if not members and self._members.get(origin) is members:
                del self._members[origin]
                self._origins.pop(origin, None)
                self._returned.pop(origin, None)

        return leave

    def server_returned(self, origin: str) -> None:
        """A dial succeeded after others to the same origin had failed: connections that wait for it can dial now."""
        # A copy, because a listener may close its connection, which unsubscribes.
        for on_return in tuple(self._members.get(origin, {}).values()):
            on_return()
