"""The dials of one connection: wait until one is due, renew credentials, take a slot, open a session."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from functools import partial
from typing import Protocol

import anyio
from anyio.abc import TaskStatus

from mcpconn.core.decide import decide_dial
from mcpconn.core.failures import Evidence, Failure, FailureKind
from mcpconn.core.states import Event, State
from mcpconn.runtime import upkeep
from mcpconn.runtime.common import Common
from mcpconn.runtime.dials import Dials, Slot
from mcpconn.runtime.errands import Errands
from mcpconn.runtime.lifecycle import DIALLING, Lifecycle
from mcpconn.runtime.protocols import Dialer, Link
from mcpconn.runtime.scouts import Route
from mcpconn.runtime.session import Session


class Carried(Protocol):
    """What is carried from one session of a connection to the next."""

    async def before_calls(self, link: Link) -> None:
        """Bring a new session into the state of the last one, before calls are let through.

        Raises:
            Exception: the session cannot be used. It counts as a dial that failed.
        """

    async def beside_calls(self, session: Session) -> None:
        """Finish that, beside the first calls. What it raises is logged."""


class Dialling:
    """Opens one session after another, and holds each in a task of its own."""

    def __init__(
        self,
        common: Common,
        lifecycle: Lifecycle,
        errands: Errands,
        *,
        dialer: Dialer,
        dials: Dials,
        origin: str,
        route: Route | None,
        carried: Carried,
    ) -> None:
        """
        Args:
            common: What all parts of the connection have in common.
            lifecycle: Its state.
            errands: Runs the sessions.
            dialer: Opens them.
            dials: What the connections of a manager know of each other's dials.
            origin: Host and port of the server; connections to the same one have its troubles in common.
            route: What a dial that is refused says something about; None: about this connection alone.
            carried: What is carried from session to session.
        """
        self._policy = common.policy
        self._clock = common.clock
        self._classify = common.classify
        self._lifecycle = lifecycle
        self._errands = errands
        self._dialer = dialer
        self._dials = dials
        self._origin = origin
        self._route = route
        self._carried = carried
        self.sessions: set[Session] = set()
        """Those whose tasks have not ended: the present one, and earlier ones whose calls are not over."""

    def join(self) -> Callable[[], None]:
        """Hear from other connections that the server has returned. Returns a function that ends it."""
        return self._dials.join(self._origin, self._lifecycle.server_returned)

    async def run(self) -> None:
        """Make one dial when it is due, and apply what comes of it."""
        lifecycle, schedule = self._lifecycle, self._lifecycle.schedule
        if not await self._until_due():
            return
        # From here on `retry_in` is None: the dial is under way.
        schedule.due = None
        failure: Failure | None = None
        with anyio.CancelScope() as lifecycle.dial:
            # Before a slot is taken, and without the dial's timeout: a person may have to log in for it.
            failure = await lifecycle.renewal.run(self._classify)
            if failure is None:
                # After the renewal: whoever waits for a login must not hold a slot that others could dial with.
                failure = await self._dials.dial(self._origin, self._route, self._open)
        lifecycle.dial = None
        # Closed, or ready: what the dial says has no consequences any more.
        if lifecycle.state in DIALLING and failure is not None:
            self._failed(failure)

    async def _until_due(self) -> bool:
        """Wait until the next dial is due. False if there is something else to do by then."""
        lifecycle, schedule = self._lifecycle, self._lifecycle.schedule
        state = lifecycle.state
        schedule.set_due()
        # A loop, because calls that begin to wait, or another connection to the same host, may bring the dial forward.
        while schedule.due is not None:
            due = schedule.due_for_waiters(lifecycle.last_failure, waiting=lifecycle.gate.waiting > 0)
            if due <= self._clock.now():
                break
            await lifecycle.wake.wait(due)
            if lifecycle.state is not state:
                return False
        return True

    def _failed(self, failure: Failure) -> None:
        """Apply a dial's failure: another dial, or the end of this series."""
        lifecycle, schedule = self._lifecycle, self._lifecycle.schedule
        if self._dialer.spent:
            # Counted only now: an attempt that ends in a renewal of credentials is no failure of the server.
            schedule.dial_failed()
            lifecycle.give_up(failure, forever=True)
            return
        event = decide_dial(
            failure,
            attempts=schedule.attempts + 1,
            elapsed=self._clock.now() - schedule.series.began,
            worked=lifecycle.epoch > 0,
            half_open=schedule.series.half_open,
            refreshable=lifecycle.renewal.possible(lifecycle.session),
            patience=self._policy.patience,
            min_attempts=self._policy.min_attempts,
        )
        if failure.kind is FailureKind.AUTH and event is not Event.GIVE_UP:
            # The next dial has other credentials: it is not the same attempt once more.
            lifecycle.renewal.refusal = failure
            lifecycle.fire(event, failure)
            return
        schedule.dial_failed()
        if event is Event.GIVE_UP:
            lifecycle.give_up(failure)
            return
        schedule.set_due(failure.retry_after)
        if schedule.due is not None:
            # Before anybody is told when the next dial is.
            schedule.due_for_waiters(failure, waiting=lifecycle.gate.waiting > 0)
        lifecycle.fire(event, failure)

    async def _open(self, slot: Slot) -> Failure | None:
        """Open a session. None: the connection is ready."""
        assert self._errands.group is not None
        session = Session()
        limit = self._dialer.patience or self._policy.connect_timeout
        if limit > self._policy.connect_timeout:
            self._errands.spawn(partial(self._make_room, slot))
        # The session is named in the callback, because a late report must not be taken for one about its successor.
        opening = self._dialer.open(lambda evidence: self._idle_failure(session, evidence))
        try:
            with anyio.fail_after(limit):
                # In a task of its own: the SDK's transports raise into the group they run in, and would cancel whoever
                # dials.
                await self._errands.group.start(self._hold, session, opening)
        except Exception as error:
            return self._failure_of(error, limit)
        return self._opened(session)

    async def _make_room(self, slot: Slot) -> None:
        """A first start may take minutes. Eight that hang must not keep a ninth server of the same command waiting."""
        await anyio.sleep(self._policy.connect_timeout)
        slot.release()

    def _failure_of(self, error: Exception, limit: float) -> Failure:
        # The dialer attaches what the wire saw. Anything else is a local exception, and classified as one.
        evidence = getattr(error, "evidence", None)
        if isinstance(evidence, Evidence):
            return self._classify(evidence)
        failure = self._classify(Evidence(exception=error, phase="dial"))
        if failure.kind is FailureKind.TIMEOUT:
            words = self._dialer.last_words
            said = f"; on stderr: {words}" if words else ""
            return replace(failure, summary=f"no handshake within {limit:g} s{said}")
        return failure

    def _opened(self, session: Session) -> Failure | None:
        """The handshake succeeded. None: the connection is ready, or was closed in that very moment."""
        lifecycle, link = self._lifecycle, session.link
        assert link is not None
        if lifecycle.state not in DIALLING:
            session.abandon()
            return None
        # It ended between its handshake and this line. Established, it would be lost again at once.
        if link.ended is not None:
            session.abandon()
            return self._classify(Evidence(exception=link.ended, phase="idle"))
        session.keepalive = upkeep.keepalive(link, self._policy, self._clock.rng)
        # Only a server that had refused is news to the others; a first dial says nothing of an outage.
        returned = lifecycle.schedule.established()
        lifecycle.establish(session)
        if returned:
            self._dials.server_returned(self._origin)
        if lifecycle.probe.unproven:
            self._errands.spawn(partial(lifecycle.probe.learn, session))
        self._errands.spawn(partial(self._carried.beside_calls, session))
        if link.doubt is not None:
            # It arose during the handshake, when there was no session yet to report it for.
            lifecycle.report(lifecycle.epoch, self._classify(link.doubt))
        return None

    async def end_sessions(self, closing_by: float) -> None:
        """Let calls in flight finish until `closing_by`, and return when every session has ended."""
        with anyio.CancelScope(shield=True):
            sessions = tuple(self.sessions)
            for session in sessions:
                session.retire()
            with anyio.CancelScope(deadline=closing_by):
                for session in sessions:
                    await session.drained.wait()
            for session in sessions:
                session.abandon()
            ending = max((session.link.ending for session in sessions if session.link is not None), default=0.0)
            with anyio.CancelScope(deadline=max(closing_by, self._clock.now() + ending)):
                for session in sessions:
                    await session.gone.wait()

    async def aclose(self) -> None:
        """Close what sessions shared, in a second at most, even if the host cancels."""
        # Bounded, since it may wait for sockets. One second is what closing idle sockets may take.
        with anyio.CancelScope(shield=True), anyio.move_on_after(1):
            await self._dialer.aclose()

    # -- the session's own task

    async def _hold(
        self, session: Session, opening: AbstractAsyncContextManager[Link], *, task_status: TaskStatus[Session]
    ) -> None:
        self.sessions.add(session)
        try:
            await session.hold(opening, self._broke, self._carried.before_calls, task_status=task_status)
        finally:
            self.sessions.discard(session)

    def _idle_failure(self, session: Session, evidence: Evidence) -> None:
        """The wire noticed something on a session while no call was there to fail."""
        # A session that was given up may still report its end: that is not news.
        if session is self._lifecycle.session:
            self._lifecycle.report(session.epoch, self._classify(evidence))

    def _broke(self, session: Session, error: Exception) -> None:
        """The task that held a session has ended. Whatever the error says: that session is gone."""
        if session is self._lifecycle.session and self._lifecycle.state is State.READY:
            failure = self._classify(Evidence(exception=error, from_wire=False, phase="idle"))
            lost = replace(failure, kind=FailureKind.TRANSPORT_LOST, proof=True)
            self._lifecycle.lose(session, Event.LOST, lost)
