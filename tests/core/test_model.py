"""The model of a connection and its callers, searched exhaustively; and proof that the search finds mistakes.

Each invariant of docs/invariants.md has a test of its name here, which shows that it bites: a model with one
mistake in it, which that invariant alone must find.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any, get_args

import pytest

from mcpconn.core import TRANSITIONS, Delivery, Event, Failure, FailureKind, State, may_replay
from mcpconn.core.decide import confirmed
from mcpconn.core.states import Transition
from tests.model.invariants import INVARIANTS, Invariant
from tests.model.model import Model
from tests.model.search import Counterexample, search
from tests.model.worlds import FAULTS, Caller, Luck, Outcome, Phase, Step, World


@pytest.mark.parametrize(
    "options",
    [
        {"safe": (False, True)},
        {"safe": (False,), "renewals": 1},
        {"safe": (True,), "renewals": 1},
    ],
    ids=["two callers", "one caller and credentials", "a safe caller and credentials"],
)
def test_the_model_keeps_every_invariant(options: dict[str, Any]) -> None:
    result = search(Model(**options))
    assert result.counterexample is None, str(result.counterexample)
    assert result.worlds > 500


def test_the_search_goes_everywhere() -> None:
    met: list[Step] = []
    events: set[Event] = set()

    class Watching(Model):
        def fire(self, world: World, event: Event) -> World:
            events.add(event)
            return super().fire(world, event)

        def steps(self, world: World) -> Iterator[Step]:
            for step in super().steps(world):
                met.append(step)
                yield step

    for safe in (False, True):
        search(Watching(safe=[safe], renewals=1))
    assert {step.after.state for step in met} == set(State)
    assert events == set(Event)
    callers = {caller for step in met for caller in step.after.callers}
    assert {caller.phase for caller in callers} == set(get_args(Phase))
    assert {caller.outcome for caller in callers} == set(get_args(Outcome))
    assert {(caller.safe, caller.replays) for caller in callers} == {(True, 0), (True, 1), (False, 0), (False, 1)}
    said = " ".join({step.words for step in met})
    assert [words for words in FAULTS if words not in said] == []


# -- each invariant finds its mistake


def found_by(model: Model, invariant: str) -> Counterexample:
    """What that invariant alone finds."""
    (holds,) = (each for each in INVARIANTS if each.__name__ == invariant)
    found = search(model, [holds]).counterexample
    assert found is not None, f"{invariant} found nothing"
    assert found.invariant == invariant
    return found


class LeavesWaitersInFailed(Model):
    """Nobody tells those who wait that the connection failed."""

    def turn_away(self, world: World) -> World:
        return world


class LeavesThoseWhoAwaitAProbe(Model):
    """The connection is closed, and the probe that a call awaits never ends."""

    def close(self, world: World) -> World:
        return self.fire(self.retire(world), Event.CLOSE)


@pytest.mark.parametrize("model", [LeavesWaitersInFailed, LeavesThoseWhoAwaitAProbe])
def test_no_waiter_after_terminal(model: type[Model]) -> None:
    found = found_by(model(safe=(False,)), "no_waiter_after_terminal")
    assert len(found.path) <= 7


class KeepsTheEpoch(Model):
    """A new session gets the number of the old one."""

    def establish(self, world: World) -> World:
        epoch = max(world.epoch, 1)
        return self.fire(world._replace(epoch=epoch, accepting=(epoch,), half_open=False, ends=0), Event.ESTABLISHED)


def test_epoch_only_grows() -> None:
    found = found_by(KeepsTheEpoch(safe=()), "epoch_only_grows")
    assert [step.words for step in found.path] == [
        "the connection is told to connect",
        "a dial succeeds",
        "reconnect() is called",
        "a dial succeeds",
    ]


class IssuesWithoutLooking(Model):
    """A call that was let through is issued, though its session was given up in the meantime."""

    def issue(self, world: World, i: int) -> World:
        return self.change(world, i, world.callers[i]._replace(phase="in flight", epoch=world.epoch))


class MovesCallsAlong(Model):
    """Calls in flight on the old session are said to be on the new one."""

    def establish(self, world: World) -> World:
        world = super().establish(world)
        return world._replace(callers=tuple(caller._replace(epoch=world.epoch) for caller in world.callers))


@pytest.mark.parametrize("model", [IssuesWithoutLooking, MovesCallsAlong])
def test_call_belongs_to_one_epoch(model: type[Model]) -> None:
    found_by(model(safe=(False,)), "call_belongs_to_one_epoch")


class BelievesOldSessions(Model):
    """Reports are taken without a look at their epoch."""

    def is_current(self, world: World, epoch: int) -> bool:
        return bool(world.accepting)


def test_stale_failure_changes_nothing() -> None:
    found = found_by(BelievesOldSessions(safe=()), "stale_failure_changes_nothing")
    assert found.path[-1].words == "the transport of an old session ends while it is idle"


class KeepsTheLostSession(Model):
    """A session that is given up goes on taking calls."""

    def retire(self, world: World) -> World:
        return world


def redirected(source: State, event: Event, target: State) -> tuple[Transition, ...]:
    """The table with one row that leads elsewhere."""
    return tuple(
        row._replace(target=target) if (row.source, row.event) == (source, event) else row for row in TRANSITIONS
    )


@pytest.mark.parametrize(
    "model",
    [
        KeepsTheLostSession(safe=()),
        Model(safe=(), table=redirected(State.READY, Event.LOST, State.READY)),
        Model(safe=(), table=redirected(State.CONNECTING, Event.ESTABLISHED, State.CONNECTING)),
    ],
    ids=["a lost session goes on", "lost leads to ready", "established leads nowhere"],
)
def test_one_accepting_session(model: Model) -> None:
    found_by(model, "one_accepting_session")


class LosesItAgain(KeepsTheLostSession):
    """Each call that fails with a session loses it once more."""

    def __init__(self, safe: Iterable[bool]) -> None:
        again = Transition(State.RECONNECTING, Event.LOST, State.RECONNECTING, "once more")
        super().__init__(safe=safe, table=(*TRANSITIONS, again), decide=self.always_lost)

    @staticmethod
    def always_lost(state: State, failure: Failure, **facts: Any) -> Event | None:
        return Event.LOST if state in (State.READY, State.RECONNECTING) else None


def test_one_reconnect_per_epoch() -> None:
    found_by(LosesItAgain(safe=(False, False)), "one_reconnect_per_epoch")


class OverdrawsTheBudget(Model):
    """The budget is charged and not asked."""

    def __init__(self, safe: Iterable[bool]) -> None:
        super().__init__(safe=safe, may_replay=lambda failure, **facts: may_replay(failure, **{**facts, "budget": 1}))

    def withdraw(self, balance: float) -> float:
        return balance - 1


def test_budget_never_negative() -> None:
    found_by(OverdrawsTheBudget(safe=(True, True)), "budget_never_negative")


class FearsForEveryCall(Model):
    """Whatever is not retried is said to have an unknown outcome."""

    def end(self, world: World, i: int, outcome: Any) -> World:
        return super().end(world, i, "unknown" if outcome == "not run" else outcome)


def test_unknown_only_after_write() -> None:
    found_by(FearsForEveryCall(safe=(False,)), "unknown_only_after_write")


def replays_everything(failure: Failure, *, safe: bool, replays: int, **facts: Any) -> bool:
    """Once more, whether or not it is safe."""
    return may_replay(failure, safe=True, replays=replays, **facts)


class BelievesEveryPhrase(Model):
    """'Session expired' is taken for a refusal, without a probe: a tool may have said it."""

    def fail(self, world: World, i: int, words: str, luck: Luck) -> World:
        failure, caller = self.failures[words], world.callers[i]
        if failure.kind is FailureKind.SESSION_EXPIRED:
            world = self.change(world, i, caller._replace(ran=FAULTS[words].ran))
            return self.again(self.report(world, caller.epoch, failure, words, luck), i, failure)
        return super().fail(world, i, words, luck)


def believes_any_probe(failure: Failure, lost: Failure | None) -> Failure:
    """A call is taken for refused though its session was lost for another reason."""
    return failure if lost is not None else confirmed(failure, lost)


def believes_any_sentence(failure: Failure, lost: Failure | None) -> Failure:
    """Whatever was said, a session that is refused makes it a refusal of the call."""
    refused = lost is not None and lost.kind is FailureKind.SESSION_EXPIRED
    return replace(failure, delivery=Delivery.REJECTED) if refused else confirmed(failure, lost)


@pytest.mark.parametrize(
    "model",
    [
        Model(safe=(False,), may_replay=replays_everything),
        BelievesEveryPhrase(safe=(False,)),
        Model(safe=(False,), confirmed=believes_any_probe),
        Model(safe=(False,), confirmed=believes_any_sentence),
    ],
    ids=["replays everything", "believes every phrase", "believes any probe", "believes any sentence"],
)
def test_never_written_twice(model: Model) -> None:
    found_by(model, "never_written_twice")


class ForgetsTheFirstAttempt(Model):
    """What is said of a call is what is known of its last attempt."""

    def end(self, world: World, i: int, outcome: Any) -> World:
        forgotten = outcome == "unknown" and not world.callers[i].written
        return super().end(world, i, "not run" if forgotten else outcome)


class BelievesWhatIsNotConfirmed(Model):
    """A deadline passes while a probe is to tell whether a phrase was true, and it is taken for true."""

    def patience_ends(self, world: World, i: int, caller: Caller) -> Iterator[Step]:
        for step in super().patience_ends(world, i, caller):
            if caller.phase == "confirming" and step.after.callers[i].outcome == "unknown":
                yield Step(step.words, self.end(world, i, "not run"))
            else:
                yield step


@pytest.mark.parametrize(
    "model",
    [ForgetsTheFirstAttempt(safe=(True,)), BelievesWhatIsNotConfirmed(safe=(False,))],
    ids=["forgets the first attempt", "believes what is not confirmed"],
)
def test_not_run_is_the_truth(model: Model) -> None:
    found_by(model, "not_run_is_the_truth")


class ForgetsToCount(Model):
    """Replays are not counted."""

    def count(self, caller: Caller) -> int:
        return caller.replays


def test_one_replay_per_call() -> None:
    found_by(ForgetsToCount(safe=(False,)), "one_replay_per_call")


class ProbesForEachSuspicion(Model):
    """Every suspicion starts a probe of its own."""

    def suspect(self, world: World, luck: Luck) -> World:
        return self.fire(world._replace(probes=min(world.probes + 1, 2)), Event.SUSPECTED)


def test_one_probe_per_session() -> None:
    found_by(ProbesForEachSuspicion(safe=(False, False)), "one_probe_per_session")


class LeavesTheGateOpen(Model):
    """The gate is not closed when the session is lost."""

    def fire(self, world: World, event: Event) -> World:
        after = super().fire(world, event)
        return after._replace(gate="open") if event is Event.LOST else after


def test_gate_open_only_when_ready() -> None:
    found_by(LeavesTheGateOpen(safe=()), "gate_open_only_when_ready")


class ComesBackFromTheEnd(Model):
    """reconnect() forgets to look whether the connection was closed."""

    def __init__(self, safe: Iterable[bool]) -> None:
        super().__init__(
            safe=safe, table=(*TRANSITIONS, Transition(State.CLOSED, Event.RETRY, State.RECONNECTING, "resurrection"))
        )

    def steps(self, world: World) -> Iterator[Step]:
        yield from super().steps(world)
        if world.state is State.CLOSED:
            yield Step("reconnect() is called", self.fire(world, Event.RETRY))


def test_closed_is_the_end() -> None:
    found = found_by(ComesBackFromTheEnd(safe=()), "closed_is_the_end")
    assert [step.words for step in found.path] == ["the connection is closed", "reconnect() is called"]


class ClosesTwice(Model):
    """close() forgets to look whether the connection was closed."""

    def steps(self, world: World) -> Iterator[Step]:
        yield from super().steps(world)
        yield Step("the connection is closed", self.close(world))


@pytest.mark.parametrize(
    "model",
    [
        ClosesTwice(safe=()),
        Model(safe=(False,), table=[row for row in TRANSITIONS if row.event is not Event.SUSPECTED]),
        Model(safe=(), decide_dial=lambda failure, **facts: Event.LOST),
        Model(safe=(False,), decide_probe=lambda failure, **facts: Event.ATTEMPT_FAILED),
    ],
    ids=["closes twice", "no row for suspected", "a failed dial loses a session", "a failed probe is a failed dial"],
)
def test_only_legal_events(model: Model) -> None:
    found = search(model, []).counterexample
    assert found is not None
    assert found.invariant == "only_legal_events"
    assert "cannot happen in state" in found.path[-1].words


TESTED = [name.removeprefix("test_") for name in list(globals()) if name.startswith("test_")]


@pytest.mark.parametrize("invariant", INVARIANTS, ids=lambda invariant: invariant.__name__)
def test_each_invariant_has_a_test_by_name(invariant: Invariant) -> None:
    assert invariant.__name__ in TESTED


# -- the model itself


def test_a_safe_call_may_be_written_twice() -> None:
    def written_once(before: World, step: Step) -> bool:
        return not any(caller.written and caller.ran for caller in step.after.callers)

    assert search(Model(safe=(True,)), [written_once]).counterexample is not None
    assert search(Model(safe=(False,)), [written_once]).counterexample is None


@pytest.mark.parametrize("words", FAULTS)
def test_a_fault_is_told_truthfully(words: str) -> None:
    fault, failure = FAULTS[words], Model().failures[words]
    if failure.delivery is Delivery.NOT_SENT:
        assert not fault.written
    if fault.ran and not fault.tool:
        assert failure.delivery is Delivery.UNKNOWN
    if failure.kind is FailureKind.SESSION_EXPIRED and failure.proof:
        assert not fault.ran
