"""How an event stream is reopened: the waits, and what counts as one that works."""

from __future__ import annotations

import pytest

from mcpconn.core.stream import (
    ASKED_CEILING,
    JITTER,
    REOPEN_CEILING,
    REOPEN_FLOOR,
    STEADY,
    StreamRecord,
    StreamState,
    StreamStatus,
)


def waits(record: StreamRecord, times: int) -> list[float]:
    """The waits after as many failures to open it."""
    return [record.lost(0.0, "refused") for _ in range(times)]


def test_waits_double_from_1_s_to_60_s() -> None:
    assert waits(StreamRecord(), 8) == [1, 2, 4, 8, 16, 32, 60, 60]


def test_a_stream_that_lived_thirty_seconds_begins_at_one_again() -> None:
    record = StreamRecord()
    waits(record, 5)
    record.open(100.0)
    assert record.lost(100.0 + STEADY, "cut") == REOPEN_FLOOR


def test_a_short_lived_stream_keeps_doubling_the_wait() -> None:
    record = StreamRecord()
    waits(record, 2)
    record.open(100.0)
    assert record.lost(100.0 + STEADY - 0.1, "cut") == 4


@pytest.mark.parametrize(("asked", "wait"), [(None, 1), (0.0, 1), (0.01, 1), (5.0, 5), (3600.0, ASKED_CEILING)])
def test_a_server_can_ask_for_longer_waits_but_not_for_shorter_ones(asked: float | None, wait: float) -> None:
    assert StreamRecord().lost(0.0, "refused", asked=asked) == wait


def test_jitter_only_lengthens_a_wait() -> None:
    assert StreamRecord(lambda: 1.0).lost(0.0, "cut") == REOPEN_FLOOR * (1 + JITTER)
    late = StreamRecord(lambda: 1.0)
    waits(late, 20)
    assert late.lost(0.0, "cut") == REOPEN_CEILING * (1 + JITTER)


def test_an_open_or_refused_stream_settles() -> None:
    record = StreamRecord()
    assert record.known
    record.opening()
    assert not record.known
    record.open(1.0)
    assert record.known
    record.lost(2.0, "cut")
    record.opening()
    assert record.known


@pytest.mark.parametrize("final", [False, True])
def test_a_first_refusal_settles_it_too(final: bool) -> None:
    record = StreamRecord()
    record.opening()
    if final:
        record.refuse("HTTP 405")
    else:
        record.lost(1.0, "HTTP 409")
    assert record.known


def test_its_status_tells_past_and_next_step() -> None:
    now = 20.0
    record = StreamRecord()

    def status() -> StreamStatus | None:
        return record.status(lambda: now)

    assert status() is None
    record.opening()
    record.open(10.0)
    assert status() == {"state": "open", "opened": 1, "reason": None, "retry_in": None}
    record.lost(20.0, "cut")
    now = 20.25
    assert status() == {"state": "waiting", "opened": 1, "reason": "cut", "retry_in": 0.75}
    now = 30.0
    assert status() == {"state": "waiting", "opened": 1, "reason": "cut", "retry_in": 0.0}
    record.refuse("HTTP 405")
    assert status() == {"state": "refused", "opened": 1, "reason": "HTTP 405", "retry_in": None}


def test_listeners_hear_every_change_until_they_unsubscribe() -> None:
    record, heard = StreamRecord(), list[StreamState]()
    unsubscribe = record.subscribe(lambda: heard.append(record.state))
    record.opening()
    record.open(0.0)
    unsubscribe()
    unsubscribe()
    record.lost(1.0, "cut")
    assert heard == [StreamState.OPENING, StreamState.OPEN]
