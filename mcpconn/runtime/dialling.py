"""The dials of one connection: wait until one is due, renew credentials, take a slot, open a session."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from functools import partial
from typing import Protocol

import anyio
from anyio.abc import TaskStatus

from mcpconn.core.decide import decide_dial, needs_person
from mcpconn.core.failures import Evidence, Failure, FailureKind
from mcpconn.core.seen import forget_tracebacks
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
    """State that is carried from one session of a connection to the next."""

    async def before_calls(self, link: Link) -> None:
        """Restore the state of the last session in a new one, before calls are issued.

        Raises:
            Exception: the session is unusable. It counts as a failed dial.
        """

    async def beside_calls(self, session: Session) -> None:
        """Finish restoring, concurrently with the first calls. Exceptions that it raises are logged."""


class Dialling:
    """Opens one session after another, and runs each in its own task."""

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
            common: What all parts of the connection share.
            lifecycle: The connection's state.
            errands: Runs the sessions.
            dialer: Opens them.
            dials: Shared by the connections of a manager, to limit and coordinate dials.
            origin: Host and port of the server; connections to the same origin share its failures.
            route: The port and URL to which a refused dial applies; None: only to this connection.
            carried: State that is carried from session to session.
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
        """Sessions whose tasks have not ended: the current one, and earlier ones with calls in flight."""

    def join(self) -> Callable[[], None]:
        """Subscribe to the news that the server has returned, from other connections. Returns an unsubscribe
        function."""
        return self._dials.join(self._origin, self._lifecycle.server_returned)

    def keepalive(self, link: Link) -> float | None:
        """Seconds without use after which a session is probed; None: never."""
        return upkeep.keepalive(link, self._policy, self._clock.rng, self._dials.connections)

    async def run(self) -> None:
        """Make one dial when it is due, and apply its result."""
        lifecycle, schedule = self._lifecycle, self._lifecycle.schedule
        if not await self._until_due():
            return
        # From here on `retry_in` is None, because the dial is in progress.
        schedule.due = None
        failure: Failure | None = None
        with anyio.CancelScope() as lifecycle.dial:
            # Renewal happens before a slot is taken and outside the dial's timeout, because a person may have to log
            # in.
            failure = await lifecycle.renewal.run(self._classify)
            if failure is None:
                # The slot is taken after the renewal: a connection that waits for a login must not hold a slot that
                # others could use.
                failure = await self._dials.dial(self._origin, self._route, self._open)
        lifecycle.dial = None
        # The connection is closed, or ready: the result of the dial no longer matters.
        if lifecycle.state in DIALLING and failure is not None:
            self._failed(failure)

    async def _until_due(self) -> bool:
        """Wait until the next dial is due. False if there is other work before that."""
        lifecycle, schedule = self._lifecycle, self._lifecycle.schedule
        state = lifecycle.state
        schedule.set_due()
        # A loop, because waiting calls, or another connection to the same host, may make the dial due earlier.
        while schedule.due is not None:
            lifecycle.wake.clear()
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
            # Counted only here, because an attempt that leads to a renewal of credentials is not a failure of the
            # server.
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
            # The next dial uses other credentials, so it does not repeat the same attempt.
            lifecycle.renewal.refusal = failure
            lifecycle.fire(event, failure)
            return
        schedule.dial_failed()
        if event is Event.GIVE_UP:
            lifecycle.give_up(failure)
            return
        schedule.set_due(failure.retry_after)
        if schedule.due is not None:
            # Scheduled before listeners are told when the next dial is due.
            schedule.due_for_waiters(failure, waiting=lifecycle.gate.waiting > 0)
        lifecycle.fire(event, failure)

    async def _open(self, slot: Slot) -> Failure | None:
        """Open a session. None: the connection is ready."""
        assert self._errands.group is not None
        session = Session()
        limit = self._dialer.patience or self._policy.connect_timeout
        if limit > self._policy.connect_timeout:
            self._errands.spawn(partial(self._make_room, slot))
        # The callback is bound to this session, so that a late report is not applied to its successor.
        opening = self._dialer.open(lambda evidence: self._idle_failure(session, evidence))
        try:
            with anyio.move_on_after(limit) as timer:
                # The session runs in its own task, because the SDK's transports raise into the task group that they run
                # in, which would cancel the dialling task.
                await self._errands.group.start(self._hold, session, opening)
        except Exception as error:
            return self._failure_of(error, limit)
        if timer.cancelled_caught:
            return self._failure_of(TimeoutError(), limit)
        return self._opened(session)

    async def _make_room(self, slot: Slot) -> None:
        """A first start may take minutes. Eight hanging starts must not block a ninth server with the same command."""
        await anyio.sleep(self._policy.connect_timeout)
        slot.release()

    def _failure_of(self, error: Exception, limit: float) -> Failure:
        # The dialer attaches the evidence of the wire layer. Any other exception is classified as a local one.
        evidence = getattr(error, "evidence", None)
        if isinstance(evidence, Evidence):
            failure = self._classify(evidence)
            # Nothing reads it, and one of its frames holds the error: a cycle of everything that a failed dial made.
            error.__traceback__ = None
        else:
            failure = self._classify(Evidence(exception=error, phase="dial"))
            if failure.kind is FailureKind.TIMEOUT:
                words = self._dialer.last_words
                said = f"; on stderr: {words}" if words else ""
                failure = replace(failure, summary=f"no handshake within {limit:g} s{said}")
        if not needs_person(failure):
            # The journal keeps failures, and each would hold the frames of its dial, 25 KiB over HTTP. They do not say
            # why a server is away.
            forget_tracebacks(error, failure.evidence.exception)
        return failure

    def _opened(self, session: Session) -> Failure | None:
        """The handshake succeeded. Returns None if the connection is ready, or was closed at that moment."""
        lifecycle, link = self._lifecycle, session.link
        assert link is not None
        if lifecycle.state not in DIALLING:
            session.abandon()
            return None
        # The session ended between its handshake and this line. If it were established, it would be lost again at once.
        if link.ended is not None:
            session.abandon()
            return self._classify(Evidence(exception=link.ended, phase="idle"))
        session.keepalive = self.keepalive(link)
        # Others are notified only if the server had refused before; a first dial does not indicate the end of an
        # outage.
        returned = lifecycle.schedule.established()
        lifecycle.establish(session)
        if returned:
            self._dials.server_returned(self._origin)
        if lifecycle.probe.unproven:
            self._errands.spawn(partial(lifecycle.probe.learn, session))
        self._errands.spawn(partial(self._carried.beside_calls, session))
        if link.doubt is not None:
            # The suspicion arose during the handshake, when there was no session to report it for.
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
        """Close the resources that sessions shared, within one second, even if the host cancels."""
        # Bounded, because it may wait for sockets. One second is enough to close idle sockets.
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
        """The wire layer observed a failure on a session while no call was in flight."""
        # A session that was given up may still report its end; this is ignored.
        if session is self._lifecycle.session:
            self._lifecycle.report(session.epoch, self._classify(evidence))

    def _broke(self, session: Session, error: Exception) -> None:
        """The session's task has ended, so the session is lost, regardless of the error."""
        if session is self._lifecycle.session and self._lifecycle.state is State.READY:
            failure = self._classify(Evidence(exception=error, from_wire=False, phase="idle"))
            lost = replace(failure, kind=FailureKind.TRANSPORT_LOST, proof=True)
            self._lifecycle.lose(session, Event.LOST, lost)
