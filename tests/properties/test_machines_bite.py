"""The state machines find what they are there to find: mistakes put into the runtime, each caught.

A random search takes as long as it takes. So each mistake comes with the shortest sequence of rules that shows it,
which is played on the machine and judged by it alone; and some, which any search meets soon, are searched for too.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import anyio
import pytest
from hypothesis import Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from mcpconn import CallFailed, Delivery, Event, Failure, FailureKind
from mcpconn.core.decide import decide, decide_dial, may_replay
from mcpconn.core.outcome import Outcome
from mcpconn.runtime import dialling, lifecycle, retries
from mcpconn.runtime.dial_schedule import DialSchedule
from mcpconn.runtime.gate import Gate
from mcpconn.runtime.lifecycle import Lifecycle
from mcpconn.runtime.session import Session
from mcpconn.testing.machine import SETTINGS, SandboxMachine
from tests.properties.sequences import FORGOTTEN, Rule, met_by, on, play
from tests.properties.test_machines import TwoServers
from tests.properties.test_model_conformance import Conformance

# Always the same examples, and none shrunk: that one is found is all that matters here.
FIND = settings(SETTINGS, max_examples=150, phases=[Phase.generate], derandomize=True, database=None, print_blob=False)
Patch = pytest.MonkeyPatch
Mistake = Callable[[Patch], None]


def unsafe_calls_are_replayed(patch: Patch) -> None:
    patch.setattr(retries, "may_replay", lambda failure, **facts: may_replay(failure, **{**facts, "safe": True}))


def calls_are_replayed_for_ever(patch: Patch) -> None:
    patch.setattr(retries, "may_replay", lambda failure, **facts: may_replay(failure, **{**facts, "replays": 0}))


def the_budget_is_not_asked(patch: Patch) -> None:
    patch.setattr(retries, "may_replay", lambda failure, **facts: may_replay(failure, **{**facts, "budget": 1}))


def suspicion_is_taken_for_proof(patch: Patch) -> None:
    patch.setattr(lifecycle, "decide", lambda state, failure, **facts: decide(state, _proven(failure), **facts))


def proof_is_taken_for_suspicion(patch: Patch) -> None:
    def doubt(state: Any, failure: Failure, **facts: Any) -> Event | None:
        return decide(state, replace(failure, proof=False), **facts)

    patch.setattr(lifecycle, "decide", doubt)


def a_failed_probe_proves_nothing(patch: Patch) -> None:
    patch.setattr("mcpconn.runtime.probe.decide_probe", lambda failure, **facts: None)


def a_half_open_probe_may_fail_again_and_again(patch: Patch) -> None:
    def patient(failure: Failure, **facts: Any) -> Event:
        more = {"half_open": False, "attempts": 1} if facts["half_open"] else {}
        return decide_dial(failure, **{**facts, **more})

    patch.setattr(dialling, "decide_dial", patient)


def old_failures_count(patch: Patch) -> None:
    report = Lifecycle.report
    patch.setattr(Lifecycle, "report", lambda self, epoch, failure: report(self, self.epoch, failure))


def a_tools_words_are_believed(patch: Patch) -> None:
    def believe(failure: Failure, lost: Failure | None) -> Failure:
        return replace(failure, kind=FailureKind.SESSION_EXPIRED, delivery=Delivery.REJECTED)

    patch.setattr("mcpconn.runtime.retries.confirmed", believe)


def waiters_are_forgotten(patch: Patch) -> None:
    def refuse(self: Gate, error: Callable[[], Exception]) -> None:
        self.is_open, self._refusal = False, error

    patch.setattr(Gate, "refuse", refuse)


def permits_leak_where_a_caller_is_cancelled(patch: Patch) -> None:
    release, cancelled = Gate.release, anyio.get_cancelled_exc_class

    def leak(self: Gate) -> None:
        if not isinstance(sys.exc_info()[1], cancelled()):
            release(self)

    patch.setattr(Gate, "release", leak)


def sessions_are_never_told_that_a_call_is_over(patch: Patch) -> None:
    patch.setattr(Session, "leave", lambda self: None)


def what_was_written_is_called_not_sent(patch: Patch) -> None:
    patch.setattr(CallFailed, "outcome", Outcome.NOT_RUN)


def a_404_is_believed_where_replicas_share_no_sessions(patch: Patch) -> None:
    patch.setattr(DialSchedule, "weaken", lambda self, failure: failure)


def _proven(failure: Failure) -> Failure:
    return replace(failure, proof=True)


PROVEN = on("call", number=0, tool="add")
"""The first session answers, so that its loss is met without a wait."""
CHARGE_LOST = (on("fail_calls", server=0, fault="drop after", times=1), on("call", server=0, tool=1, seconds=1))

SHORTEST: list[tuple[Mistake, type[SandboxMachine], tuple[Rule, ...]]] = [
    (unsafe_calls_are_replayed, TwoServers, CHARGE_LOST),
    (unsafe_calls_are_replayed, Conformance, (met_by("drop after", "charge"),)),
    (calls_are_replayed_for_ever, Conformance, (PROVEN, met_by("404", times=3))),
    (the_budget_is_not_asked, Conformance, (met_by("drop after"), met_by("drop after"))),
    (suspicion_is_taken_for_proof, Conformance, (met_by("expired, 200"),)),
    (proof_is_taken_for_suspicion, Conformance, FORGOTTEN),
    (a_failed_probe_proves_nothing, Conformance, (on("forget"), met_by("expired, 200"))),
    (
        a_half_open_probe_may_fail_again_and_again,
        Conformance,
        (on("call_meets_an_outage", number=0, tool="add", seconds=45.0, again=45.0),),
    ),
    (
        old_failures_count,
        Conformance,
        (on("call_outlives_its_session", number=0, tool="add"), on("advance", seconds=45.0)),
    ),
    (
        a_tools_words_are_believed,
        Conformance,
        # The session is forgotten while the probe asks whether that is what the tool's error meant.
        (
            PROVEN,
            on("fail_probes", fault="hang", times=1),
            met_by("application error", "charge"),
            on("forget"),
            on("advance", seconds=6.0),
        ),
    ),
    (
        waiters_are_forgotten,
        TwoServers,
        (on("take_down", server=0), on("call", server=0, tool=0, seconds=1), on("advance", seconds=45.0)),
    ),
    (permits_leak_where_a_caller_is_cancelled, Conformance, (met_by("hang"), on("cancel", number=0))),
    (
        sessions_are_never_told_that_a_call_is_over,
        TwoServers,
        (on("call", server=0, tool=0, seconds=1), on("reconnect", server=0)),
    ),
    (what_was_written_is_called_not_sent, TwoServers, CHARGE_LOST),
    (
        a_404_is_believed_where_replicas_share_no_sessions,
        Conformance,
        (PROVEN, *FORGOTTEN * 3, on("advance", seconds=3.0), *FORGOTTEN),
    ),
]
"""The shortest sequence that shows each."""


@pytest.mark.parametrize(
    ("mistake", "machine", "rules"),
    SHORTEST,
    ids=[f"{mistake.__name__}-{machine.__name__}" for mistake, machine, _ in SHORTEST],
)
def test_a_mistake_in_the_runtime_is_seen(
    mistake: Mistake, machine: type[SandboxMachine], rules: tuple[Rule, ...], monkeypatch: Patch
) -> None:
    play(machine, rules)
    mistake(monkeypatch)
    with pytest.raises(AssertionError):
        play(machine, rules)


@pytest.mark.parametrize(
    ("mistake", "machine"),
    [
        (a_failed_probe_proves_nothing, Conformance),
        (a_half_open_probe_may_fail_again_and_again, Conformance),
        (sessions_are_never_told_that_a_call_is_over, TwoServers),
        (what_was_written_is_called_not_sent, TwoServers),
    ],
    ids=lambda value: value.__name__,
)
def test_a_mistake_in_the_runtime_is_found(
    mistake: Mistake, machine: type[SandboxMachine], monkeypatch: Patch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL)
    mistake(monkeypatch)
    with pytest.raises(AssertionError):
        run_state_machine_as_test(machine, settings=FIND)
