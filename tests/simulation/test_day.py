"""Twenty simulated days, ten on each event loop. `make soak` lives through a thousand."""

from __future__ import annotations

from typing import Any

import h11
import pytest

from mcpconn import Event, Failure, FailureKind, State
from mcpconn.core.attempt import Attempt
from mcpconn.core.decide import decide, may_replay
from mcpconn.runtime import lifecycle, retries
from mcpconn.wire.engine.http1 import HttpSocket
from tests.simulation import day
from tests.simulation.day import DayFailed, live_through

# The SDK leaves response bodies unfinished, and trio warns of that; see tests/support.py.
pytestmark = pytest.mark.filterwarnings("ignore:Async generator 'http(x|core)2:ResourceWarning")


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_on_a_day_of_outages_callers_are_told_the_truth(backend: str, seed: int) -> None:
    lived = live_through(seed, backend)
    assert lived.calls > 300
    # A day on which nothing went wrong would prove nothing.
    assert min(lived.troubles[kind] for kind in ("outage", "restart", "expiry", "brownout")) > 0
    assert min(lived.transitions[event] for event in ("lost", "suspected", "attempt_failed", "established")) > 0
    assert lived.outcomes["answered"] > lived.calls / 2


def live_through_crowded_hours(monkeypatch: pytest.MonkeyPatch, trouble: str) -> None:
    """Two hours with more calls, and more trouble of one kind, than ten days have: those take minutes."""
    monkeypatch.setattr(day, "KINDS", (trouble,))
    monkeypatch.setattr(day, "TROUBLES", 100.0)
    monkeypatch.setattr(day, "VISITS", 500.0)
    for seed in range(10):
        live_through(seed, "asyncio", servers=8, seconds=2 * 3600.0)


def test_a_connection_that_probes_nothing_it_has_no_name_for_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    unnamed = (FailureKind.PROTOCOL, FailureKind.CONFIG, FailureKind.APPLICATION)

    def only_known_words(state: State, failure: Failure, **facts: Any) -> Event | None:
        return None if failure.kind in unnamed else decide(state, failure, **facts)

    monkeypatch.setattr(lifecycle, "decide", only_known_words)
    with pytest.raises(DayFailed, match=r"still ready on session|calls still fail after 10 s"):
        live_through_crowded_hours(monkeypatch, "expiry")


def careless_recycle(self: HttpSocket, now: float) -> bool:
    """As HTTP libraries do it: what is left over in the parser goes on to the next request."""
    if self._http.our_state is not h11.DONE or self._http.their_state is not h11.DONE:
        return False
    self._http.start_next_cycle()
    self.used += 1
    self.idle_since = now
    return True


def test_an_engine_that_keeps_left_over_bytes_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(HttpSocket, "recycle", careless_recycle)
    with pytest.raises(DayFailed, match=r"ran at most once|not run|mixed up"):
        for seed in range(10):
            live_through(seed, "asyncio")


def test_a_record_of_two_requests_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    original = Attempt.start_request

    def start_request(self: Attempt, *, session_sent: bool, written: bool | None) -> None:
        status = self.http_status
        original(self, session_sent=session_sent, written=written)
        self.http_status = status

    monkeypatch.setattr(Attempt, "start_request", start_request)
    monkeypatch.setattr(day, "FAULTS", ["redirect, and dropped there", "redirect, and 502 there"])
    with pytest.raises(DayFailed, match=r"ran at most once|not run"):
        live_through_crowded_hours(monkeypatch, "fault")


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_seed_repeats_its_day(backend: str) -> None:
    digests = {live_through(seed, backend, servers=4).digest for seed in (1, 1, 2)}
    assert len(digests) == 2


def test_a_failed_day_says_how_to_repeat_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def careless(failure: Any, **facts: Any) -> bool:
        return may_replay(failure, **{**facts, "safe": True})

    monkeypatch.setattr(retries, "may_replay", careless)
    with pytest.raises(DayFailed, match=r"ran at most once(.|\n)*--seed 0 --backend trio"):
        live_through(0, "trio", servers=20)
