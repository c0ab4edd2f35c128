"""When to dial."""

from __future__ import annotations

import random

import pytest

from mcpconn import Delivery, Failure, FailureKind, Policy
from mcpconn.core.backoff import Backoff
from mcpconn.runtime.clock import Clock
from mcpconn.runtime.dial_schedule import FREE_SHORT_LIVES, DialSchedule

K = FailureKind


class Time:
    now = 1000.0


@pytest.fixture
def time() -> Time:
    return Time()


@pytest.fixture
def schedule(time: Time) -> DialSchedule:
    policy = Policy(backoff=Backoff(jitter=0))
    return DialSchedule(policy, Clock(now=lambda: time.now, rng=random.Random(1)))


def failure(kind: FailureKind, *, retry_after: float | None = None, delivery: Delivery = Delivery.UNKNOWN) -> Failure:
    return Failure(kind=kind, delivery=delivery, proof=True, summary="it broke", retry_after=retry_after)


EXPIRED = failure(K.SESSION_EXPIRED)
LOST = failure(K.TRANSPORT_LOST)
REFUSED = failure(K.UNAVAILABLE, delivery=Delivery.NOT_SENT)


def test_a_first_dial_and_the_first_after_a_proven_session_are_made_at_once(schedule: DialSchedule) -> None:
    schedule.set_due()
    assert schedule.due is None
    assert schedule.lost(EXPIRED, proven=True, age=60).summary == "it broke"
    schedule.set_due()
    assert schedule.due is None


def test_failed_dials_get_further_apart(schedule: DialSchedule, time: Time) -> None:
    delays: list[float] = []
    for _ in range(12):
        schedule.attempts += 1
        schedule.due = None
        schedule.set_due()
        assert schedule.due is not None
        delays.append(round(schedule.due - time.now, 2))
    assert delays[:4] == [1.0, 1.6, 2.56, 4.1]
    assert delays[-1] == 60


def test_what_is_due_is_not_scheduled_again(schedule: DialSchedule, time: Time) -> None:
    schedule.attempts = 3
    schedule.set_due()
    due = schedule.due
    time.now += 1
    schedule.set_due(floor=100)
    assert schedule.due == due


@pytest.mark.parametrize(("proven", "age", "attempts"), [(True, 0, 0), (False, 11, 0), (False, 9, 5)])
def test_attempts_are_forgotten_by_a_useful_session(
    schedule: DialSchedule, proven: bool, age: float, attempts: int
) -> None:
    schedule.attempts = schedule.cool_downs = 4
    schedule.lost(LOST, proven=proven, age=age)
    assert schedule.attempts == attempts
    assert schedule.cool_downs == (4 if attempts else 0)


def test_a_server_that_drops_what_it_accepts_is_called_that(schedule: DialSchedule) -> None:
    assert schedule.lost(LOST, proven=False, age=0).summary == "it broke"
    summary = schedule.lost(LOST, proven=False, age=0).summary
    assert summary == "it broke; the server accepted 2 sessions in a row and dropped each before it could be used"


def test_sessions_forgotten_young_slow_dialling_down(schedule: DialSchedule, time: Time) -> None:
    for number in range(1, 6):
        lost = schedule.lost(EXPIRED, proven=True, age=3)
        scattered = number > FREE_SHORT_LIVES
        assert schedule.replicas_suspected is scattered
        assert ("several replicas behind a balancer" in lost.summary) is scattered
        schedule.set_due()
        assert (schedule.due is not None) is scattered
        # In that pattern one refusal proves nothing.
        assert schedule.weaken(EXPIRED).proof is not scattered
        assert schedule.weaken(LOST) is LOST
    # One that lasts ends the series.
    schedule.lost(EXPIRED, proven=True, age=60)
    assert not schedule.replicas_suspected


def test_the_pattern_is_not_told_twice(schedule: DialSchedule) -> None:
    for _ in range(4):
        schedule.lost(EXPIRED, proven=True, age=1)
    doubted = schedule.weaken(EXPIRED)
    assert schedule._with_replica_hint(doubted) == doubted


def test_what_a_server_asks_for_is_a_floor_and_is_asked_once(schedule: DialSchedule, time: Time) -> None:
    schedule.lost(failure(K.UNAVAILABLE, retry_after=30), proven=True, age=60)
    schedule.set_due()
    assert schedule.due == time.now + 30
    schedule.due = None
    schedule.attempts = 1
    schedule.set_due()
    assert schedule.due == time.now + 1
    schedule.due = None
    schedule.set_due(floor=7)
    assert schedule.due == time.now + 7


def test_a_waiting_call_hastens_the_dial_of_a_server_whose_port_refuses(schedule: DialSchedule, time: Time) -> None:
    schedule.attempts = 8
    schedule.set_due()
    due = schedule.due
    assert due is not None
    assert schedule.due_for_waiters(REFUSED, waiting=False) == due
    assert schedule.due_for_waiters(failure(K.UNAVAILABLE), waiting=True) == due
    assert schedule.due_for_waiters(None, waiting=True) == due
    asked = failure(K.UNAVAILABLE, delivery=Delivery.NOT_SENT, retry_after=5)
    assert schedule.due_for_waiters(asked, waiting=True) == due
    assert schedule.due_for_waiters(REFUSED, waiting=True) == time.now + 1
    # It counts from the last dial, however often somebody asks.
    time.now += 0.7
    assert schedule.due_for_waiters(REFUSED, waiting=True) == time.now + 0.3


def test_a_returned_server_is_dialled_at_once_if_its_port_refused(schedule: DialSchedule, time: Time) -> None:
    # Nothing is due: a dial is in progress, or a person is waited for.
    assert not schedule.server_returned(REFUSED)
    schedule.cool_down(forever=False)
    due = schedule.due
    for other in (
        None,
        LOST,
        failure(K.UNAVAILABLE),
        failure(K.UNAVAILABLE, delivery=Delivery.NOT_SENT, retry_after=5),
    ):
        assert not schedule.server_returned(other)
        assert schedule.due == due
    assert schedule.server_returned(REFUSED)
    assert schedule.due == time.now


def test_cool_downs_double_to_their_maximum(schedule: DialSchedule, time: Time) -> None:
    waits = []
    for _ in range(6):
        schedule.cool_down(forever=False)
        assert schedule.due is not None
        waits.append(schedule.due - time.now)
    assert waits == [30, 60, 120, 240, 300, 300]
    schedule.cool_down(forever=True)
    assert schedule.due is None


def test_a_fresh_start_forgets_all_but_the_cool_down(schedule: DialSchedule, time: Time) -> None:
    for keep in (True, False):
        schedule.attempts = schedule.cool_downs = schedule.short_lives = 5
        schedule.due = schedule.floor = 99.0
        (schedule.end_cool_down if keep else schedule.reset)()
        assert schedule.series.half_open is keep
        assert (schedule.attempts, schedule.due, schedule.floor, schedule.series.began) == (0, None, None, time.now)
        assert schedule.cool_downs == (5 if keep else 0)
