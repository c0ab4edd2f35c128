"""A small model of one connection and its callers: table x attempts x callers x epochs.

It states what the runtime promises without its tasks, clocks and sockets: a `World` is a value, and
`Model.steps` lists everything that can happen next. Which event follows, where it leads and whether a call
may be retried is asked of the real `TRANSITIONS`, `decide`, `decide_probe`, `decide_dial` and `may_replay`,
which are arguments, so that wrong ones can be tried. `tests.model.search` goes through every world there
is, and `tests.model.invariants` says what must hold in each.

What cannot be known from inside is chosen freely: whether a dial succeeds, which fault meets a call, how long ago
the last probe was, whether patience is spent. Beside what a client knows, a world holds the truth: whether a
request left, and whether the server may have run it. One assumption: a tool's error is not a session's refusal and
nothing else at the very moment at which the server forgets that session.
"""

from __future__ import annotations

from collections.abc import Iterator

from mcpconn.core.decide import PATIENCE, refused
from mcpconn.core.failures import Failure, FailureKind
from mcpconn.core.states import Event, State
from tests.model.behaviour import Behaviour
from tests.model.worlds import FAULTS, OVER, Caller, Luck, Step, World, name, session

DIALLING = (State.CONNECTING, State.RECONNECTING)
DIAL_FAULTS = ("nobody listens at the server's port", "a web page", "401", "403")
UNLISTED = "the server refuses in words that nobody listed"
PROBE_FAULTS = (
    "the server says 'expired session'",
    UNLISTED,
    "the transport ends",
    "no answer in time",
    "401",
    "429",
)
SIGN = "the transport ends"
NO_ANSWER = "no answer in time"


class Model(Behaviour):
    """What can happen. Every method is a place for a mistake: override one, and see what `search` finds."""

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
            for luck in self.lucks(world, epoch, self.failures[SIGN]):
                after = self.report(world, epoch, self.failures[SIGN], SIGN, luck)
                yield Step(f"the transport of {session(epoch, world)} ends while it is idle{luck}", after, epoch)
            # A probe can outlive its session's time.
            if world.probes or epoch < world.epoch:
                yield from self.probe_ends(world, epoch)
        if world.deferred:
            yield Step("the probe that had to wait begins", self.begin_probe(world))
            dropped = self.settle(world._replace(deferred=False), "")
            yield Step("the suspicion that had to wait is dropped, because a call was answered", dropped)
        if world.state is not State.CLOSED:
            yield Step("the connection is closed", self.close(world))
        for i, caller in enumerate(world.callers):
            yield from self.caller_steps(world, i, caller)

    def dials(self, world: World) -> Iterator[Step]:
        """How the dial in progress can end."""
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
            if self.is_coincidence(world, refused(self.failures[words])):
                continue
            for spent in (False, True):
                luck = Luck(spent=spent)
                yield Step(f"{probe} fails ({words}){luck}", self.probe_fails(world, epoch, words, luck), epoch)

    def is_coincidence(self, world: World, failure: Failure) -> bool:
        """What is assumed not to happen: the session is refused while a tool's words sound like its refusal."""
        sounds = any(c.phase == "confirming" and FAULTS[c.fault].tool for c in world.callers)
        return sounds and failure.kind is FailureKind.SESSION_EXPIRED

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
                if fault.written is caller.written and not (
                    self.is_coincidence(world, self.failures[words]) and not fault.tool
                ):
                    for luck in self.lucks(world, caller.epoch, self.failures[words], tool=fault.tool):
                        after = self.fail(world, i, words, luck)
                        yield Step(f"{who} fails: {words}{luck}", after, caller.epoch)
        yield from self.patience_ends(world, i, caller)

    def lucks(self, world: World, epoch: int, failure: Failure, *, tool: bool = False) -> Iterator[Luck]:
        """The choices that make a difference to how a failure on the session of `epoch` is taken."""
        yield Luck()
        if not self.is_current(world, epoch):
            # Whether that session was lost, and how, matters to what the call may conclude.
            yield from (Luck(lost=words) for words in (NO_ANSWER, UNLISTED) if not (tool and words == UNLISTED))
            return
        free = not (world.probes or world.deferred)
        event = self.decide(world.state, failure, refreshable=world.renewals > 0)
        if event is Event.LOST:
            yield Luck(spent=True)
        if event is Event.SUSPECTED and free:
            yield Luck(waits=True)
        if event is None and failure.kind is FailureKind.APPLICATION:
            yield Luck(again=True)
            if free:
                yield Luck(again=True, waits=True)

    def patience_ends(self, world: World, i: int, caller: Caller) -> Iterator[Step]:
        """The caller's deadline passes, or it is cancelled."""
        yield Step(f"call {name(i)} is cancelled", self.end(world, i, "cancelled"))
        # What a probe has not confirmed is not known, whatever the words were.
        unknown = caller.doubt or caller.written or caller.phase == "confirming"
        after = self.end(world, i, "unknown" if unknown else "not run")
        if caller.phase == "in flight":
            for luck in self.lucks(after, caller.epoch, self.failures[NO_ANSWER]):
                told = self.report(after, caller.epoch, self.failures[NO_ANSWER], NO_ANSWER, luck)
                yield Step(f"the deadline of call {name(i)} passes{luck}", told, caller.epoch)
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
