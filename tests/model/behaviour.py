"""What follows from what in the model of one connection and its callers: see `tests.model.model`.

Every method takes a world and returns the next one. The events and the decisions come from the real core.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace

from mcpconn.core import decide, decide_dial, decide_probe, may_replay
from mcpconn.core.backoff import ReplayBudget
from mcpconn.core.classify import classify
from mcpconn.core.decide import (
    PATIENCE,
    confirmed,
    decide_loss,
    is_lost_session,
    is_plain,
    is_refusal,
    needs_person,
    refused,
)
from mcpconn.core.failures import Delivery, Failure, FailureKind
from mcpconn.core.machine import IllegalTransition
from mcpconn.core.states import TRANSITIONS, Event, State, Transition
from tests.model.worlds import FAULTS, Caller, Luck, Outcome, Phase, World

MIN_ATTEMPTS = 2
"""Fewer than the default: a search takes longer with each, and learns nothing new."""
ANSWERS = frozenset(
    {
        FailureKind.APPLICATION,
        FailureKind.PROTOCOL,
        FailureKind.CONFIG,
        FailureKind.AUTH,
        FailureKind.SESSION_EXPIRED,
    }
)
"""Kinds of failure that are an answer: what it means may depend on what became of the session."""


class Behaviour:
    """What a connection and its callers do. Every method is a place for a mistake."""

    def __init__(
        self,
        *,
        safe: Iterable[bool] = (False, True),
        budget: int = 1,
        renewals: int = 0,
        table: Iterable[Transition] = TRANSITIONS,
        decide: Callable[..., Event | None] = decide,
        decide_probe: Callable[..., Event | None] = decide_probe,
        decide_dial: Callable[..., Event] = decide_dial,
        decide_loss: Callable[..., Event] = decide_loss,
        confirmed: Callable[[Failure, Failure | None], Failure] = confirmed,
        may_replay: Callable[..., bool] = may_replay,
    ) -> None:
        """
        Args:
            safe: One caller for each; whether running its call twice is harmless.
            budget: Replays of unknown outcome that can be afforded.
            renewals: Times that the credentials can be renewed.
            table: The rows of the machine.
            decide: As `mcpconn.core.decide`, and so are the others.
            decide_probe: Says what follows from a failed probe.
            decide_dial: Says what follows from a failed dial.
            decide_loss: Says what follows from a lost session.
            confirmed: Says what a call's failure is when it is known what became of its session.
            may_replay: Says whether a call may be retried.
        """
        self.start = World(tuple(Caller(each) for each in safe), budget, renewals)
        self.renewable = renewals > 0
        self.table = {(row.source, row.event): row.target for row in table}
        self.decide, self.decide_probe, self.decide_dial = decide, decide_probe, decide_dial
        self.decide_loss, self.confirmed, self.may_replay = decide_loss, confirmed, may_replay
        self.failures = {words: classify(fault.evidence) for words, fault in FAULTS.items()}

    # -- the connection

    def fire(self, world: World, event: Event) -> World:
        """The table says where `event` leads; the gate follows."""
        target = self.table.get((world.state, event))
        if target is None:
            raise IllegalTransition(world.state, event)
        left = world.state is State.READY and target is not State.READY
        ends = world.ends + (left or event is Event.LOST)
        if target is State.READY:
            return self.let_through(world._replace(state=target, ends=ends, gate="open"))
        if target in (State.FAILED, State.CLOSED):
            return self.turn_away(world._replace(state=target, ends=ends, gate="refusing"))
        return world._replace(state=target, ends=ends, gate="closed")

    def let_through(self, world: World) -> World:
        """The gate opens: those who wait may go."""
        return world._replace(
            callers=tuple(c._replace(phase="granted") if c.phase == "waiting" else c for c in world.callers)
        )

    def turn_away(self, world: World) -> World:
        """The gate refuses: those who wait for it are told so at once."""
        for i, caller in enumerate(world.callers):
            if caller.phase == "waiting":
                world = self.end(world, i, "unknown" if caller.doubt else "not run")
        return world

    def is_current(self, world: World, epoch: int) -> bool:
        """Whether the session of `epoch` is the one that takes calls."""
        return epoch == world.epoch and epoch in world.accepting

    def establish(self, world: World) -> World:
        """A dial succeeded: there is a new session."""
        epoch = world.epoch + 1
        accepting = (*world.accepting, epoch)
        world = world._replace(epoch=epoch, accepting=accepting, half_open=False, attempts=0, ends=0)
        return self.fire(world, Event.ESTABLISHED)

    def dial_fails(self, world: World, failure: Failure, elapsed: float) -> World:
        """A dial failed."""
        refreshable = world.renewals > 0
        world = world._replace(attempts=min(world.attempts + 1, MIN_ATTEMPTS))
        event = self.decide_dial(
            failure,
            attempts=world.attempts,
            elapsed=elapsed,
            worked=world.epoch > 0,
            half_open=world.half_open,
            refreshable=refreshable,
            min_attempts=MIN_ATTEMPTS,
        )
        if event is Event.GIVE_UP:
            return self.give_up(world, failure)
        return self.fire(self.renew(world, failure), event)

    def give_up(self, world: World, failure: Failure) -> World:
        """The connection failed."""
        person = needs_person(failure, worked=world.epoch > 0)
        return self.fire(world._replace(half_open=False, person=person), Event.GIVE_UP)

    def renew(self, world: World, failure: Failure) -> World:
        """Credentials that were refused are renewed before the next dial."""
        spent = failure.kind is FailureKind.AUTH and world.renewals > 0
        return world._replace(renewals=world.renewals - spent)

    def report(self, world: World, epoch: int, failure: Failure, words: str, luck: Luck) -> World:
        """A failure on the session of `epoch` is told to the connection. A stale one changes nothing."""
        if not self.is_current(world, epoch):
            return world
        if FAULTS[words].doubted:
            failure = replace(failure, proof=False)
        event = self.decide(
            world.state, failure, refreshable=world.renewals > 0, errors_in_a_row=2 if luck.again else 1
        )
        if event is Event.SUSPECTED:
            return self.suspect(world, luck)
        return world if event is None else self.lose(world, event, failure, words, luck)

    def suspect(self, world: World, luck: Luck) -> World:
        """A probe is started, if none is in progress, and unless it has to wait."""
        if world.probes or world.deferred:
            return world
        return world._replace(deferred=True) if luck.waits else self.begin_probe(world)

    def begin_probe(self, world: World) -> World:
        """The server is asked."""
        return self.fire(world._replace(probes=world.probes + 1, deferred=False), Event.SUSPECTED)

    def probe_answered(self, world: World, epoch: int) -> World:
        """The session of `epoch` lives."""
        if not self.is_current(world, epoch):
            return world
        return self.settle(world._replace(probes=0), "")

    def probe_fails(self, world: World, epoch: int, words: str, luck: Luck) -> World:
        """A probe of the session of `epoch` failed."""
        if not self.is_current(world, epoch):
            return world
        failure = self.failures[words]
        event = self.decide_probe(failure, refreshable=world.renewals > 0, proven=not luck.spent)
        if event is None:
            return self.probe_answered(world, epoch)
        return self.lose(world, event, failure, words, luck)

    def lose(self, world: World, event: Event, failure: Failure, words: str, luck: Luck) -> World:
        """The present session is over, for a reason."""
        world = self.retire(world)
        if event is Event.LOST:
            useless, elapsed = (MIN_ATTEMPTS, PATIENCE) if luck.spent else (0, 0.0)
            event = self.decide_loss(failure, useless=useless, elapsed=elapsed, min_attempts=MIN_ATTEMPTS)
        world = self.give_up(world, failure) if event is Event.GIVE_UP else self.fire(self.renew(world, failure), event)
        return self.settle(world, words)

    def recycle(self, world: World) -> World:
        """The present session is over, without a reason."""
        return self.settle(self.fire(self.retire(world), Event.RECYCLE), "")

    def close(self, world: World) -> World:
        """The connection ends."""
        return self.settle(self.fire(self.retire(world), Event.CLOSE), "")

    def retire(self, world: World) -> World:
        """The present session takes no more calls; those in flight on it go on."""
        return world._replace(accepting=(), probes=0, deferred=False)

    # -- the callers

    def change(self, world: World, i: int, caller: Caller) -> World:
        """`world` with that caller."""
        return world._replace(callers=(*world.callers[:i], caller, *world.callers[i + 1 :]))

    def end(self, world: World, i: int, outcome: Outcome) -> World:
        """The caller is told."""
        caller = world.callers[i]._replace(phase="over", written=False, fault="", outcome=outcome)
        return self.change(world, i, caller)

    def ask(self, world: World, i: int) -> World:
        """The call comes to the gate."""
        caller = world.callers[i]
        if world.gate == "refusing":
            return self.end(world, i, "unknown" if caller.doubt else "not run")
        phase: Phase = "granted" if world.gate == "open" else "waiting"
        return self.change(world, i, caller._replace(phase=phase, written=False, fault=""))

    def issue(self, world: World, i: int) -> World:
        """A call that was let through is issued, if the session is still there; else it waits again."""
        if not world.accepting:
            return self.ask(world, i)
        return self.change(world, i, world.callers[i]._replace(phase="in flight", epoch=world.accepting[-1]))

    def fail(self, world: World, i: int, words: str, luck: Luck) -> World:
        """The attempt in flight met a fault."""
        failure, caller = self.failures[words], world.callers[i]
        world = self.change(world, i, caller._replace(ran=caller.ran or FAULTS[words].ran))
        if failure.kind is FailureKind.CANCELLED:
            return self.end(world, i, "error")
        plain = is_plain(failure, errors_in_a_row=2 if luck.again else 1)
        before, world = world, self.report(world, caller.epoch, failure, words, luck)
        if failure.kind is FailureKind.APPLICATION and plain:
            return self.end(world, i, "error")
        if failure.kind not in ANSWERS or is_lost_session(failure):
            return self.again(world, i, failure)
        world = self.change(world, i, world.callers[i]._replace(phase="confirming", fault=words, written=False))
        if not self.is_current(world, caller.epoch):
            # With no probe in progress the session is over already, and nobody will say more about it.
            return self.confirm(world, i, words if self.is_current(before, caller.epoch) else luck.lost)
        waits = world.probes or (world.deferred and is_refusal(failure))
        return world if waits else self.confirm(world, i, "")

    def settle(self, world: World, words: str) -> World:
        """The session is over, or was found to live: those who waited for the probe go on."""
        for i, caller in enumerate(world.callers):
            if caller.phase == "confirming":
                world = self.confirm(world, i, words)
        return world

    def confirm(self, world: World, i: int, words: str) -> World:
        """It is known what became of a call's session, and so what the call was told.

        Without words the session lives, or nobody called it lost: the answer was the call's own.
        """
        failure = self.failures[world.callers[i].fault]
        lost = refused(self.failures[words]) if words else None
        failure = self.confirmed(failure, lost)
        answer = failure.kind is FailureKind.APPLICATION or failure.evidence.from_wire
        if lost is None and answer and failure.kind is not FailureKind.AUTH:
            return self.end(world, i, "error")
        return self.again(world, i, failure, lost=lost is not None)

    def again(self, world: World, i: int, failure: Failure, *, lost: bool = False) -> World:
        """The call is retried, or its caller is told."""
        caller = world.callers[i]
        unknown = failure.delivery is Delivery.UNKNOWN
        caller = caller._replace(doubt=caller.doubt or unknown)
        world = self.change(world, i, caller)
        allowed = self.may_replay(
            failure,
            safe=caller.safe,
            replays=caller.replays,
            lost=lost,
            refreshed=self.renewable and not self.is_current(world, caller.epoch),
            budget=world.budget,
        )
        if not allowed:
            return self.end(world, i, "unknown" if caller.doubt else "not run")
        if failure.delivery is not Delivery.NOT_SENT:
            caller = caller._replace(replays=self.count(caller), again=caller.again + 1)
            world = self.change(world, i, caller)
        if unknown:
            world = world._replace(budget=self.withdraw(world.budget))
        return self.ask(world, i)

    def count(self, caller: Caller) -> int:
        """The replays of a call that is retried."""
        return caller.replays + 1

    def withdraw(self, balance: float) -> float:
        """What is left of the budget after one replay."""
        budget = ReplayBudget(ratio=0, reserve=balance, maximum=balance)
        budget.withdraw()
        return budget.balance
