"""A small model of one connection and its callers: table x attempts x callers x epochs.

It states what the runtime promises without its tasks, clocks and sockets: a `World` is a value, and
`Model.steps` lists everything that can happen next. Which event follows, where it leads and whether a call
may be made again is asked of the real `TRANSITIONS`, `decide`, `decide_probe`, `decide_dial` and `may_replay`,
which are arguments, so that wrong ones can be tried. `mcpconn.testing.search` goes through every world there
is, and `mcpconn.testing.invariants` says what must hold in each.

What cannot be known from inside is chosen freely: whether a dial succeeds, which fault meets a call, whether
patience is spent. Beside what a client knows, a world holds the truth: whether a request left, and whether the
server may have run it. One assumption: a tool does not use its server's own words for an unknown session at
the very moment at which the server forgets that session. Here its words are always others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

from mcpconn.core import decide, decide_dial, decide_probe, may_replay
from mcpconn.core.backoff import ReplayBudget
from mcpconn.core.classify import classify
from mcpconn.core.decide import PATIENCE, needs_person
from mcpconn.core.failures import Delivery, Failure, FailureKind
from mcpconn.core.machine import IllegalTransition
from mcpconn.core.states import TRANSITIONS, Event, State, Transition
from mcpconn.testing.worlds import FAULTS, OVER, Caller, Outcome, Phase, Step, World, name, session

__all__ = ["FAULTS", "Caller", "Model", "Outcome", "Phase", "Step", "World"]

MIN_ATTEMPTS = 2
"""Fewer than the default: a search takes longer with each, and learns nothing new."""
DIALLING = (State.CONNECTING, State.RECONNECTING)
DIAL_FAULTS = ("nobody listens at the server's port", "a web page", "401", "403")
PROBE_FAULTS = ("the server says 'expired session'", "the transport ends", "no answer in time", "401", "429")
SIGN = "the transport ends"
NO_ANSWER = "no answer in time"


class Model:
    """What can happen. Every method is a place for a mistake: override one, and see what `search` finds."""

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
        may_replay: Callable[..., bool] = may_replay,
    ) -> None:
        """
        Args:
            safe: One caller for each; whether running its call twice does no harm.
            budget: Replays of unknown outcome that can be afforded.
            renewals: Times that the credentials can be renewed.
            table: The rows of the machine.
            decide: As `mcpconn.core.decide`, and so are the others.
            decide_probe: Says what follows from a failed probe.
            decide_dial: Says what follows from a failed dial.
            may_replay: Says whether a call may be made again.
        """
        self.start = World(tuple(Caller(each) for each in safe), budget, renewals)
        self.renewable = renewals > 0
        self.table = {(row.source, row.event): row.target for row in table}
        self.decide, self.decide_probe, self.decide_dial = decide, decide_probe, decide_dial
        self.may_replay = may_replay
        self.failures = {words: classify(fault.evidence) for words, fault in FAULTS.items()}

    # -- what can happen next

    def steps(self, world: World) -> Iterator[Step]:
        """Everything that can happen in `world`.

        Raises:
            IllegalTransition: something would fire an event that the table does not know there.
        """
        if world.state is State.IDLE:
            yield Step("the connection is told to connect", self.fire(world, Event.CONNECT))
        if world.state in DIALLING:
            yield from self.dials(world)
        if world.state is State.READY:
            yield Step("the session reaches its maximum lifetime", self.recycle(world))
            yield Step("reconnect() is called", self.fire(self.recycle(world), Event.CONNECT))
        if world.state is State.FAILED:
            if not world.person:
                yield Step("the cool-down ends", self.fire(world._replace(half_open=True), Event.RETRY))
            yield Step("reconnect() is called", self.fire(world._replace(half_open=False), Event.RETRY))
        for epoch in range(max(1, world.epoch - 1), world.epoch + 1):
            after = self.report(world, epoch, self.failures[SIGN], SIGN)
            yield Step(f"the transport of {session(epoch, world)} ends while it is idle", after, epoch)
            # A probe can outlive its session's time.
            if world.probes or epoch < world.epoch:
                yield from self.probe_ends(world, epoch)
        if world.state is not State.CLOSED:
            yield Step("the connection is closed", self.close(world))
        for i, caller in enumerate(world.callers):
            yield from self.caller_steps(world, i, caller)

    def dials(self, world: World) -> Iterator[Step]:
        """How the dial under way can end."""
        yield Step("a dial succeeds", self.establish(world))
        for words in DIAL_FAULTS:
            for elapsed in (0.0, PATIENCE):
                spent = ", and patience is spent" if elapsed else ""
                after = self.dial_fails(world, self.failures[words], elapsed)
                yield Step(f"a dial fails ({words}){spent}", after)

    def probe_ends(self, world: World, epoch: int) -> Iterator[Step]:
        """How a probe of the session of `epoch` can end."""
        probe = f"the probe of {session(epoch, world)}"
        yield Step(f"{probe} is answered", self.probe_answered(world, epoch), epoch)
        for words in PROBE_FAULTS:
            yield Step(f"{probe} fails ({words})", self.probe_fails(world, epoch, words), epoch)

    def caller_steps(self, world: World, i: int, caller: Caller) -> Iterator[Step]:
        """What can happen to one caller."""
        who = f"call {name(i)}"
        if caller.phase == "new":
            yield Step(f"{who} is made", self.ask(world, i))
            return
        if caller.phase == "over":
            return
        if caller.phase == "granted":
            yield Step(f"{who} is issued", self.issue(world, i))
        if caller.phase == "in flight":
            if caller.written:
                yield Step(f"{who} is answered", self.end(world, i, "answered"))
            else:
                after = self.change(world, i, caller._replace(written=True, sent=True))
                yield Step(f"{who} is written", after)
            for words, fault in FAULTS.items():
                if fault.written is caller.written:
                    yield Step(f"{who} fails: {words}", self.fail(world, i, words), caller.epoch)
        yield from self.patience_ends(world, i, caller)

    def patience_ends(self, world: World, i: int, caller: Caller) -> Iterator[Step]:
        """The caller's deadline passes, or it is cancelled."""
        yield Step(f"call {name(i)} is cancelled", self.end(world, i, "cancelled"))
        # What a probe has not confirmed is not known, whatever the words were.
        unknown = caller.doubt or caller.written or caller.phase == "confirming"
        after = self.end(world, i, "unknown" if unknown else "not run")
        if caller.phase == "in flight":
            after = self.report(after, caller.epoch, self.failures[NO_ANSWER], NO_ANSWER)
            yield Step(f"the deadline of call {name(i)} passes", after, caller.epoch)
        else:
            yield Step(f"the deadline of call {name(i)} passes", after)

    def canonical(self, world: World) -> World:
        """One world for all that differ in nothing that matters from here on: this is what makes them finite.

        Of epochs only the order counts: whether a session is the first, the present or an old one. What a
        state does not use is forgotten, and so is what is over.
        """
        return world._replace(
            callers=tuple(self._plain(caller, world) for caller in world.callers),
            epoch=min(world.epoch, 2),
            accepting=tuple(min(epoch, 2) for epoch in world.accepting),
            half_open=world.half_open and world.state in DIALLING,
            person=world.person and world.state is State.FAILED,
            attempts=world.attempts if world.state in DIALLING else 0,
        )

    def _plain(self, caller: Caller, world: World) -> Caller:
        if caller.phase == "over":
            return OVER[caller.safe]
        epoch = 0
        if caller.phase in ("in flight", "confirming"):
            epoch = 1 if caller.epoch < world.epoch else min(caller.epoch, 2)
        return caller if caller.epoch == epoch else caller._replace(epoch=epoch)

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

    def report(self, world: World, epoch: int, failure: Failure, words: str) -> World:
        """A failure on the session of `epoch` is told to the connection. A stale one changes nothing."""
        if not self.is_current(world, epoch):
            return world
        if FAULTS[words].doubted:
            failure = replace(failure, proof=False)
        event = self.decide(world.state, failure, refreshable=world.renewals > 0)
        if event is Event.SUSPECTED:
            return self.suspect(world)
        return world if event is None else self.lose(world, event, failure, words)

    def suspect(self, world: World) -> World:
        """A probe is started, where none is under way."""
        if world.probes:
            return world
        return self.fire(world._replace(probes=world.probes + 1), Event.SUSPECTED)

    def probe_answered(self, world: World, epoch: int) -> World:
        """The session of `epoch` lives."""
        if not self.is_current(world, epoch):
            return world
        return self.settle(world._replace(probes=0), "")

    def probe_fails(self, world: World, epoch: int, words: str) -> World:
        """A probe of the session of `epoch` failed."""
        if not self.is_current(world, epoch):
            return world
        failure = self.failures[words]
        event = self.decide_probe(failure, refreshable=world.renewals > 0)
        if event is None:
            return self.probe_answered(world, epoch)
        return self.lose(world, event, failure, words)

    def lose(self, world: World, event: Event, failure: Failure, words: str) -> World:
        """The present session is over, for a reason."""
        world = self.retire(world)
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
        return world._replace(accepting=(), probes=0)

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

    def fail(self, world: World, i: int, words: str) -> World:
        """The attempt in flight met a fault."""
        failure, caller = self.failures[words], world.callers[i]
        caller = caller._replace(ran=caller.ran or FAULTS[words].ran)
        world = self.change(world, i, caller)
        if failure.kind in (FailureKind.APPLICATION, FailureKind.CANCELLED):
            return self.end(world, i, "error")
        if failure.kind is not FailureKind.SESSION_EXPIRED or failure.proof:
            return self.again(self.report(world, caller.epoch, failure, words), i, failure)
        world = self.change(world, i, caller._replace(phase="confirming", fault=words, written=False))
        world = self.report(world, caller.epoch, failure, words)
        # With no probe under way the session is over already, and nobody will say more about it.
        return world if self.is_current(world, caller.epoch) else self.confirm(world, i, "")

    def settle(self, world: World, words: str) -> World:
        """The session is over, or was found to live: those who waited for the probe go on."""
        for i, caller in enumerate(world.callers):
            if caller.phase == "confirming":
                world = self.confirm(world, i, words)
        return world

    def confirm(self, world: World, i: int, words: str) -> World:
        """What the probe found is held against what the call was told.

        A session that lives, or that nobody called lost: the words were the call's own answer.
        """
        fault = world.callers[i].fault
        if not words:
            return self.end(world, i, "error")
        failure = self.failures[fault]
        same = FAULTS[words].evidence is FAULTS[fault].evidence
        return self.again(world, i, failure if same else replace(failure, delivery=Delivery.UNKNOWN))

    def again(self, world: World, i: int, failure: Failure) -> World:
        """The call is made again, or its caller is told."""
        caller = world.callers[i]
        unknown = failure.delivery is Delivery.UNKNOWN
        caller = caller._replace(doubt=caller.doubt or unknown)
        world = self.change(world, i, caller)
        allowed = self.may_replay(
            failure,
            safe=caller.safe,
            replays=caller.replays,
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
        """The replays of a call that is made again."""
        return caller.replays + 1

    def withdraw(self, balance: float) -> float:
        """What is left of the budget after one replay."""
        budget = ReplayBudget(ratio=0, reserve=balance, maximum=balance)
        budget.withdraw()
        return budget.balance
