"""The record of one attempt."""

from __future__ import annotations

import contextvars
import dataclasses

import pytest

from mcpconn.core import Evidence
from mcpconn.core.attempt import ATTEMPT, Attempt

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
    attempt = Attempt("call", "modern", written=False)
    assert attempt.evidence() == Evidence(phase="call", era="modern", written=False)
    assert (attempt.progressed, attempt.earlier, attempt.started, attempt.failed) == (False, 0, False, False)
    assert attempt.answered is False
    assert Attempt("probe").evidence() == Evidence(phase="probe")


def test_what_is_noted_becomes_evidence() -> None:
    attempt = Attempt("dial", "legacy")
    for name, value in FIELDS.items():
        setattr(attempt, name, value)
    attempt.written = True
    assert attempt.evidence() == Evidence(phase="dial", era="legacy", written=True, **FIELDS)  # type: ignore[arg-type]


def test_every_field_of_evidence_is_taken_from_the_record() -> None:
    assert {field.name for field in dataclasses.fields(Evidence)} == {*FIELDS, "written", "era", "phase"}
    assert {field.name for field in dataclasses.fields(Evidence)} <= set(Attempt.__slots__)


def test_a_record_has_slots() -> None:
    assert not hasattr(Attempt("call"), "__dict__")


def test_the_next_request_has_a_clean_record() -> None:
    attempt = Attempt("call", "legacy")
    for name, value in FIELDS.items():
        setattr(attempt, name, value)
    attempt.start()
    assert attempt.evidence() == Evidence(phase="call", era="legacy", written=False)
    assert attempt.started


def test_progress_is_remembered_over_requests_and_an_answer_is_one_requests() -> None:
    attempt = Attempt("call")
    attempt.progressed = attempt.answered = True
    attempt.start()
    assert attempt.progressed
    assert not attempt.answered


def test_a_first_request_has_none_before_it() -> None:
    attempt = Attempt("call", written=True)
    attempt.start()
    assert attempt.earlier == 0


@pytest.mark.parametrize(
    ("noted", "refused"),
    [
        ({"written": True}, False),
        ({"written": None}, False),
        ({"written": True, "http_status": 200}, False),
        ({"written": True, "http_status": 399}, False),
        ({"written": True, "http_status": 400}, True),
        ({"written": True, "http_status": 408}, False),
        ({"written": True, "http_status": 499}, False),
        ({"written": True, "http_status": 498}, True),
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
    attempt = Attempt("call")
    for count in (1, 2):
        attempt.start()
        for name, value in noted.items():
            setattr(attempt, name, value)
        assert attempt.earlier == (0 if refused else count - 1)
    attempt.start()
    assert attempt.earlier == (0 if refused else 2)


def test_a_second_request_starts_clean() -> None:
    attempt = Attempt("call", "legacy")
    attempt.start()
    attempt.start_request(session_sent=True, written=False)
    for name, value in FIELDS.items():
        setattr(attempt, name, value)
    attempt.written, attempt.http_status, attempt.code = True, 307, None
    attempt.start_request(session_sent=False, written=None)
    assert attempt.evidence() == Evidence(phase="call", era="legacy", session_sent=False, written=None)
    assert attempt.earlier == 0
    attempt.written, attempt.http_status = True, 502
    attempt.start_request(session_sent=True, written=False)
    assert (attempt.earlier, attempt.written, attempt.session_sent) == (1, False, True)


def test_a_call_is_unsafe_only_if_said_to_be() -> None:
    assert (Attempt("call").unsafe, Attempt("call", unsafe=True).unsafe) == (False, True)


@pytest.mark.parametrize(
    ("status", "failed"),
    [(None, False), (200, False), (201, False), (202, True), (203, False), (299, False), (300, True), (404, True)],
)
def test_the_wire_saw_it_fail_by_its_status(status: int | None, failed: bool) -> None:
    attempt = Attempt("call")
    attempt.http_status = status
    assert attempt.failed is failed


def test_the_wire_saw_an_exception() -> None:
    attempt = Attempt("call")
    attempt.http_status = 200
    attempt.exception = ConnectionResetError()
    assert attempt.failed is True


def test_a_jsonrpc_error_in_a_good_answer_is_no_failure_of_the_wire() -> None:
    attempt = Attempt("call")
    attempt.http_status, attempt.code = 200, -32000
    assert attempt.failed is False


def test_the_record_of_the_present_attempt_is_known_in_its_context_alone() -> None:
    attempt = Attempt("call")

    def inner() -> Attempt | None:
        ATTEMPT.set(attempt)
        return ATTEMPT.get()

    assert ATTEMPT.get() is None
    assert contextvars.copy_context().run(inner) is attempt
    assert ATTEMPT.get() is None
    assert ATTEMPT.name == "mcpconn_attempt"
