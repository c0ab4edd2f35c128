"""Twenty simulated days, ten on each event loop. `make soak` lives through a thousand."""

from __future__ import annotations

from typing import Any

import pytest

from mcpconn.core.decide import may_replay
from mcpconn.runtime import calls
from tests.simulation.day import DayFailed, live_through

# The SDK leaves response bodies unfinished, and trio warns of that; see tests/support.py.
pytestmark = pytest.mark.filterwarnings("ignore:Async generator 'http(x|core)2:ResourceWarning")


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_on_a_day_of_outages_nobody_is_told_anything_untrue(backend: str, seed: int) -> None:
    day = live_through(seed, backend)
    assert day.calls > 300
    # A day on which nothing went wrong would prove nothing.
    assert min(day.troubles[kind] for kind in ("outage", "restart", "expiry", "brownout")) > 0
    assert min(day.transitions[event] for event in ("lost", "suspected", "attempt_failed", "established")) > 0
    assert day.outcomes["answered"] > day.calls / 2


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_seed_repeats_its_day(backend: str) -> None:
    digests = {live_through(seed, backend, servers=4).digest for seed in (1, 1, 2)}
    assert len(digests) == 2


def test_a_day_that_fails_says_how_to_repeat_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def careless(failure: Any, **facts: Any) -> bool:
        return may_replay(failure, **{**facts, "safe": True})

    monkeypatch.setattr(calls, "may_replay", careless)
    with pytest.raises(DayFailed, match=r"ran at most once(.|\n)*--seed 0 --backend trio"):
        live_through(0, "trio", servers=20)
