"""The one task that owns a connection's life: it dials, probes, retires, and waits on events. It never polls."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import anyio

from mcpconn.core.decide import decide_dial
from mcpconn.core.failures import Evidence, Failure, FailureKind
from mcpconn.core.states import Event, State
from mcpconn.policy import Policy
from mcpconn.runtime import upkeep
from mcpconn.runtime.clock import Clock
from mcpconn.runtime.dials import Dials, Slot
from mcpconn.runtime.journal import Journal
from mcpconn.runtime.lifecycle import Lifecycle
from mcpconn.runtime.protocols import Dialer, Link, Renewable
from mcpconn.runtime.session import Session

REPLICA_PROBES = 4
"""Probes that must be refused, where replicas seem not to share their sessions. With two of them, a session that
one knows is given up by mistake at every sixteenth suspicion."""
DIALLING = (State.CONNECTING, State.RECONNECTING)


class Supervisor(Lifecycle):
    """Owns one connection: its dials, its sessions, their end."""

    def __init__(
        self,
        name: str,
        dialer: Dialer,
        policy: Policy,
        *,
        classify: Callable[[Evidence], Failure],
        clock: Clock,
        journal: Journal,
        dials: Dials,
        origin: str = "",
        lazy: bool = False,
        credentials: Renewable | None = None,
        tools: Callable[[], Sequence[Any]] = tuple,
        prepare: Callable[[Link], Awaitable[None]] | None = None,
        established: Callable[[Session], Coroutine[Any, Any, None]] | None = None,
    ) -> None:
        """
        Args:
            name: What the connection is called.
            dialer: Opens its sessions.
            policy: Its numbers.
            classify: From evidence to failure, with the user's rules.
            clock: Time and randomness.
            journal: Told of every transition.
            dials: What the connections of a manager know of each other's dials.
            origin: Host and port of the server; connections to the same one have its troubles in common.
            lazy: Wait for the first call before dialling.
            credentials: Renewed once when a session or dial is refused for them.
            tools: What is known of the server's tools, for a new session.
            prepare: Brings a new session into the state of the last one, before calls are let through.
            established: Run beside the first calls of each session.
        """
        super().__init__(
            name, policy, classify=classify, clock=clock, journal=journal, lazy=lazy, credentials=credentials
        )
        self._dialer = dialer
        self._dials = dials
        self._origin = origin
        self._tools = tools
        self._prepare = prepare
        self._established = established
        self._sessions: set[Session] = set()
        self._away = False
        """A dial has failed since the last session."""
        self._errands: set[anyio.CancelScope] = set()

    def spawn(self, task: Callable[[], Coroutine[Any, Any, None]]) -> bool:
        """Run `task` beside the connection, for no longer than it lives. False where it does not live.

        An exception that it raises is logged: what runs beside a connection must not be its end.
        """
        if self._group is None or self.state is State.CLOSED:
            return False
        self._group.start_soon(self._beside, task)
        return True

    async def _beside(self, task: Callable[[], Coroutine[Any, Any, None]]) -> None:
        with anyio.CancelScope() as scope:
            self._errands.add(scope)
            try:
                await task()
            except Exception as error:
                self._journal.report("errand", error)
            finally:
                self._errands.discard(scope)

    # -- the task

    async def run(self) -> None:
        """Own the connection until it is closed."""
        self.since = self._clock.now()
        # Joined for the whole life: news of the server is of use in every state in which a dial is scheduled.
        leave = self._dials.join(self._origin, self._server_returned)
        try:
            # Sessions, probes and listings are children of this group, so none outlives the connection.
            async with anyio.create_task_group() as self._group:
                try:
                    while self.state is not State.CLOSED:
                        if self.state in DIALLING:
                            await self._dial()
                        else:
                            await self._rest()
                finally:
                    if self.state is not State.CLOSED:
                        self.close()
                    # Before the group is cancelled: calls in flight get the drain timeout.
                    await self._wind_up()
                    self._group.cancel_scope.cancel()
        finally:
            leave()
            self._group = None
            # Shielded, since this also runs when the host cancels; bounded, since it may wait for sockets. One second
            # is what closing idle sockets may take.
            with anyio.CancelScope(shield=True), anyio.move_on_after(1):
                await self._dialer.aclose()

    @property
    def progress(self) -> str | None:
        """What a server that is being started is doing; None if none is."""
        return self._dialer.progress

    async def _wind_up(self) -> None:
        # Callers get time to finish; what runs beside them, the catalogue's listings, is of use to nobody now.
        for errand in tuple(self._errands):
            errand.cancel()
        with anyio.CancelScope(shield=True):
            sessions = tuple(self._sessions)
            for session in sessions:
                session.retire()
            with anyio.CancelScope(deadline=self._closing_by):
                for session in sessions:
                    await session.drained.wait()
            for session in sessions:
                session.abandon()
            ending = max((session.link.ending for session in sessions if session.link is not None), default=0.0)
            with anyio.CancelScope(deadline=max(self._closing_by, self._clock.now() + ending)):
                for session in sessions:
                    await session.gone.wait()

    async def _rest(self) -> None:
        """Wait for something to do in a state that is not dialling; do it."""
        if self.state is State.IDLE and (not self.lazy or self.gate.waiting):
            self.schedule.began = self._clock.now()
            self.fire(Event.CONNECT)
            return
        # The only wait of a connection that has nothing to do. `_wake` ends it early; nothing is polled.
        await self._sleep_until(self._alarm())
        now = self._clock.now()
        if self.state is State.FAILED and self.schedule.due is not None and now >= self.schedule.due:
            # One probe dial: if it fails, the connection is `failed` again at once (see `decide_dial`).
            self._half_open = True
            self.schedule.reset(keep_cool_down=True)
            self.renewal.reset()
            self.fire(Event.RETRY)
        elif self.state is State.READY and self.session is not None:
            if self.probe.overdue(self.session):
                self._start_probe(self.session)
            self._upkeep(self.session, now)

    def _alarm(self) -> float:
        if self.state is State.FAILED and self.schedule.due is not None:
            return self.schedule.due
        if self.state is State.READY and self.session is not None:
            alarm = upkeep.alarm(self.session, self._policy, self._clock.now())
            return alarm if self.probe.due is None else min(alarm, self.probe.due)
        return math.inf

    def _upkeep(self, session: Session, now: float) -> None:
        task = upkeep.due(session, self._policy, now)
        if task is upkeep.Task.REPLACE:
            # The next session is opened while the calls in flight finish on this one.
            self.schedule.reset()
            self._recycle()
            # A listener that was told of it may have closed the connection.
            if not self.lazy and self.state is State.IDLE:
                self.fire(Event.CONNECT)
        elif task is upkeep.Task.REST:
            self.lazy = True
            self._recycle()
        elif task is upkeep.Task.PROBE:
            session.probed_at = now
            session.keepalive = self._keepalive(session)
            # One that is under way already, because something smelled, will tell as well.
            if not self.probe.under_way:
                self._start_probe(session, keepalive=True)

    def _keepalive(self, session: Session) -> float | None:
        assert session.link is not None
        forgettable = session.link.forgettable
        return upkeep.keepalive(self._policy, forgettable=forgettable, chance=self._clock.rng.random)

    async def _sleep_until(self, deadline: float) -> None:
        with anyio.CancelScope(deadline=deadline):
            await self._wake.wait()
        # Replaced and not cleared: an anyio event is set once. Whoever sets the old one meanwhile has been seen by this
        # turn.
        if self._wake.is_set():
            self._wake = anyio.Event()

    # -- dialling

    async def _dial(self) -> None:
        state = self.state
        if not self._half_open:
            self.schedule.set_due()
        # A loop, because calls that begin to wait, or another connection to the same host, may bring the dial forward.
        while self.schedule.due is not None:
            due = self.schedule.due_for_waiters(self.last_failure, waiting=self.gate.waiting > 0)
            if due <= self._clock.now():
                break
            await self._sleep_until(due)
            if self.state is not state:
                return
        # From here on `retry_in` is None: the dial is under way.
        self.schedule.due = None
        failure: Failure | None = None
        with anyio.CancelScope() as self._dial_scope:
            # Before a slot is taken, and without the dial's timeout: a person may have to log in for it.
            failure = await self.renewal.run(self._classify)
            if failure is None:
                # After the renewal: whoever waits for a login must not hold a slot that others could dial with.
                async with self._dials.take(self._origin) as slot:
                    failure = await self._attempt(slot)
        self._dial_scope = None
        # Closed, or ready: what the dial says has no consequences any more.
        if self.state not in DIALLING or failure is None:
            return
        if self._dialer.spent:
            self._away = True
            # Counted only now: an attempt that ends in a renewal of credentials is no failure of the server.
            self.schedule.attempts += 1
            self._give_up(failure, forever=True)
            return
        event = decide_dial(
            failure,
            attempts=self.schedule.attempts + 1,
            elapsed=self._clock.now() - self.schedule.began,
            worked=self.epoch > 0,
            half_open=self._half_open,
            refreshable=self.refreshable,
            patience=self._policy.patience,
            min_attempts=self._policy.min_attempts,
        )
        if failure.kind is FailureKind.AUTH and event is not Event.GIVE_UP:
            # The next dial has other credentials: it is not the same attempt once more.
            self.renewal.refusal = failure
            self.fire(event, failure)
            return
        self._away = True
        self.schedule.attempts += 1
        if event is Event.GIVE_UP:
            self._give_up(failure)
        else:
            self.schedule.set_due(failure.retry_after)
            if self.schedule.due is not None:
                # Before anybody is told when the next dial is.
                self.schedule.due_for_waiters(failure, waiting=self.gate.waiting > 0)
            self.fire(event, failure)

    async def _attempt(self, slot: Slot) -> Failure | None:
        """One dial. None: the connection is ready."""
        assert self._group is not None
        session = Session()
        limit = self._dialer.patience or self._policy.connect_timeout
        if limit > self._policy.connect_timeout:
            self.spawn(partial(self._make_room, slot))
        # The session is named in the callback, because a late report must not be taken for one about its successor.
        opening = self._dialer.open(lambda evidence: self._idle_failure(session, evidence))
        try:
            with anyio.fail_after(limit):
                # In a task of its own: the SDK's transports raise into the group they run in, and would cancel whoever
                # dials.
                await self._group.start(self._hold, session, opening)
        except Exception as error:
            return self._dial_failure(error, limit)
        assert session.link is not None
        if self.state not in DIALLING:
            # Closed in the very moment in which the dial succeeded.
            session.abandon()
            return None
        # It ended between its handshake and this line. Established, it would be lost again at once.
        if session.link.ended is not None:
            session.abandon()
            return self._classify(Evidence(exception=session.link.ended, phase="idle"))
        now = self._clock.now()
        # Everything up to `fire` is synchronous, so no call can meet a session that is half set up.
        self.epoch += 1
        session.epoch, session.established_at, session.last_used = self.epoch, now, now
        session.keepalive = self._keepalive(session)
        # Before the gate opens: in the modern era the first call may need headers that only a listing names.
        session.link.restore_tools(self._tools())
        self.session = session
        self._half_open = False
        # Only a server that had refused is news to the others; a first dial says nothing of an outage.
        away, self._away = self._away, False
        self.fire(Event.ESTABLISHED)
        if away:
            self._dials.server_returned(self._origin)
        if self.probe.unproven:
            self.spawn(partial(self.probe.learn, session))
        if self._established is not None:
            self.spawn(partial(self._established, session))
        if session.link.doubt is not None:
            # It arose during the handshake, when there was no session yet to report it for.
            self.report(self.epoch, self._classify(session.link.doubt))
        return None

    async def _make_room(self, slot: Slot) -> None:
        """A first start may take minutes. Eight that hang must not keep a ninth server of the same command waiting."""
        await anyio.sleep(self._policy.connect_timeout)
        slot.release()

    def _dial_failure(self, error: Exception, limit: float) -> Failure:
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

    async def _hold(self, session: Session, opening: Any, *, task_status: Any) -> None:
        self._sessions.add(session)
        try:
            await session.hold(opening, self._broke, self._prepare or _nothing, task_status=task_status)
        finally:
            self._sessions.discard(session)

    def _idle_failure(self, session: Session, evidence: Evidence) -> None:
        """The wire noticed something on a session while no call was there to fail."""
        # A session that was given up may still report its end: that is not news.
        if session is self.session:
            self.report(session.epoch, self._classify(evidence))

    def _broke(self, session: Session, error: Exception) -> None:
        """The task that held a session has ended. Whatever the error says: that session is gone."""
        if session is self.session and self.state is State.READY:
            failure = self._classify(Evidence(exception=error, from_wire=False, phase="idle"))
            self._lose(session, Event.LOST, replace(failure, kind=FailureKind.TRANSPORT_LOST, proof=True))

    # -- probing

    def _start_probe(self, session: Session, *, keepalive: bool = False) -> None:
        assert self._group is not None
        # Marked as under way before the event is fired, because a listener may report another failure from within.
        cause = self.probe.begin(keepalive=keepalive)
        if not keepalive:
            self.fire(Event.SUSPECTED, cause)
        self._group.start_soon(self._probe, session)

    async def _probe(self, session: Session) -> None:
        """Ask the server whether the session lives; the answer turns suspicion into proof, or ends it."""
        verdict = await self.probe.ask(
            session,
            refreshable=lambda: self.renewal.possible(session),
            tries=REPLICA_PROBES if self.schedule.replicas_suspected else 1,
        )
        # The session may have been given up meanwhile. Then its probe was ended with it.
        if session is self.session and self.state is State.READY:
            if verdict is None:
                self.probe.end()
            else:
                self._lose(session, *verdict)


async def _nothing(link: Link) -> None:
    """A first session has no predecessor to be brought in line with."""
