"""`classify`: what is seen of an error, and what it amounts to."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import anyio
import httpx2
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mcp import MCPError

from mcpconn.core import DEFAULT_RULES, Delivery, Event, Evidence, FailureKind, Rule, State, classify, decide
from mcpconn.core.seen import Seen
from mcpconn.core.summary import SUMMARY_LIMIT
from tests.core.trees import any_case, as_cause, wrapped, wrappings
from tests.core.witnesses import WITNESSES, Witness

K, D = FailureKind, Delivery


@pytest.mark.parametrize("witness", WITNESSES, ids=str)
def test_what_is_seen_amounts_to_this(witness: Witness) -> None:
    failure = classify(witness.evidence)
    assert (failure.kind, failure.delivery, failure.proof) == (witness.kind, witness.delivery, witness.proof)
    assert failure.summary.startswith(witness.because)
    assert failure.evidence is witness.evidence


def test_every_rule_decides_something() -> None:
    deciding = {
        next(i for i, rule in enumerate(DEFAULT_RULES) if rule.matches(Seen(witness.evidence))) for witness in WITNESSES
    }
    assert sorted(deciding) == list(range(len(DEFAULT_RULES)))


# -- phrases

PHRASES = ("Invalid or expired session", "expired session", "session expired", "session not found", "unknown session")
INNOCENT = ("Tool failed to execute", "Missing parameter", "Connection refused", "401 Unauthorized", "")


@given(text=any_case(PHRASES), code=st.integers(-32768, 32767), local=st.booleans())
def test_a_session_phrase_in_a_jsonrpc_error_is_a_suspicion_in_any_case(text: str, code: int, local: bool) -> None:
    failure = classify(Evidence(code=code, message=f"Invalid params: {text}.", http_status=200, from_wire=not local))
    assert (failure.kind, failure.proof) == (K.SESSION_EXPIRED, False)
    assert decide(State.READY, failure) is Event.SUSPECTED


@given(text=any_case(PHRASES), how=wrappings())
def test_a_session_phrase_in_an_exception_is_a_suspicion(text: str, how: list[str]) -> None:
    failure = classify(Evidence(exception=wrapped(RuntimeError(text), *how)))
    assert (failure.kind, failure.proof) == (K.SESSION_EXPIRED, False)


@given(text=any_case(PHRASES), code=st.integers(-32768, 32767))
def test_a_session_phrase_in_an_mcp_error_is_a_suspicion_in_any_case(text: str, code: int) -> None:
    failure = classify(Evidence(exception=MCPError(code, text)))
    assert (failure.kind, failure.proof) == (K.SESSION_EXPIRED, False)


@given(text=any_case(INNOCENT), status=st.sampled_from([None, 200]), code=st.sampled_from([None, -32000, -32603, 7]))
def test_what_only_sounds_alike_never_says_that_a_session_expired(
    text: str, status: int | None, code: int | None
) -> None:
    for evidence in (
        Evidence(code=code, message=text, http_status=status, from_wire=True, session_sent=True),
        Evidence(exception=RuntimeError(text)),
        Evidence(exception=MCPError(code or 0, text)),
    ):
        assert classify(evidence).kind is not K.SESSION_EXPIRED


@given(text=any_case((*PHRASES, "")), how=wrappings(), rest=st.sampled_from([{}, {"http_status": 404}, {"code": 7}]))
def test_an_interrupt_is_never_an_expired_session_whatever_it_says(
    text: str, how: list[str], rest: dict[str, Any]
) -> None:
    evidence = Evidence(exception=wrapped(InterruptedError(text), *how), message=text, session_sent=True, **rest)
    assert classify(evidence).kind is K.CANCELLED


def test_an_empty_message_matches_no_phrase() -> None:
    assert classify(Evidence(code=-32000, message="", from_wire=True)).kind is K.APPLICATION
    assert classify(Evidence(http_status=400, message="", session_sent=True)).kind is K.PROTOCOL


def test_an_empty_message_leaves_the_word_to_the_exception() -> None:
    failure = classify(Evidence(code=-32000, message="", from_wire=True, exception=RuntimeError("unknown session")))
    assert failure.kind is K.SESSION_EXPIRED


def test_a_message_goes_before_the_exception() -> None:
    error = RuntimeError("unknown session")
    assert classify(Evidence(code=-32000, message="no", from_wire=True, exception=error)).kind is K.APPLICATION


# -- proof, as the design's section 4 has it


@pytest.mark.parametrize("body", [{"code": -32600, "message": "no"}, {"code": -32602, "message": "no"}, {}])
def test_a_404_with_session_id_is_proof_with_json_or_no_body(body: dict[str, Any]) -> None:
    failure = classify(Evidence(http_status=404, session_sent=True, content_type="", **body))
    assert (failure.kind, failure.delivery, failure.proof) == (K.SESSION_EXPIRED, D.REJECTED, True)


def test_an_unknown_methods_404_is_no_proof() -> None:
    evidence = Evidence(http_status=404, session_sent=True, code=-32601, message="no", from_wire=True)
    failure = classify(evidence)
    assert (failure.kind, failure.delivery, failure.proof) == (K.APPLICATION, D.REJECTED, False)
    assert decide(State.READY, failure) is Event.SUSPECTED


@pytest.mark.parametrize("content_type", ["text/html", "text/plain", "application/problem+json"])
def test_a_proxys_404_is_only_a_suspicion(content_type: str) -> None:
    failure = classify(Evidence(http_status=404, session_sent=True, content_type=content_type, phase="call"))
    assert decide(State.READY, failure) is Event.SUSPECTED


@pytest.mark.parametrize("sent", [False, None])
def test_a_404_without_session_is_no_proof(sent: bool | None) -> None:
    assert classify(Evidence(http_status=404, session_sent=sent, phase="call")).kind is K.UNAVAILABLE
    assert classify(Evidence(http_status=404, session_sent=sent, phase="dial")).kind is K.CONFIG


@pytest.mark.parametrize("status", [400, 401, 403, 503])
@pytest.mark.parametrize(("sent", "proof"), [(True, True), (False, False), (None, False)])
def test_a_refusal_in_a_session_phrase_is_proof_where_a_session_id_was_sent(
    status: int, sent: bool | None, proof: bool
) -> None:
    failure = classify(Evidence(http_status=status, session_sent=sent, message="session not found"))
    assert (failure.kind, failure.delivery, failure.proof) == (K.SESSION_EXPIRED, D.REJECTED, proof)


@given(text=any_case(("Session terminated before the request completed",)), sent=st.booleans())
def test_a_request_cut_off_while_running_may_have_run_whatever_the_status(text: str, sent: bool) -> None:
    for status in (None, 200, 404, 500):
        failure = classify(Evidence(http_status=status, code=-32603, message=text, from_wire=True, session_sent=sent))
        assert (failure.kind, failure.delivery) == (K.TRANSPORT_LOST, D.UNKNOWN)


def test_a_session_is_named_as_terminated_only_by_the_whole_text() -> None:
    assert classify(Evidence(code=32600, message="Session terminated", from_wire=False)).kind is K.SESSION_EXPIRED
    assert classify(Evidence(code=32600, message="Session terminated early", from_wire=False)).kind is K.APPLICATION


@pytest.mark.parametrize(
    ("code", "message", "here", "received"),
    [
        (-32001, "Request timed out", K.TIMEOUT, K.APPLICATION),
        (-32603, "Server returned an error response", K.UNAVAILABLE, K.APPLICATION),
        (-32600, "Request cancelled", K.CANCELLED, K.APPLICATION),
        (-32700, "Failed to parse JSON", K.PROTOCOL, K.APPLICATION),
    ],
)
def test_the_same_error_means_another_thing_when_it_came_over_the_wire(
    code: int, message: str, here: FailureKind, received: FailureKind
) -> None:
    assert classify(Evidence(code=code, message=message, from_wire=False)).kind is here
    assert classify(Evidence(code=code, message=message, from_wire=None)).kind is here
    assert classify(Evidence(code=code, message=message, from_wire=True)).kind is received


def test_connection_closed_is_proof_only_if_said_here() -> None:
    here = classify(Evidence(code=-32000, message="Connection closed", from_wire=False))
    received = classify(Evidence(code=-32000, message="Connection closed", from_wire=True))
    assert (here.kind, here.proof) == (K.TRANSPORT_LOST, True)
    assert (received.kind, received.proof) == (K.TRANSPORT_LOST, False)


# -- delivery


def test_what_was_never_written_is_not_sent_whatever_else_is_known() -> None:
    for witness in WITNESSES:
        failure = classify(replace(witness.evidence, written=False))
        assert (failure.kind, failure.delivery) == (witness.kind, D.NOT_SENT), witness


def test_what_was_written_is_never_not_sent() -> None:
    for witness in WITNESSES:
        failure = classify(replace(witness.evidence, written=True))
        expected = D.UNKNOWN if witness.delivery is D.NOT_SENT else witness.delivery
        assert (failure.kind, failure.delivery) == (witness.kind, expected), witness


# -- users' rules


def test_a_users_rule_stands_in_front() -> None:
    rule = Rule("their word", K.SESSION_EXPIRED, D.REJECTED, True, lambda seen: seen.code == 4711)
    failure = classify(Evidence(code=4711, message="gone fishing", from_wire=True), rules=(rule, *DEFAULT_RULES))
    assert (failure.kind, failure.delivery, failure.proof) == (K.SESSION_EXPIRED, D.REJECTED, True)
    assert failure.summary == "their word (JSON-RPC 4711, gone fishing)"


def test_the_cores_rules_are_tried_where_no_users_rule_matches() -> None:
    never = Rule("never", K.CONFIG, D.REJECTED, True, lambda seen: False)
    assert classify(Evidence(http_status=429), rules=(never,)).kind is K.RATE_LIMITED
    assert classify(Evidence(http_status=429), rules=()).kind is K.RATE_LIMITED


def test_rules_can_come_from_an_iterator() -> None:
    assert classify(Evidence(http_status=429), rules=iter(DEFAULT_RULES)).kind is K.RATE_LIMITED


@given(text=any_case(("Context was evicted",)))
def test_a_phrase_of_a_users_server_is_a_suspicion_in_any_case(text: str) -> None:
    rules = (Rule.phrase("  context was EVICTED "), *DEFAULT_RULES)
    for evidence in (Evidence(code=1, message=f"Sorry: {text}!", from_wire=True), Evidence(exception=OSError(text))):
        failure = classify(evidence, rules=rules)
        assert (failure.kind, failure.delivery, failure.proof) == (K.SESSION_EXPIRED, D.REJECTED, False)
    assert classify(Evidence(code=1, message="context", from_wire=True), rules=rules).kind is K.APPLICATION


def test_phrases_have_a_kind_and_delivery() -> None:
    rule = Rule.phrase("pod moved", K.TRANSPORT_LOST, delivery=D.UNKNOWN, because="the pod moved")
    failure = classify(Evidence(code=1, message="Pod moved", from_wire=True), rules=(rule,))
    assert (failure.kind, failure.delivery, failure.proof) == (K.TRANSPORT_LOST, D.UNKNOWN, False)
    assert failure.summary == "the pod moved (JSON-RPC 1)"


def test_a_phrase_explains_itself() -> None:
    rule = Rule.phrase("Pod moved")
    assert rule.because == "the server said 'Pod moved'"
    assert rule.quote is True


@pytest.mark.parametrize("text", ["", "   ", "\n"])
def test_a_phrase_without_words_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"^Rule\.phrase needs a text: an empty one would match every error$"):
        Rule.phrase(text)


# -- summaries


@pytest.mark.parametrize(
    ("evidence", "summary"),
    [
        (Evidence(http_status=429), "too many requests (HTTP 429)"),
        (
            Evidence(http_status=400, code=-32602, message="Invalid  params:\n x", from_wire=True),
            "the server refused the request (HTTP 400, JSON-RPC -32602, Invalid params: x)",
        ),
        (
            Evidence(http_status=202, code=-32600, message="Server answered a request with 202 Accepted"),
            "the server answered a request with 202 Accepted (HTTP 202, JSON-RPC -32600)",
        ),
        (Evidence(code=-32700, message="Failed to parse: sk-secret"), "the answer could not be read (JSON-RPC -32700)"),
        (Evidence(exception=anyio.EndOfStream()), "the transport ended (EndOfStream)"),
        (
            Evidence(exception=as_cause(httpx2.ConnectError("refused"))),
            "the server cannot be reached (refused)",
        ),
        (
            Evidence(exception=as_cause(httpx2.ConnectError(""))),
            "the server cannot be reached (outer)",
        ),
        (Evidence(exception=as_cause(RuntimeError(" "))), "the call failed (outer)"),
        (Evidence(), "the call failed"),
        (Evidence(code=0, message="no", from_wire=True), "the server answered with an error (JSON-RPC 0, no)"),
    ],
)
def test_a_summary_says_what_was_seen(evidence: Evidence, summary: str) -> None:
    assert classify(evidence).summary == summary
    assert str(classify(evidence)) == summary


def test_a_parsers_words_are_not_quoted_even_from_an_exception() -> None:
    error = MCPError(-32700, "Failed to parse: sk-secret")
    assert classify(Evidence(exception=error)).summary == "the answer could not be read (JSON-RPC -32700, MCPError)"


@pytest.mark.parametrize("length", [SUMMARY_LIMIT, SUMMARY_LIMIT + 1, 10_000_000])
def test_a_summary_quotes_up_to_the_limit(length: int) -> None:
    summary = classify(Evidence(code=1, message="x" * length, from_wire=True)).summary
    dots = "..." if length > SUMMARY_LIMIT else ""
    assert summary == f"the server answered with an error (JSON-RPC 1, {'x' * SUMMARY_LIMIT}{dots})"


@given(text=st.text(max_size=500), code=st.integers(), status=st.sampled_from([None, 200, 404, 500]))
def test_a_summary_is_one_line(text: str, code: int, status: int | None) -> None:
    failure = classify(Evidence(code=code, message=text, http_status=status, from_wire=True))
    assert failure.summary
    assert "\n" not in failure.summary


def test_a_servers_retry_after_is_handed_on() -> None:
    assert classify(Evidence(http_status=429, retry_after=2.5)).retry_after == 2.5
    assert classify(Evidence(http_status=429)).retry_after is None


ERRORS = st.sampled_from(
    [
        None,
        RuntimeError("session expired"),
        httpx2.ReadError("x"),
        TimeoutError(),
        MCPError(-32000, "Connection closed"),
    ]
)


@given(
    evidence=st.builds(
        Evidence,
        exception=ERRORS,
        code=st.none() | st.sampled_from([-32000, -32001, -32600, -32603, 0]),
        message=st.none() | st.text(max_size=40) | any_case(PHRASES),
        http_status=st.none() | st.integers(100, 599),
        content_type=st.none() | st.sampled_from(["", "text/html", "application/json"]),
        session_sent=st.none() | st.booleans(),
        from_wire=st.none() | st.booleans(),
        written=st.none() | st.booleans(),
        phase=st.none() | st.sampled_from(["dial", "call", "probe", "idle"]),
    )
)
def test_every_evidence_amounts_to_something_and_always_to_the_same(evidence: Evidence) -> None:
    first, second = classify(evidence), classify(evidence)
    assert first == second
    assert first.evidence is evidence
    if evidence.written is False:
        assert first.delivery is D.NOT_SENT
    if evidence.written is True:
        assert first.delivery is not D.NOT_SENT
