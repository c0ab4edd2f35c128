"""The state of a connection, and the immediate effects of every event.

Calls report failures here. When `report` returns, the state and the gate reflect the failure, and the task
(`supervisor`) has been woken to do the work that the new state requires. Failures and verdicts are applied without
waiting, so nothing can happen between one and its effects.

The machine's state is `cell`. The other data, and why the state cannot express it:

| data | reason |
| --- | --- |
| `epoch`, `session` | identifies the session: reports about an earlier one change nothing |
| `last_failure`, `since`, `since_wall` | for display and `status()` |
| `gate` | follows the state (`fire`), and counts calls |
| `schedule` | consecutive failures, the current series of dials, when the next dial is due |
| `probe` | whether a suspicion is being probed: the table has no separate state for that |
| `renewal` | whether credentials were refused and renewed, which spans several sessions |
| `dial`, `closing_by` | to interrupt a dial in progress, and to limit how long `close` waits |
"""

from __future__ import annotations

import math

import anyio

from mcpconn.core.decide import decide, is_plain, needs_person
from mcpconn.core.failures import Failure
from mcpconn.core.machine import Cell, fire
from mcpconn.core.states import Event, State
from mcpconn.runtime import refusals
from mcpconn.runtime.common import Common
from mcpconn.runtime.dial_schedule import DialSchedule
from mcpconn.runtime.errands import Errands
from mcpconn.runtime.gate import Gate
from mcpconn.runtime.journal import Change
from mcpconn.runtime.probe import Probe
from mcpconn.runtime.protocols import Renewable
from mcpconn.runtime.renewal import Renewal
from mcpconn.runtime.session import Session
from mcpconn.runtime.wake import Wake

REPLICA_PROBES = 4
"""Number of probes that must be refused if replicas seem not to share their sessions. With two replicas, a session that
one of them knows is given up by mistake at one of sixteen suspicions."""
DIALLING = (State.CONNECTING, State.RECONNECTING)
"""The states in which a session is being opened, or callers wait for one."""


class Lifecycle:
    """State, epoch, session and gate of one connection."""

    def __init__(self, common: Common, errands: Errands, *, credentials: Renewable | None = None) -> None:
        """
        Args:
            common: What all parts of the connection share.
            errands: Runs the probes.
            credentials: Renewed once when a session or dial is refused because of them.
        """
        policy, clock = common.policy, common.clock
        self.name = common.name
        self.cell = Cell()
        self.epoch = 0
        """Number of the current session, +1 with each `established`."""
        self.session: Session | None = None
        """The session on which calls are issued; None in every state except ready."""
        self.last_failure: Failure | None = None
        """The last failure that had an effect."""
        self.since = 0.0
        """When the current state was entered."""
        self.since_wall: float | None = None
        """The same, in seconds since 1970; None before the first transition."""
        self.wake = Wake()
        """Wakes the task when there is something to do."""
        self.gate = Gate(
            max_in_flight=policy.max_in_flight,
            max_waiting=policy.max_waiting,
            overloaded=lambda: refusals.overloaded(self),
            on_waiting=self.wake.set,
        )
        self.schedule = DialSchedule(policy, clock)
        self.probe = Probe(policy, clock, common.classify)
        self.renewal = Renewal(credentials, clock)
        """The renewal of refused credentials."""
        self.dial: anyio.CancelScope | None = None
        """The dial in progress, or the login before it."""
        self.closing_by = math.inf
        """After the connection is closed: the time until which calls in flight may finish."""
        self._policy = policy
        self._clock = clock
        self._journal = common.journal
        self._errands = errands
        self._changed: anyio.Event | None = None

    # -- what callers see

    @property
    def state(self) -> State:
        """The connection's state."""
        return self.cell.state

    def replaced(self, session: Session) -> bool:
        """Whether `session` was given up and another, with renewed credentials, exists or will be opened."""
        return self.renewal.credentials is not None and session is not self.session

    def now(self) -> float:
        """Seconds on the connection's clock."""
        return self._clock.now()

    @property
    def retry_in(self) -> float | None:
        """Seconds until the next scheduled dial; None if none is scheduled."""
        due = self.schedule.due
        return None if due is None else max(0.0, due - self._clock.now())

    def refuse(self, failure: Failure) -> None:
        """Go to `failed` before any dial, because the configuration is invalid."""
        if self.state is State.IDLE:
            self.since = self._clock.now()
            self.connect()
            self.give_up(failure)

    def report(self, epoch: int, failure: Failure) -> None:
        """Report a failure of a call, or one observed by the wire layer, on the session of `epoch`. Stale reports
        change nothing."""
        # A hundred calls that fail together make a hundred reports. The first one ends the epoch; the others stop here
        # and have no effect.
        if epoch != self.epoch or self.session is None:
            return
        session, errors = self.session, self.session.errors_in_a_row
        # If replicas do not share sessions, a refusal by one of them proves nothing about the session.
        failure = self.schedule.weaken(failure)
        if not is_plain(failure, errors_in_a_row=errors):
            session.suspected = True
        # The pure core makes the decision; the code below executes it.
        event = decide(self.state, failure, refreshable=self.renewal.likely(session), errors_in_a_row=errors)
        if event is Event.SUSPECTED:
            self._suspect(session, failure)
        elif event is not None:
            self.lose(session, event, failure)

    async def wait_for_probe(self, session: Session, *, deferred: bool = False) -> None:
        """Return when no probe of `session` is in progress.

        Args:
            session: A session, which may have been given up in the meantime.
            deferred: If the session is suspected and its probe has to wait, wait for that as well.
        """
        while self.session is session and (ended := self.probe.pending(deferred=deferred)) is not None:
            await ended.wait()

    async def changed(self) -> None:
        """Return at the next transition."""
        # Created only for waiters, because most transitions have none.
        changed = self._changed = self._changed or anyio.Event()
        await changed.wait()

    def reconnect(self) -> None:
        """Open a new session as soon as the task runs, without any wait.

        Calls in flight finish on the old one.
        """
        # A person requested it, so the backoff of earlier failures does not apply.
        self.schedule.reset()
        if self.state is State.READY:
            self.recycle()
        if self.state is State.IDLE:
            self.fire(Event.CONNECT)
        elif self.state is State.FAILED:
            self.renewal.reset()
            self.fire(Event.RETRY)
        self.wake.set()

    def credentials_changed(self) -> None:
        """Forget earlier refusals, which concerned the old credentials, and dial if the connection was waiting for new
        ones."""
        self.renewal.reset()
        if self.state is State.FAILED:
            self.reconnect()
        elif self.session is None:
            self.schedule.reset()
            if self.renewal.under_way and self.dial is not None:
                # A login is no longer needed.
                self.dial.cancel()
            self.wake.set()

    def server_returned(self) -> None:
        """Another connection has found that the server is back."""
        if self.schedule.server_returned(self.last_failure):
            self.wake.set()

    def close(self, *, drain: bool = True) -> None:
        """Close the connection. Waiting calls fail at once; calls in flight get the drain timeout.

        Args:
            drain: False: calls in flight get no time.
        """
        if self.state is State.CLOSED:
            return
        if self._errands.group is not None:
            self.closing_by = self._clock.now() + (self._policy.drain_timeout if drain else 0.0)
        # Release the calls that wait for the result of a probe.
        self.probe.end()
        if self.dial is not None:
            self.dial.cancel()
        self._errands.close()
        self.fire(Event.CLOSE)

    # -- transitions

    def fire(self, event: Event, failure: Failure | None = None) -> None:
        """Apply an event, and the immediate effects of the new state."""
        now = self._clock.now()
        source, since = self.state, self.since
        # This raises for an event that the table does not allow, before anything below happens.
        target = fire(self.cell, event)
        if failure is not None:
            self.last_failure = failure
        wall = self._clock.wall()
        if target is not source:
            self.since, self.since_wall = now, wall
        # The gate follows the state here and nowhere else, so the two cannot disagree.
        if target is State.READY:
            self.gate.open()
        elif target is State.FAILED:
            self.gate.refuse(lambda: refusals.failed(self))
        elif target is State.CLOSED:
            self.gate.refuse(lambda: refusals.closed(self))
        elif target is not source:
            self.gate.close()
        self.wake.set()
        if self._changed is not None:
            # Set after the gate, so that a task that waited for the transition sees its effects.
            self._changed.set()
            self._changed = None
        due = self.schedule.due
        # Listeners come last: they are the host's code, and may close the connection before this returns.
        elapsed = now - (self.schedule.series.began if event in (Event.ESTABLISHED, Event.GIVE_UP) else since)
        self._journal.add(
            Change(
                self.name,
                self.epoch,
                source,
                event,
                target,
                failure,
                wall,
                elapsed,
                self.schedule.attempts,
                None if due is None else max(0.0, due - now),
            )
        )

    def connect(self) -> None:
        """From `idle`: start a series of dials."""
        self.schedule.begin()
        self.fire(Event.CONNECT)

    def establish(self, session: Session) -> None:
        """A dial has succeeded: from now on, calls are issued on `session`."""
        now = self._clock.now()
        # Everything up to `fire` is synchronous, so no call can use a partially set up session.
        self.epoch += 1
        session.epoch, session.established_at, session.last_used = self.epoch, now, now
        self.session = session
        self.fire(Event.ESTABLISHED)

    def _suspect(self, session: Session, failure: Failure) -> None:
        if self._errands.group is None:
            return
        if self.probe.suspect(session, failure):
            self.start_probe(session)
        else:
            # The task has to wake up when the deferred probe is due.
            self.wake.set()

    def start_probe(self, session: Session, *, keepalive: bool = False) -> None:
        """Probe the session in the background.

        Args:
            session: The current session.
            keepalive: There is no suspicion.
        """
        assert self._errands.group is not None
        # Marked as in progress before the event is fired, because a listener may report another failure.
        cause = self.probe.begin(keepalive=keepalive)
        if not keepalive:
            self.fire(Event.SUSPECTED, cause)
        self._errands.group.start_soon(self._ask, session)

    async def _ask(self, session: Session) -> None:
        """Probe the session; the result turns the suspicion into proof, or dismisses it."""
        verdict = await self.probe.ask(
            session,
            refreshable=lambda: self.renewal.possible(session),
            tries=REPLICA_PROBES if self.schedule.replicas_suspected else 1,
        )
        # If the session was given up in the meantime, its probe ended with it.
        if session is self.session and self.state is State.READY:
            if verdict is None:
                self.probe.end()
            else:
                self.lose(session, *verdict)

    def lose(self, session: Session, event: Event, failure: Failure) -> None:
        """The current session has ended: by proof, or because only a person can fix the cause."""
        # Cleared first, because `retire` may end the session's transport, which reports its end, and a session must be
        # lost only once.
        self.session = None
        age = self._clock.now() - session.established_at
        # This also decides whether attempts are reset: only a useful session resets them.
        failure = self.schedule.lost(
            failure, proven=session.proven, age=age, served=session.answers > 0, tried=session.suspected
        )
        # Credentials that cannot be renewed are tried once more unchanged, because some servers refuse an unknown
        # session with 401.
        refusal = failure if self.renewal.possible(session) else None
        self.renewal.over(session, worked=age >= self._policy.proven_after, refusal=refusal)
        session.retire(lost=failure)
        self.probe.end()
        # Losing several useless sessions in a row counts as a failure: then give up.
        if event is Event.LOST:
            event = self.schedule.after_loss(failure)
        if event is Event.GIVE_UP:
            self.give_up(failure)
        else:
            self.fire(event, failure)

    def give_up(self, failure: Failure, *, forever: bool = False) -> None:
        """The connection has failed.

        Args:
            failure: Why.
            forever: The connection will not be tried again, regardless of the failure.
        """
        # The next dial starts without the refusal, because a person may have changed the credentials by then.
        self.renewal.refusal = None
        person = needs_person(failure, worked=self.epoch > 0)
        self.schedule.cool_down(forever=forever or person, floor=failure.retry_after)
        self.fire(Event.GIVE_UP, failure)

    def recycle(self) -> None:
        """Retire the current, working session; it ends after its calls have finished."""
        session, self.session = self.session, None
        if session is not None:
            age = self._clock.now() - session.established_at
            self.renewal.over(session, worked=age >= self._policy.proven_after)
            session.retire()
        self.probe.end()
        self.fire(Event.RECYCLE)
