"""The synchronous half of a connection's owner: its state, and everything that follows from an event at once.

Calls report failures here. When `report` returns, the state says what followed, and the gate is closed or
open accordingly; the task (`supervisor`) then does the work that the new state asks for. Nothing in this
file waits, so nothing can come between a failure and its consequences.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable

import anyio
from anyio.abc import TaskGroup

from mcpconn.core.decide import decide, is_plain, needs_person
from mcpconn.core.failures import Evidence, Failure
from mcpconn.core.machine import Cell, fire
from mcpconn.core.states import Event, State
from mcpconn.policy import Policy
from mcpconn.runtime import refusals
from mcpconn.runtime.clock import Clock
from mcpconn.runtime.dial_schedule import DialSchedule
from mcpconn.runtime.gate import Gate
from mcpconn.runtime.journal import Change, Journal
from mcpconn.runtime.probe import Probe
from mcpconn.runtime.protocols import Renewable
from mcpconn.runtime.renewal import Renewal
from mcpconn.runtime.session import Session


class Lifecycle(ABC):
    """State, epoch, session and gate of one connection."""

    def __init__(
        self,
        name: str,
        policy: Policy,
        *,
        classify: Callable[[Evidence], Failure],
        clock: Clock,
        journal: Journal,
        lazy: bool,
        credentials: Renewable | None,
    ) -> None:
        self.name = name
        self.cell = Cell()
        self.epoch = 0
        """Number of the current session, +1 with each `established`."""
        self.session: Session | None = None
        """The session that calls are issued on; None in every state but ready."""
        self.last_failure: Failure | None = None
        """The last failure that had consequences."""
        self.since = 0.0
        """When the present state was entered."""
        self.since_wall: float | None = None
        """The same, in seconds since 1970; None before the first transition."""
        self.lazy = lazy
        """Dial when a call waits, not before."""
        self.gate = Gate(
            max_in_flight=policy.max_in_flight,
            max_waiting=policy.max_waiting,
            overloaded=lambda: refusals.overloaded(self),
            on_waiting=self._rouse,
        )
        self.schedule = DialSchedule(policy, clock)
        self.probe = Probe(policy, clock, classify)
        self._classify = classify
        self._policy = policy
        self._clock = clock
        self._journal = journal
        self.renewal = Renewal(credentials, clock)
        """Of the credentials, when they are refused."""
        self._half_open = False
        self._wake = anyio.Event()
        self._changed: anyio.Event | None = None
        self._dial_scope: anyio.CancelScope | None = None
        self._group: TaskGroup | None = None
        self._closing_by = math.inf

    @abstractmethod
    def _start_probe(self, session: Session, *, keepalive: bool = False) -> None:
        """Have the session asked whether it lives, beside everything else."""

    def _rouse(self) -> None:
        """Have the task look at what there is to do."""
        self._wake.set()

    # -- what callers see

    @property
    def state(self) -> State:
        """The connection's state."""
        return self.cell.state

    @property
    def refreshable(self) -> bool:
        """Whether a refusal, of a dial or of a probe, can be answered by renewing the credentials."""
        return self.renewal.possible(self.session)

    def replaced(self, session: Session) -> bool:
        """Whether `session` was given up and another, with renewed credentials, is or will be there."""
        return self.renewal.credentials is not None and session is not self.session

    def now(self) -> float:
        """Seconds on the connection's clock."""
        return self._clock.now()

    @property
    def retry_in(self) -> float | None:
        """Seconds until the next dial or probe that is scheduled; None where none is."""
        due = self.schedule.due
        return None if due is None else max(0.0, due - self._clock.now())

    def refuse(self, failure: Failure) -> None:
        """Go to `failed` before anything is dialled: the configuration cannot be used."""
        if self.state is State.IDLE:
            self.since = self.schedule.began = self._clock.now()
            self.fire(Event.CONNECT)
            self._give_up(failure)

    def report(self, epoch: int, failure: Failure) -> None:
        """A call failed, or the wire noticed something, on the session of `epoch`. Stale reports change nothing."""
        # A hundred calls that fail together report a hundred times. The first report ends the epoch; the others meet
        # this line and cause nothing.
        if epoch != self.epoch or self.session is None:
            return
        session, errors = self.session, self.session.errors_in_a_row
        # Where replicas share no sessions, a refusal by one of them proves nothing about the session.
        failure = self.schedule.weaken(failure)
        if not is_plain(failure, errors_in_a_row=errors):
            session.suspected = True
        # The decision is the core's, and pure. What follows here is its execution.
        event = decide(self.state, failure, refreshable=self.renewal.likely(session), errors_in_a_row=errors)
        if event is Event.SUSPECTED:
            self._suspect(session, failure)
        elif event is not None:
            self._lose(session, event, failure)

    async def wait_for_probe(self, session: Session, *, deferred: bool = False) -> None:
        """Return when no probe of `session` is under way.

        Args:
            session: A session, which may have been given up meanwhile.
            deferred: If it is suspected, and its probe has to wait, wait for that, too.
        """
        while self.session is session and (ended := self.probe.pending(deferred=deferred)) is not None:
            await ended.wait()

    async def changed(self) -> None:
        """Return at the next transition."""
        # Made for those who wait: most transitions have no witness.
        changed = self._changed = self._changed or anyio.Event()
        await changed.wait()

    def reconnect(self) -> None:
        """Open a new session now: at the next look of the task, without any wait.

        Calls in flight finish on the old one.
        """
        # A person asked: no backoff of earlier failures stands in the way.
        self.schedule.reset()
        self._half_open = False
        if self.state is State.READY:
            self._recycle()
        if self.state is State.IDLE:
            self.fire(Event.CONNECT)
        elif self.state is State.FAILED:
            self.renewal.reset()
            self.fire(Event.RETRY)
        self._wake.set()

    def credentials_changed(self) -> None:
        """Forget earlier refusals, which were of the old credentials, and dial if they were what held it up."""
        self.renewal.reset()
        if self.state is State.FAILED:
            self.reconnect()
        elif self.session is None:
            self.schedule.reset()
            if self.renewal.under_way and self._dial_scope is not None:
                # Nobody has to log in any more.
                self._dial_scope.cancel()
            self._wake.set()

    def _server_returned(self) -> None:
        """Another connection has found that the server is back."""
        if self.schedule.server_returned(self.last_failure):
            self._wake.set()

    def close(self) -> None:
        """End the connection. Calls that wait fail at once; those in flight get the drain timeout."""
        if self.state is State.CLOSED:
            return
        self._closing_by = self._clock.now() + self._policy.drain_timeout if self._group is not None else math.inf
        # Whoever waits for what a probe says waits no longer.
        self.probe.end()
        if self._dial_scope is not None:
            self._dial_scope.cancel()
        self.fire(Event.CLOSE)

    # -- transitions

    def fire(self, event: Event, failure: Failure | None = None) -> None:
        """Apply an event, and everything that follows from the new state without waiting."""
        now = self._clock.now()
        source, since = self.state, self.since
        # Raises for an event that the table does not have, and then nothing below has happened.
        target = fire(self.cell, event)
        if failure is not None:
            self.last_failure = failure
        if target is not source:
            self.since, self.since_wall = now, self._clock.wall()
        # The gate follows the state here and nowhere else, so the two cannot disagree.
        if target is State.READY:
            self.gate.open()
        elif target is State.FAILED:
            self.gate.refuse(lambda: refusals.failed(self))
        elif target is State.CLOSED:
            self.gate.refuse(lambda: refusals.closed(self))
        elif target is not source:
            self.gate.close()
        self._wake.set()
        if self._changed is not None:
            # After the gate: whoever waited for the transition finds its consequences done.
            self._changed.set()
            self._changed = None
        # Last: a listener is host code, and may close the connection before this returns.
        elapsed = now - (self.schedule.began if event in (Event.ESTABLISHED, Event.GIVE_UP) else since)
        self._journal.add(
            Change(
                self.name,
                self.epoch,
                source,
                event,
                target,
                failure,
                self._clock.wall(),
                elapsed,
                self.schedule.attempts,
                self.retry_in,
            )
        )

    def _suspect(self, session: Session, failure: Failure) -> None:
        if self._group is None:
            return
        if self.probe.suspect(session, failure):
            self._start_probe(session)
        else:
            # The task has to look when the probe that waits is due.
            self._wake.set()

    def _lose(self, session: Session, event: Event, failure: Failure) -> None:
        """The present session is over: by proof, or because only a person can fix what is wrong."""
        # First: its transport, which `retire` may end, reports that end, and a session is lost once.
        self.session = None
        age = self._clock.now() - session.established_at
        # Decides, too, whether attempts are forgotten: only a session that was of use forgives them.
        failure = self.schedule.lost(
            failure, proven=session.proven, age=age, served=session.answers > 0, tried=session.suspected
        )
        # Renewable that cannot be renewed are tried once more as they are: a server may refuse a session so.
        refusal = failure if self.renewal.possible(session) else None
        self.renewal.over(session, worked=age >= self._policy.proven_after, refusal=refusal)
        session.retire(lost=failure)
        self.probe.end()
        # Losing one useless session after another is a failure of its own: then it is time to give up.
        if event is Event.LOST:
            event = self.schedule.after_loss(failure)
        if event is Event.GIVE_UP:
            self._give_up(failure)
        else:
            self.fire(event, failure)

    def _give_up(self, failure: Failure, *, forever: bool = False) -> None:
        self._half_open = False
        # The next dial starts without the refusal: a person may have changed the credentials by then.
        self.renewal.refusal = None
        person = needs_person(failure, worked=self.epoch > 0)
        self.schedule.cool_down(forever=forever or person, floor=failure.retry_after)
        self.fire(Event.GIVE_UP, failure)

    def _recycle(self) -> None:
        session, self.session = self.session, None
        if session is not None:
            age = self._clock.now() - session.established_at
            self.renewal.over(session, worked=age >= self._policy.proven_after)
            session.retire()
        self.probe.end()
        self.fire(Event.RECYCLE)
