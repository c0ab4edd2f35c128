"""The state machines find what they are there to find: mistakes put into the runtime, each caught."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import anyio
import pytest
from hypothesis import Phase, settings
from hypothesis.stateful import RuleBasedStateMachine, run_state_machine_as_test

from mcpconn import CallFailed, Event, Failure
from mcpconn.core.decide import decide, decide_dial, may_replay
from mcpconn.runtime import calls, lifecycle, supervisor
from mcpconn.runtime.calls import Calls
from mcpconn.runtime.gate import Gate
from mcpconn.runtime.lifecycle import Lifecycle
from mcpconn.runtime.session import Session
from mcpconn.testing.machine import SETTINGS
from tests.properties.test_machines import TwoServers
from tests.properties.test_model_conformance import Conformance

# Always the same examples, and none shrunk: that one is found is all that matters here.
FIND = settings(SETTINGS, max_examples=400, phases=[Phase.generate], derandomize=True, database=None, print_blob=False)
Patch = pytest.MonkeyPatch


def unsafe_calls_are_replayed(patch: Patch) -> None:
    patch.setattr(calls, "may_replay", lambda failure, **facts: may_replay(failure, **{**facts, "safe": True}))


def calls_are_replayed_for_ever(patch: Patch) -> None:
    patch.setattr(calls, "may_replay", lambda failure, **facts: may_replay(failure, **{**facts, "replays": 0}))


def the_budget_is_not_asked(patch: Patch) -> None:
    patch.setattr(calls, "may_replay", lambda failure, **facts: may_replay(failure, **{**facts, "budget": 1}))


def suspicion_is_taken_for_proof(patch: Patch) -> None:
    patch.setattr(lifecycle, "decide", lambda state, failure, **facts: decide(state, _proven(failure), **facts))


def proof_is_taken_for_suspicion(patch: Patch) -> None:
    def doubt(state: Any, failure: Failure, **facts: Any) -> Event | None:
        return decide(state, replace(failure, proof=False), **facts)

    patch.setattr(lifecycle, "decide", doubt)


def a_failed_probe_proves_nothing(patch: Patch) -> None:
    patch.setattr(supervisor, "decide_probe", lambda failure, **facts: None)


def a_half_open_probe_may_fail_again_and_again(patch: Patch) -> None:
    def patient(failure: Failure, **facts: Any) -> Event:
        more = {"half_open": False, "attempts": 1} if facts["half_open"] else {}
        return decide_dial(failure, **{**facts, **more})

    patch.setattr(supervisor, "decide_dial", patient)


def old_failures_count(patch: Patch) -> None:
    report = Lifecycle.report
    patch.setattr(Lifecycle, "report", lambda self, epoch, failure: report(self, self.epoch, failure))


def a_tools_words_are_believed(patch: Patch) -> None:
    async def believe(self: Calls, session: Any, failure: Failure, error: Exception) -> Failure:
        return failure

    patch.setattr(Calls, "_confirmed", believe)


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
    patch.setattr(CallFailed, "outcome", "not_run")


def _proven(failure: Failure) -> Failure:
    return replace(failure, proof=True)


@pytest.mark.parametrize(
    ("mistake", "machine"),
    [
        (unsafe_calls_are_replayed, TwoServers),
        (unsafe_calls_are_replayed, Conformance),
        (calls_are_replayed_for_ever, Conformance),
        (the_budget_is_not_asked, Conformance),
        (suspicion_is_taken_for_proof, Conformance),
        (proof_is_taken_for_suspicion, Conformance),
        (a_failed_probe_proves_nothing, Conformance),
        (a_half_open_probe_may_fail_again_and_again, Conformance),
        (old_failures_count, Conformance),
        (a_tools_words_are_believed, Conformance),
        (waiters_are_forgotten, TwoServers),
        (permits_leak_where_a_caller_is_cancelled, Conformance),
        (sessions_are_never_told_that_a_call_is_over, TwoServers),
        (what_was_written_is_called_not_sent, TwoServers),
    ],
    ids=lambda value: value.__name__,
)
def test_a_mistake_in_the_runtime_is_found(
    mistake: Callable[[Patch], None],
    machine: type[RuleBasedStateMachine],
    monkeypatch: Patch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.CRITICAL)
    mistake(monkeypatch)
    with pytest.raises(AssertionError):
        run_state_machine_as_test(machine, settings=FIND)
