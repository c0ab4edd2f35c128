"""The one task that owns a connection's life: it dials, looks after the session, and waits on events. It never polls.

It is made of parts, each in a file of its own: `lifecycle` (the state and what follows from an event at once),
`dialling` (opening sessions), `errands` (tasks beside it), `wake` (its only wait). Which of them has work to do, the
state says.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Coroutine, Hashable
from typing import Any

import anyio

from mcpconn.core.states import Event, State
from mcpconn.runtime import upkeep
from mcpconn.runtime.common import Common
from mcpconn.runtime.dialling import Carried, Dialling
from mcpconn.runtime.dials import Dials
from mcpconn.runtime.errands import Errands
from mcpconn.runtime.lifecycle import DIALLING, Lifecycle
from mcpconn.runtime.protocols import Dialer, Renewable
from mcpconn.runtime.scouts import Route
from mcpconn.runtime.session import Session


class Supervisor:
    """Owns one connection: its dials, its sessions, their end."""

    def __init__(
        self,
        common: Common,
        dialer: Dialer,
        dials: Dials,
        carried: Carried,
        *,
        origin: str = "",
        route: tuple[Hashable, Hashable] | None = None,
        lazy: bool = False,
        credentials: Renewable | None = None,
    ) -> None:
        """
        Args:
            common: What all parts of the connection have in common.
            dialer: Opens its sessions.
            dials: What the connections of a manager know of each other's dials.
            carried: What is carried from session to session.
            origin: Host and port of the server; connections to the same one have its troubles in common.
            route: The port and the URL that a refused dial says something about; None: it says nothing of others.
            lazy: Wait for the first call before dialling.
            credentials: Renewed once when a session or dial is refused for them.
        """
        self._policy = common.policy
        self._clock = common.clock
        self._lazy = lazy
        self._errands = Errands(common.journal)
        self.lifecycle = Lifecycle(common, self._errands, credentials=credentials)
        """The connection's state."""
        self.dialling = Dialling(
            common,
            self.lifecycle,
            self._errands,
            dialer=dialer,
            dials=dials,
            origin=origin,
            route=Route(*route) if route is not None else None,
            carried=carried,
        )
        """Its sessions, and the opening of the next."""

    def spawn(self, task: Callable[[], Coroutine[Any, Any, None]]) -> bool:
        """Run `task` beside the connection, for no longer than it lives. False if it does not live.

        An exception that it raises is logged: what runs beside a connection must not be its end.
        """
        return self._errands.spawn(task)

    async def run(self) -> None:
        """Own the connection until it is closed."""
        lifecycle = self.lifecycle
        lifecycle.since = self._clock.now()
        # Joined for the whole life: news of the server is of use in every state in which a dial is scheduled.
        leave = self.dialling.join()
        try:
            # Sessions, probes and listings are children of this group, so none outlives the connection.
            async with anyio.create_task_group() as self._errands.group:
                try:
                    if lifecycle.state is State.IDLE and not self._lazy:
                        lifecycle.connect()
                    while lifecycle.state is not State.CLOSED:
                        if lifecycle.state in DIALLING:
                            await self.dialling.run()
                        else:
                            await self._rest()
                finally:
                    if lifecycle.state is not State.CLOSED:
                        lifecycle.close()
                    # Callers get time to finish; what runs beside them is of use to nobody now.
                    self._errands.cancel()
                    # Before the group is cancelled: calls in flight get the drain timeout.
                    await self.dialling.end_sessions(lifecycle.closing_by)
                    self._errands.group.cancel_scope.cancel()
        finally:
            leave()
            self._errands.group = None
            await self.dialling.aclose()

    async def _rest(self) -> None:
        """Wait for something to do in a state that is not dialling; do it."""
        lifecycle = self.lifecycle
        if lifecycle.state is State.IDLE and lifecycle.gate.waiting:
            lifecycle.connect()
            return
        await lifecycle.wake.wait(self._alarm())
        now, due = self._clock.now(), lifecycle.schedule.due
        if lifecycle.state is State.FAILED and due is not None and now >= due:
            # One dial: if it fails, the connection is `failed` again at once (see `decide_dial`).
            lifecycle.schedule.end_cool_down()
            lifecycle.renewal.reset()
            lifecycle.fire(Event.RETRY)
        elif lifecycle.state is State.READY and lifecycle.session is not None:
            if lifecycle.probe.overdue(lifecycle.session):
                lifecycle.start_probe(lifecycle.session)
            self._upkeep(lifecycle.session, now)

    def _alarm(self) -> float:
        """When there is something to do, if nothing happens before."""
        lifecycle = self.lifecycle
        if lifecycle.state is State.FAILED and lifecycle.schedule.due is not None:
            return lifecycle.schedule.due
        if lifecycle.state is State.READY and lifecycle.session is not None:
            alarm = upkeep.alarm(lifecycle.session, self._policy, self._clock.now())
            return alarm if lifecycle.probe.due is None else min(alarm, lifecycle.probe.due)
        return math.inf

    def _upkeep(self, session: Session, now: float) -> None:
        lifecycle = self.lifecycle
        task = upkeep.due(session, self._policy, now)
        if task is upkeep.Task.REPLACE:
            # The next session is opened while the calls in flight finish on this one.
            lifecycle.schedule.reset()
            lifecycle.recycle()
            # A listener that was told of it may have closed the connection.
            if not self._lazy and lifecycle.state is State.IDLE:
                lifecycle.connect()
        elif task is upkeep.Task.REST:
            # In `idle` the next call opens a session.
            lifecycle.recycle()
        elif task is upkeep.Task.PROBE:
            assert session.link is not None
            session.probed_at = now
            session.keepalive = upkeep.keepalive(session.link, self._policy, self._clock.rng)
            # One that is under way already, because something smelled, will tell as well.
            if not lifecycle.probe.under_way:
                lifecycle.start_probe(session, keepalive=True)
