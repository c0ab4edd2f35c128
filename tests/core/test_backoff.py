"""How long to wait, and how many replays there are."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcpconn.core import Backoff, ReplayBudget

SECONDS = st.floats(0, 1000)
BACKOFFS = st.builds(
    Backoff,
    initial=st.floats(0.001, 100),
    factor=st.floats(1, 10),
    maximum=st.floats(0.001, 1000),
    jitter=st.floats(0, 1),
)
ATTEMPTS = st.integers(-3, 10_000)


class Fixed(random.Random):
    """Always the same number."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self.value = value

    def random(self) -> float:
        return self.value


MIDDLE = Fixed(0.5)
"""No jitter either way."""


def test_figures_are_grpcs_with_half_the_cap() -> None:
    backoff = Backoff()
    assert (backoff.initial, backoff.factor, backoff.maximum, backoff.jitter) == (1.0, 1.6, 60.0, 0.2)
    delays = [backoff.delay(attempt, MIDDLE) for attempt in range(12)]
    assert delays == pytest.approx(
        [0, 1, 1.6, 2.56, 4.096, 6.5536, 10.48576, 16.777216, 26.8435456, 42.94967296, 60, 60]
    )


@given(backoff=BACKOFFS, attempt=ATTEMPTS, seed=st.integers(), floor=st.none() | SECONDS)
def test_a_server_that_asked_to_wait_is_not_asked_earlier(
    backoff: Backoff, attempt: int, seed: int, floor: float | None
) -> None:
    assert backoff.delay(attempt, random.Random(seed), floor=floor) >= (floor or 0)


@given(backoff=BACKOFFS, attempt=ATTEMPTS, seed=st.integers(), ceiling=st.none() | SECONDS)
def test_a_delay_stays_within_its_bounds(backoff: Backoff, attempt: int, seed: int, ceiling: float | None) -> None:
    delay = backoff.delay(attempt, random.Random(seed), ceiling=ceiling)
    most = backoff.maximum if ceiling is None else min(backoff.maximum, ceiling)
    assert 0 <= delay <= most * (1 + backoff.jitter)


@given(backoff=BACKOFFS, attempt=ATTEMPTS)
def test_unjittered_delays_never_shrink(backoff: Backoff, attempt: int) -> None:
    assert backoff.delay(attempt, MIDDLE) <= backoff.delay(attempt + 1, MIDDLE)


@given(attempt=st.integers(1, 10_000), seed=st.integers())
def test_jitter_moves_a_delay_by_a_fifth(attempt: int, seed: int) -> None:
    plain = Backoff().delay(attempt, MIDDLE)
    assert 0.8 * plain <= Backoff().delay(attempt, random.Random(seed)) <= 1.2 * plain + 1e-9


def test_jitter_reaches_both_ends() -> None:
    assert Backoff().delay(1, Fixed(0.0)) == pytest.approx(0.8)
    assert Backoff().delay(1, Fixed(1.0)) == pytest.approx(1.2)
    assert Backoff(jitter=0.5).delay(2, Fixed(0.25)) == pytest.approx(1.6 * 0.75)


@given(attempt=st.integers(-100, 0), seed=st.integers())
def test_the_first_attempt_does_not_wait(attempt: int, seed: int) -> None:
    rng = random.Random(seed)
    state = rng.getstate()
    assert Backoff().delay(attempt, rng) == 0
    assert Backoff().delay(attempt, rng, floor=7) == 7
    assert Backoff().delay(attempt, rng, floor=-7) == 0
    assert rng.getstate() == state, "no dice for a delay that has none"


@pytest.mark.parametrize(
    ("arguments", "seconds"),
    [
        ({"ceiling": 2.0}, 2.0),
        ({"ceiling": 100.0}, 4.096),
        ({"floor": 3.0}, 4.096),
        ({"floor": 30.0}, 30.0),
        ({"floor": 30.0, "ceiling": 2.0}, 30.0),
        ({"ceiling": 0.0}, 0.0),
    ],
)
def test_floor_and_ceiling_bound_a_delay(arguments: dict[str, Any], seconds: float) -> None:
    assert Backoff().delay(4, MIDDLE, **arguments) == pytest.approx(seconds)


def test_a_ceiling_is_applied_before_the_jitter_and_a_floor_after_it() -> None:
    assert Backoff().delay(9, Fixed(1.0), ceiling=10) == pytest.approx(12)
    assert Backoff().delay(9, Fixed(0.0), ceiling=10, floor=9) == pytest.approx(9)


@pytest.mark.parametrize("attempt", [64, 65, 66, 10**6])
def test_many_failures_are_no_overflow(attempt: int) -> None:
    assert Backoff(maximum=1e300, initial=1e-9, factor=10).delay(attempt, MIDDLE) == pytest.approx(
        10.0 ** min(attempt - 1, 64) * 1e-9
    )


def test_numbers_have_names_and_are_frozen() -> None:
    with pytest.raises(TypeError):
        Backoff(1.0)  # type: ignore[call-arg] # that is the point
    with pytest.raises(AttributeError):
        Backoff().initial = 2.0  # type: ignore[misc] # that is the point


# -- the budget


def test_a_budget_begins_with_its_reserve() -> None:
    assert ReplayBudget().balance == 10
    assert ReplayBudget(reserve=3).balance == 3


def test_a_call_earns_a_fifth_of_a_replay() -> None:
    budget = ReplayBudget(reserve=0)
    for _ in range(5):
        assert not budget.withdraw()
        budget.deposit()
    assert budget.balance == pytest.approx(1)


def test_a_replay_takes_one() -> None:
    budget = ReplayBudget(reserve=2.5)
    assert [budget.withdraw(), budget.withdraw(), budget.withdraw()] == [True, True, False]
    assert budget.balance == pytest.approx(0.5)


def test_exactly_one_is_enough_for_a_replay() -> None:
    budget = ReplayBudget(reserve=1)
    assert budget.withdraw()
    assert budget.balance == 0


def test_no_more_than_the_most_is_saved() -> None:
    budget = ReplayBudget()
    for _ in range(1000):
        budget.deposit()
    assert budget.balance == 100
    small = ReplayBudget(ratio=5, reserve=1, maximum=3)
    small.deposit()
    assert small.balance == 3


def test_a_reserve_is_cut_to_the_maximum() -> None:
    budget = ReplayBudget(reserve=50, maximum=10)
    assert budget.balance == 50
    budget.deposit()
    assert budget.balance == 50


def test_a_budget_has_slots() -> None:
    assert not hasattr(ReplayBudget(), "__dict__")


@given(
    ratio=st.floats(0, 1),
    reserve=st.floats(0, 20),
    maximum=st.floats(0, 20),
    steps=st.lists(st.booleans(), max_size=200),
)
def test_a_budget_is_never_negative(ratio: float, reserve: float, maximum: float, steps: list[bool]) -> None:
    budget = ReplayBudget(ratio, reserve, maximum)
    earned = reserve
    for deposit in steps:
        before = budget.balance
        if deposit:
            budget.deposit()
            earned += ratio
            assert before <= budget.balance <= max(reserve, maximum)
        else:
            taken = budget.withdraw()
            assert taken == (before >= 1)
            assert budget.balance == (before - 1 if taken else before)
            earned -= taken
        assert 0 <= budget.balance <= earned + 1e-9
