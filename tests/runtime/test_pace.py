"""When to dial."""

from __future__ import annotations

import random

import pytest

from mcpconn import Delivery, Failure, FailureKind, Policy
from mcpconn.core.backoff import Backoff
from mcpconn.runtime.clock import Clock
from mcpconn.runtime.pace import FREE_SHORT_LIVES, Pace

K = FailureKind


class Time:
    now = 1000.0


@pytest.fixture
def time() -> Time:
    return Time()


@pytest.fixture
def pace(time: Time) -> Pace:
    policy = Policy(backoff=Backoff(jitter=0))
    return Pace(policy, Clock(now=lambda: time.now, rng=random.Random(1)))


def failure(kind: FailureKind, *, retry_after: float | None = None, delivery: Delivery = Delivery.UNKNOWN) -> Failure:
    return Failure(kind=kind, delivery=delivery, proof=True, summary="it broke", retry_after=retry_after)


EXPIRED = failure(K.SESSION_EXPIRED)
LOST = failure(K.TRANSPORT_LOST)
REFUSED = failure(K.UNAVAILABLE, delivery=Delivery.NOT_SENT)


def test_a_first_dial_and_the_first_after_a_proven_session_are_made_at_once(pace: Pace) -> None:
    pace.schedule()
    assert pace.due is None
    assert pace.lost(EXPIRED, proven=True, age=60).summary == "it broke"
    pace.schedule()
    assert pace.due is None


def test_failed_dials_are_further_and_further_apart(pace: Pace, time: Time) -> None:
    delays: list[float] = []
    for _ in range(12):
        pace.attempts += 1
        pace.due = None
        pace.schedule()
        assert pace.due is not None
        delays.append(round(pace.due - time.now, 2))
    assert delays[:4] == [1.0, 1.6, 2.56, 4.1]
    assert delays[-1] == 60


def test_what_is_due_is_not_scheduled_again(pace: Pace, time: Time) -> None:
    pace.attempts = 3
    pace.schedule()
    due = pace.due
    time.now += 1
    pace.schedule(floor=100)
    assert pace.due == due


@pytest.mark.parametrize(("proven", "age", "attempts"), [(True, 0, 0), (False, 11, 0), (False, 9, 5)])
def test_attempts_are_forgotten_when_a_session_was_of_use_and_not_at_its_handshake(
    pace: Pace, proven: bool, age: float, attempts: int
) -> None:
    pace.attempts = pace.cool_downs = 4
    pace.lost(LOST, proven=proven, age=age)
    assert pace.attempts == attempts
    assert pace.cool_downs == (4 if attempts else 0)


def test_a_server_that_drops_what_it_accepts_is_called_that(pace: Pace) -> None:
    assert pace.lost(LOST, proven=False, age=0).summary == "it broke"
    summary = pace.lost(LOST, proven=False, age=0).summary
    assert summary == "it broke; the server accepted 2 sessions in a row and dropped each before it could be used"


def test_sessions_forgotten_young_slow_the_dialling_down_and_are_called_what_they_look_like(
    pace: Pace, time: Time
) -> None:
    for number in range(1, 6):
        lost = pace.lost(EXPIRED, proven=True, age=3)
        scattered = number > FREE_SHORT_LIVES
        assert pace.scattered is scattered
        assert ("several replicas behind a balancer" in lost.summary) is scattered
        pace.schedule()
        assert (pace.due is not None) is scattered
        # In that pattern one refusal proves nothing.
        assert pace.doubt(EXPIRED).proof is not scattered
        assert pace.doubt(LOST) is LOST
    # One that lasts ends the series.
    pace.lost(EXPIRED, proven=True, age=60)
    assert not pace.scattered


def test_the_pattern_is_not_told_twice(pace: Pace) -> None:
    for _ in range(4):
        pace.lost(EXPIRED, proven=True, age=1)
    doubted = pace.doubt(EXPIRED)
    assert pace._explained(doubted) == doubted


def test_what_a_server_asks_for_is_a_floor_and_is_asked_once(pace: Pace, time: Time) -> None:
    pace.lost(failure(K.UNAVAILABLE, retry_after=30), proven=True, age=60)
    pace.schedule()
    assert pace.due == time.now + 30
    pace.due = None
    pace.attempts = 1
    pace.schedule()
    assert pace.due == time.now + 1
    pace.due = None
    pace.schedule(floor=7)
    assert pace.due == time.now + 7


def test_a_waiting_call_hastens_the_dial_of_a_server_whose_port_refuses(pace: Pace, time: Time) -> None:
    pace.attempts = 8
    pace.schedule()
    due = pace.due
    assert due is not None
    assert pace.hastened(REFUSED, waiting=False) == due
    assert pace.hastened(failure(K.UNAVAILABLE), waiting=True) == due
    assert pace.hastened(None, waiting=True) == due
    asked = failure(K.UNAVAILABLE, delivery=Delivery.NOT_SENT, retry_after=5)
    assert pace.hastened(asked, waiting=True) == due
    assert pace.hastened(REFUSED, waiting=True) == time.now + 1
    # It counts from the last dial, however often somebody asks.
    time.now += 0.7
    assert pace.hastened(REFUSED, waiting=True) == time.now + 0.3


def test_news_that_the_server_is_back_makes_the_next_dial_due_where_its_port_refused_and_nowhere_else(
    pace: Pace, time: Time
) -> None:
    # Nothing is due: a dial is under way, or a person is waited for.
    assert not pace.encouraged(REFUSED)
    pace.cool_down(forever=False)
    due = pace.due
    for other in (
        None,
        LOST,
        failure(K.UNAVAILABLE),
        failure(K.UNAVAILABLE, delivery=Delivery.NOT_SENT, retry_after=5),
    ):
        assert not pace.encouraged(other)
        assert pace.due == due
    assert pace.encouraged(REFUSED)
    assert pace.due == time.now


def test_cool_downs_double_up_to_their_maximum_and_a_person_is_waited_for_without_end(pace: Pace, time: Time) -> None:
    waits = []
    for _ in range(6):
        pace.cool_down(forever=False)
        assert pace.due is not None
        waits.append(pace.due - time.now)
    assert waits == [30, 60, 120, 240, 300, 300]
    pace.cool_down(forever=True)
    assert pace.due is None


def test_a_fresh_start_forgets_everything_and_a_probe_after_a_cool_down_all_but_that(pace: Pace, time: Time) -> None:
    for keep in (True, False):
        pace.attempts = pace.cool_downs = pace.short_lives = 5
        pace.due = pace.floor = 99.0
        pace.fresh(keep_cool_down=keep)
        assert (pace.attempts, pace.due, pace.floor, pace.began) == (0, None, None, time.now)
        assert pace.cool_downs == (5 if keep else 0)
