"""The shortest sequences in which the runtime and the model once differed: the model knew too little."""

from __future__ import annotations

import pytest

from mcpconn import State
from tests.properties.sequences import FORGOTTEN, Rule, met_by, on, play
from tests.properties.test_model_conformance import Conformance

SCATTERED = (*FORGOTTEN * 3, on("advance", seconds=3.0))
"""Three sessions in a row are forgotten at once, as replicas do that share none."""


@pytest.mark.parametrize(
    "rules",
    [
        FORGOTTEN,
        [met_by("404")],
        [on("forget"), met_by("404", times=3)],
        # The probe meets another replica, and what that one says counts.
        [on("fail_probes", fault="429", times=1), *FORGOTTEN],
        [on("fail_probes", fault="expired, 200", times=1), met_by("404")],
        [on("restart"), on("call", number=0, tool="add"), on("advance", seconds=3.0), on("call", number=1, tool="add")],
    ],
    ids=lambda rules: " ".join(rule for rule, _ in rules),
)
def test_a_404_is_only_a_suspicion_where_replicas_share_no_sessions(rules: list[Rule]) -> None:
    play(Conformance, [*SCATTERED, *rules])


@pytest.mark.parametrize("tool", ["add", "charge"])
@pytest.mark.parametrize("times", [1, 3])
def test_a_tool_says_that_a_session_expired_while_the_servers_own_has(tool: str, times: int) -> None:
    play(
        Conformance,
        [on("fail_probes", fault="expired, 200", times=times), met_by("application error", tool, times)],
    )


@pytest.mark.parametrize("tool", ["add", "charge"])
def test_a_session_is_forgotten_and_its_call_answered_in_other_words(tool: str) -> None:
    play(Conformance, [on("forget"), met_by("expired, 200", tool, times=3)])


def test_a_probe_is_not_answered_long_after_its_call_has_ended() -> None:
    play(
        Conformance,
        [on("fail_probes", fault="hang", times=1), met_by("cut stream", "charge"), on("advance", seconds=15.0)],
    )


@pytest.mark.parametrize(("seconds", "epoch"), [(245.0, 1), (255.0, 2)])
def test_an_old_session_is_replaced(seconds: float, epoch: int) -> None:
    machine = Conformance()
    try:
        machine.advance(seconds)
        assert (machine.connection.state, machine.connection.epoch) == (State.READY, epoch)
    finally:
        machine.abandon()
