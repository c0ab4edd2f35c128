"""The single task that runs a connection: it dials, maintains the session, and waits for events. It never polls.

Its parts are in separate files: `lifecycle` (the state and the immediate effects of events), `dialling` (opening
sessions), `errands` (background tasks), `wake` (its only wait). The state determines which of them has work to do.
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
    """Runs one connection: its dials, its sessions, and their end."""

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
            common: What all parts of the connection share.
            dialer: Opens its sessions.
            dials: Shared by the connections of a manager, to limit and coordinate dials.
            carried: State that is carried from session to session.
            origin: Host and port of the server; connections to the same origin share its failures.
            route: The port and URL to which a refused dial applies; None: only to this connection.
            lazy: Wait for the first call before dialling.
            credentials: Renewed once when a session or dial is refused because of them.
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
        """Opens its sessions, and holds them."""

    def spawn(self, task: Callable[[], Coroutine[Any, Any, None]]) -> bool:
        """Run `task` in the background, at most until the connection ends. False if the connection is not running.

        Its exceptions are logged, because a background task must not end the connection.
        """
        return self._errands.spawn(task)

    async def run(self) -> None:
        """Run the connection until it is closed."""
        lifecycle = self.lifecycle
        lifecycle.since = self._clock.now()
        # Subscribed for the connection's whole life, because news of the server matters in every state in which a dial
        # is scheduled.
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
                    # Callers get time to finish; background tasks are no longer needed.
                    self._errands.cancel()
                    # Done before the group is cancelled, because calls in flight get the drain timeout.
                    await self.dialling.end_sessions(lifecycle.closing_by)
                    self._errands.group.cancel_scope.cancel()
        finally:
            leave()
            self._errands.group = None
            await self.dialling.aclose()

    async def _rest(self) -> None:
        """In a state without dialling: wait for work, and do it."""
        lifecycle = self.lifecycle
        # What woke the task is in the state, the gate and the alarm, which are read here.
        lifecycle.wake.clear()
        if lifecycle.state is State.IDLE and lifecycle.gate.waiting:
            lifecycle.connect()
            return
        await lifecycle.wake.wait(self._alarm())
        now, due, state = self._clock.now(), lifecycle.schedule.due, lifecycle.state
        if state is State.FAILED and due is not None and now >= due:
            # A single dial: if it fails, the connection is `failed` again at once (see `decide_dial`).
            lifecycle.schedule.end_cool_down()
            lifecycle.renewal.reset()
            lifecycle.fire(Event.RETRY)
        elif state is State.READY and lifecycle.session is not None:
            if lifecycle.probe.overdue(lifecycle.session):
                lifecycle.start_probe(lifecycle.session)
            self._upkeep(lifecycle.session, now)

    def _alarm(self) -> float:
        """When there will be work to do, if nothing happens before."""
        lifecycle = self.lifecycle
        state = lifecycle.state
        if state is State.FAILED and lifecycle.schedule.due is not None:
            return lifecycle.schedule.due
        if state is State.READY and lifecycle.session is not None:
            alarm = upkeep.alarm(lifecycle.session, self._policy, self._clock.now())
            return alarm if lifecycle.probe.due is None else min(alarm, lifecycle.probe.due)
        return math.inf

    def _upkeep(self, session: Session, now: float) -> None:
        lifecycle = self.lifecycle
        task = upkeep.due(session, self._policy, now)
        if task is upkeep.Task.REPLACE:
            # The next session is opened while calls in flight finish on this one.
            lifecycle.schedule.reset()
            lifecycle.recycle()
            # A listener of this event may have closed the connection.
            if not self._lazy and lifecycle.state is State.IDLE:
                lifecycle.connect()
        elif task is upkeep.Task.REST:
            # In `idle` the next call opens a session.
            lifecycle.recycle()
        elif task is upkeep.Task.PROBE:
            assert session.link is not None
            session.probed_at = now
            session.keepalive = self.dialling.keepalive(session.link)
            # If a probe is already in progress because of a suspicion, it serves the same purpose.
            if not lifecycle.probe.under_way:
                lifecycle.start_probe(session, keepalive=True)
