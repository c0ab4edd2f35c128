"""What real servers and clients were seen to say (tests/data/errors_seen.jsonl), and what we make of it.

Each line has the class that it belongs to and whether the call behind it may be retried. A line is turned
into the evidence that this client would have: as it stands where a server says it, and as what is seen here
instead where it is the text of another client. No line is left out, and we disagree with none of them; where
the reading takes a word of explanation, it stands beside it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import anyio
import httpx2
import pytest
from mcp.client.auth import OAuthTokenError

from mcpconn.core import Delivery, Event, Evidence, FailureKind, State, classify, decide, decide_probe, may_replay
from tests.core.trees import in_group

LINES: dict[int, dict[str, Any]] = dict(
    enumerate(
        map(
            json.loads,
            (Path(__file__).parent.parent / "data" / "errors_seen.jsonl").read_text(encoding="utf-8").splitlines(),
        ),
        start=1,
    )
)


def local(code: int, message: str, **more: Any) -> Evidence:
    """An error that the SDK made up on this side."""
    return Evidence(code=code, message=message, from_wire=False, phase="call", **more)


SEEN_HERE: dict[int, tuple[str, Evidence]] = {
    2: (
        "SDK 1.x makes it up for any 404; the HTTP status is seen here; without it, this is all that the SDK says",
        Evidence(http_status=404, code=32600, message="Session terminated", session_sent=True, from_wire=False),
    ),
    9: (
        "the TypeScript client's account of a body that the evidence client reads for itself",
        Evidence(http_status=404, code=-32001, message="Session not found", session_sent=True, from_wire=True),
    ),
    16: (
        "the Rust client's account of a 404 without a body",
        Evidence(http_status=404, session_sent=True, content_type="", phase="call"),
    ),
    19: (
        "the C# client's account of a 404 without a body",
        Evidence(http_status=404, session_sent=True, content_type="", phase="call"),
    ),
    21: (
        "plain text, to a request with a session id: the proxy knows no sessions, so it proves nothing",
        Evidence(
            http_status=404, message="404 page not found", content_type="text/plain", session_sent=True, phase="call"
        ),
    ),
    22: (
        "the SDK's word for a 404 to a request without a session id, which is the first request of a dial",
        Evidence(http_status=404, code=-32601, message="Not Found", session_sent=False, from_wire=False, phase="dial"),
    ),
    24: (
        "made up by the SDK's client",
        local(-32000, "SSE stream ended and reconnection attempts were exhausted", http_status=200),
    ),
    25: ("made up by the SDK's client", local(-32600, "server answered a request with 202 Accepted", http_status=202)),
    26: ("what the SDK's own client says when its transport ended", local(-32000, "Connection closed", written=True)),
    27: ("the exception itself: its text is empty", Evidence(exception=anyio.ClosedResourceError(), phase="call")),
    28: ("the exception itself: its text is empty", Evidence(exception=anyio.BrokenResourceError(), phase="call")),
    29: (
        "a group with the cause inside it",
        Evidence(exception=in_group(httpx2.RemoteProtocolError("Server disconnected")), phase="call"),
    ),
    30: (
        "SDK 1.x reported a 504 as a cancellation; the evidence client sees the 504",
        Evidence(http_status=504, content_type="text/html", session_sent=True, written=True, phase="call"),
    ),
    31: (
        "fastmcp's client; the transport's end is seen here as the SDK reports it",
        local(-32000, "Connection closed", written=True),
    ),
    32: (
        "fastmcp's client; a transport that has ended is seen here by its closed stream, before anything is written",
        Evidence(exception=anyio.ClosedResourceError(), written=False, phase="call"),
    ),
    33: (
        "the TypeScript client's background stream; if a call were to meet a stream closed by then, nothing was sent",
        Evidence(exception=anyio.EndOfStream(), written=False, phase="idle"),
    ),
    34: (
        "VS Code's background stream, likewise",
        Evidence(exception=anyio.EndOfStream(), written=False, phase="idle"),
    ),
    35: (
        "the TypeScript client, out of attempts to resume; the SDK's words for it here",
        local(-32000, "SSE stream ended and reconnection attempts were exhausted"),
    ),
    36: (
        "an exception of httpx, after the request was written",
        Evidence(
            exception=httpx2.RemoteProtocolError(
                "peer closed connection without sending complete message body (incomplete chunked read)"
            ),
            http_status=200,
            content_type="application/json",
            written=True,
            phase="call",
        ),
    ),
    37: (
        "Node's account of a refused connection; httpx has an exception for it",
        Evidence(exception=httpx2.ConnectError("All connection attempts failed"), written=False, phase="call"),
    ),
    39: (
        # A dial can be retried: no call was sent.
        "the Rust client, whose handshake met an empty stream; a handshake that fails here raises while dialling",
        Evidence(exception=RuntimeError("empty sse stream"), written=False, phase="dial"),
    ),
    40: ("the Java client; the end of the transport, as here", local(-32000, "Connection closed", written=True)),
    41: ("the client's own, with the number of a server's 'Session not found'", local(-32001, "Request timed out")),
    42: ("the client's own", local(-32001, "Maximum total timeout exceeded")),
    43: (
        "the client's own",
        local(408, "Timed out while waiting for response to CallToolRequest. Waited 30.0 seconds."),
    ),
    44: ("the Rust client; here it is an exception", Evidence(exception=TimeoutError(), written=True, phase="call")),
    45: ("the Rust client's account of a 429", Evidence(http_status=429, session_sent=True, phase="call")),
    46: (
        "VS Code's account of a 429 with an HTML body",
        Evidence(http_status=429, content_type="text/html", session_sent=True, phase="call"),
    ),
    47: ("what the SDK says by itself", local(-32603, "Server returned an error response")),
    53: (
        "a token endpoint's answer; the SDK raises it",
        Evidence(exception=OAuthTokenError("Token refresh failed: 400 invalid_grant"), phase="dial"),
    ),
    60: ("as seen here", Evidence(http_status=200, content_type="text/html; charset=utf-8", phase="call")),
    61: (
        "a mistake in the use of the TypeScript client; here a mistake raises while dialling",
        Evidence(exception=RuntimeError("StreamableHTTPClientTransport already started!"), phase="dial"),
    ),
    66: ("made up by the client, with the number of 'Connection closed'", local(-32000, "Request was cancelled")),
    67: ("made up by the client, with the number of 'Session not found'", local(-32600, "Request cancelled")),
}
"""Lines that a client on the Python SDK does not see as they stand: why, and what it sees instead."""

RESULTS = {
    62: "content of a tool's result",
    65: "a host's own registry: no server said it",
    **dict.fromkeys((68, 69, 70, 75), "a tool's result with isError: true"),
    **dict.fromkeys((71, 72, 73, 74), "a tool's ordinary result"),
}
"""Lines that are answers. They are never classified at all: `classify` is asked about errors."""


def evidence_of(number: int) -> Evidence:
    """What this client would have of a line."""
    if number in SEEN_HERE:
        return SEEN_HERE[number][1]
    line = LINES[number]
    status, code = line["http_status"], line["jsonrpc_code"]
    return Evidence(
        http_status=status,
        code=code,
        message=line["text"],
        content_type=None if status is None else "application/json" if code is not None else "text/plain",
        # A 401 of a token, and all that these servers refuse, came to requests with a session id.
        session_sent=None if status is None else True,
        from_wire=True if code is not None else None,
        written=None if status is None else True,
        phase="call",
    )


ERRORS = [number for number in LINES if number not in RESULTS]


@pytest.mark.parametrize("number", ERRORS)
def test_a_line_has_its_class(number: int) -> None:
    assert classify(evidence_of(number)).kind.value == LINES[number]["class"]


@pytest.mark.parametrize("number", ERRORS)
def test_a_call_is_made_again_where_the_line_says_that_it_is_safe(number: int) -> None:
    failure = classify(evidence_of(number))
    retry_safe = LINES[number]["retry_safe"]
    if retry_safe == "safe":
        assert failure.delivery in (Delivery.REJECTED, Delivery.NOT_SENT)
    elif retry_safe == "ambiguous":
        assert failure.delivery is Delivery.UNKNOWN
    else:
        assert retry_safe == "no"
        assert not may_replay(failure, safe=False, replays=0, refreshed=True, budget=100)
    if failure.delivery is Delivery.UNKNOWN:
        assert not may_replay(failure, safe=False, replays=0, refreshed=True, budget=100)


@pytest.mark.parametrize("number", [number for number in ERRORS if LINES[number]["negative"]])
@pytest.mark.parametrize("refreshable", [False, True])
def test_a_negative_line_causes_no_reconnect(number: int, refreshable: bool) -> None:
    failure = classify(evidence_of(number))
    assert decide(State.READY, failure, refreshable=refreshable) not in (Event.LOST, Event.GIVE_UP)


@pytest.mark.parametrize("number", RESULTS)
def test_a_line_that_is_an_answer_leads_to_nothing(number: int) -> None:
    line = LINES[number]
    assert line["class"] == "application"
    for content_type in (None, "", "application/json", "text/event-stream"):
        failure = classify(Evidence(http_status=200, message=line["text"], content_type=content_type, phase="call"))
        assert failure.kind is FailureKind.APPLICATION
        assert decide(State.READY, failure) is None
        assert not may_replay(failure, safe=False, replays=0)


@pytest.mark.parametrize("number", RESULTS)
def test_the_same_words_as_a_jsonrpc_error_are_at_most_a_suspicion(number: int) -> None:
    failure = classify(
        Evidence(http_status=200, code=-32603, message=LINES[number]["text"], from_wire=True, phase="call")
    )
    assert decide(State.READY, failure) in (None, Event.SUSPECTED)
    # A probe that the session passes ends it: no error of the probe, no event. A server that never knew `ping` is
    # asked for something else.
    unknown = classify(Evidence(http_status=200, code=-32601, message="no", from_wire=True))
    assert decide_probe(unknown, known=False, last=False) is Event.SUSPECTED


def test_every_line_is_read() -> None:
    assert len(LINES) == 75
    assert set(RESULTS) | set(SEEN_HERE) <= set(LINES)
    assert not set(RESULTS) & set(SEEN_HERE)
    assert all(LINES[number]["negative"] for number in RESULTS)


# Lines with the words of an OAuth endpoint are known by them as well, where its answer comes through as it is.
@pytest.mark.parametrize("number", [53, 54, 55, 56])
def test_the_refusal_of_a_token_endpoint_is_known_by_its_words(number: int) -> None:
    line = LINES[number]
    failure = classify(Evidence(http_status=line["http_status"], message=line["text"], session_sent=False))
    assert (failure.kind, failure.delivery) == (FailureKind.AUTH, Delivery.REJECTED)
