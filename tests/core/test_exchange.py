"""The record of one attempt."""

from __future__ import annotations

import contextvars
import dataclasses

import pytest

from mcpconn.core import Evidence
from mcpconn.core.exchange import EXCHANGE, Exchange

FIELDS = {
    "exception": ValueError("boom"),
    "code": -32000,
    "message": "no",
    "http_status": 503,
    "content_type": "text/html",
    "retry_after": 1.5,
    "challenge": "Bearer",
    "hint": "it wants Bearer credentials",
    "session_sent": True,
    "from_wire": True,
}


def test_a_new_record_holds_what_it_was_told_and_nothing_else() -> None:
    exchange = Exchange("call", "modern", written=False)
    assert exchange.evidence() == Evidence(phase="call", era="modern", written=False)
    assert (exchange.progressed, exchange.earlier, exchange.started, exchange.failed) == (False, 0, False, False)
    assert exchange.answered is False
    assert Exchange("probe").evidence() == Evidence(phase="probe")


def test_what_is_noted_becomes_evidence() -> None:
    exchange = Exchange("dial", "legacy")
    for name, value in FIELDS.items():
        setattr(exchange, name, value)
    exchange.written = True
    assert exchange.evidence() == Evidence(phase="dial", era="legacy", written=True, **FIELDS)  # type: ignore[arg-type]


def test_every_field_of_evidence_is_taken_from_the_record() -> None:
    assert {field.name for field in dataclasses.fields(Evidence)} == {*FIELDS, "written", "era", "phase"}
    assert {field.name for field in dataclasses.fields(Evidence)} <= set(Exchange.__slots__)


def test_a_record_has_slots() -> None:
    assert not hasattr(Exchange("call"), "__dict__")


def test_the_next_request_starts_with_a_clean_record() -> None:
    exchange = Exchange("call", "legacy")
    for name, value in FIELDS.items():
        setattr(exchange, name, value)
    exchange.start()
    assert exchange.evidence() == Evidence(phase="call", era="legacy", written=False)
    assert exchange.started


def test_progress_is_remembered_over_requests_and_an_answer_is_one_requests() -> None:
    exchange = Exchange("call")
    exchange.progressed = exchange.answered = True
    exchange.start()
    assert exchange.progressed
    assert not exchange.answered


def test_the_first_request_has_none_before_it() -> None:
    exchange = Exchange("call", written=True)
    exchange.start()
    assert exchange.earlier == 0


@pytest.mark.parametrize(
    ("noted", "refused"),
    [
        ({"written": True}, False),
        ({"written": None}, False),
        ({"written": True, "http_status": 200}, False),
        ({"written": True, "http_status": 399}, False),
        ({"written": True, "http_status": 400}, True),
        ({"written": True, "http_status": 408}, False),
        ({"written": True, "http_status": 499}, True),
        ({"written": True, "http_status": 500}, False),
        ({"written": True, "http_status": 503, "code": -32000}, False),
        ({"written": True, "http_status": 301}, True),
        ({"written": True, "http_status": 302}, False),
        ({"written": True, "http_status": 303}, False),
        ({"written": True, "http_status": 307}, True),
        ({"written": True, "http_status": 308}, True),
        ({"written": True, "http_status": 200, "code": -32601}, True),
        ({"written": True, "code": 0}, True),
        ({"written": False}, True),
    ],
)
def test_a_request_that_was_not_refused_counts_as_an_earlier_one(noted: dict[str, object], refused: bool) -> None:
    exchange = Exchange("call")
    for count in (1, 2):
        exchange.start()
        for name, value in noted.items():
            setattr(exchange, name, value)
        assert exchange.earlier == (0 if refused else count - 1)
    exchange.start()
    assert exchange.earlier == (0 if refused else 2)


def test_a_message_sent_in_a_second_request_starts_clean() -> None:
    exchange = Exchange("call", "legacy")
    exchange.start()
    exchange.start_request(session_sent=True, written=False)
    for name, value in FIELDS.items():
        setattr(exchange, name, value)
    exchange.written, exchange.http_status, exchange.code = True, 307, None
    exchange.start_request(session_sent=False, written=None)
    assert exchange.evidence() == Evidence(phase="call", era="legacy", session_sent=False, written=None)
    assert exchange.earlier == 0
    exchange.written, exchange.http_status = True, 502
    exchange.start_request(session_sent=True, written=False)
    assert (exchange.earlier, exchange.written, exchange.session_sent) == (1, False, True)


def test_a_call_is_unsafe_only_when_it_is_said_to_be() -> None:
    assert (Exchange("call").unsafe, Exchange("call", unsafe=True).unsafe) == (False, True)


@pytest.mark.parametrize(
    ("status", "failed"),
    [(None, False), (200, False), (201, False), (202, True), (203, False), (299, False), (300, True), (404, True)],
)
def test_the_wire_saw_it_fail_by_its_status(status: int | None, failed: bool) -> None:
    exchange = Exchange("call")
    exchange.http_status = status
    assert exchange.failed is failed


def test_the_wire_saw_it_fail_by_an_exception() -> None:
    exchange = Exchange("call")
    exchange.http_status = 200
    exchange.exception = ConnectionResetError()
    assert exchange.failed is True


def test_a_jsonrpc_error_in_a_good_answer_is_no_failure_of_the_wire() -> None:
    exchange = Exchange("call")
    exchange.http_status, exchange.code = 200, -32000
    assert exchange.failed is False


def test_the_record_of_the_present_attempt_is_known_in_its_context_alone() -> None:
    exchange = Exchange("call")

    def inner() -> Exchange | None:
        EXCHANGE.set(exchange)
        return EXCHANGE.get()

    assert EXCHANGE.get() is None
    assert contextvars.copy_context().run(inner) is exchange
    assert EXCHANGE.get() is None
    assert EXCHANGE.name == "mcpconn_exchange"
