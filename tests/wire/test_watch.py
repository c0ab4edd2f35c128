"""What is known from the messages that pass, and what is made of an error."""

from __future__ import annotations

from typing import Any

import anyio
import pytest
from mcp import MCPError
from mcp.shared.message import SessionMessage
from mcp_types import ErrorData, JSONRPCError, JSONRPCNotification, JSONRPCRequest, JSONRPCResponse

from mcpconn import Evidence, FailureKind, classify
from mcpconn.core.attempt import ATTEMPT, Attempt
from mcpconn.redact.redactor import Redactor
from mcpconn.wire.child import ChildExited
from mcpconn.wire.evidence import evidence_of
from mcpconn.wire.messages import Outgoing, Unreadable, made
from mcpconn.wire.streams import Inbox, WatchedRead, WatchedWrite
from mcpconn.wire.watch import Watch

pytestmark = pytest.mark.anyio

K = FailureKind


def request(number: int = 7, method: str = "tools/call") -> JSONRPCRequest:
    return JSONRPCRequest(jsonrpc="2.0", id=number, method=method)


def error(number: int | str | None, code: int = -32602, text: str = "no") -> SessionMessage:
    return SessionMessage(JSONRPCError(jsonrpc="2.0", id=number, error=ErrorData(code=code, message=text)))


def notification(method: str, **params: Any) -> SessionMessage:
    return SessionMessage(JSONRPCNotification(jsonrpc="2.0", method=method, params=params))


class Passing:
    """A watch, and the records of the requests that were sent through it."""

    def __init__(self, *numbers: int, shared: bool = True) -> None:
        self.signs: list[Evidence] = []
        self.watch = Watch(self.signs.append, Redactor(["sk-secret-value"]))
        self.watch.passes = True
        self.shared = shared
        self.records = {number: Attempt("call", "legacy", written=True) for number in numbers}
        for number, attempt in self.records.items():
            self.watch.sent(request(number), attempt)

    def receive(self, item: Any) -> Any:
        return self.watch.received(item, shared=self.shared)

    def evidence(self, number: int, problem: BaseException) -> Evidence:
        return evidence_of(problem, self.records[number], self.watch)


# -- an error that was received, and one that was made up here


LOCAL_WORDS = [
    (-32000, "Connection closed"),
    (-32000, "SSE stream ended without a response"),
    (-32001, "Request 'tools/call' timed out"),
    (-32001, "Timed out after 5s waiting for 'tools/call'"),
    (-32700, "Failed to parse JSON response: x"),
    (-32600, "server answered a request with 202 Accepted"),
    (-32600, "Unexpected content type: text/html"),
    (-32600, "Redirect to the receipt page failed"),
    (-32603, "Server returned an error response"),
]


@pytest.mark.parametrize(("code", "text"), LOCAL_WORDS)
def test_an_error_that_came_in_is_the_servers_whatever_it_says(code: int, text: str) -> None:
    passing = Passing(7)
    item = error("7", code, text)
    assert passing.receive(item) is item
    evidence = passing.evidence(7, MCPError(code, text))
    assert (evidence.code, evidence.message, evidence.from_wire) == (code, text, True)
    failure = classify(evidence)
    assert failure.delivery.value == "unknown"
    assert failure.kind in (K.APPLICATION, K.TRANSPORT_LOST)
    assert failure.kind is K.APPLICATION or not failure.proof


@pytest.mark.parametrize(("code", "text"), [*LOCAL_WORDS, (-32602, "Invalid params")])
def test_an_error_that_did_not_come_in_is_made_up_whatever_it_says(code: int, text: str) -> None:
    passing = Passing(7, 8)
    passing.receive(error(8, code, text))
    assert passing.evidence(7, MCPError(code, text)).from_wire is False


def test_a_timeout_of_the_sdks_is_not_what_http_said_before() -> None:
    passing = Passing(7)
    attempt = passing.records[7]
    attempt.http_status, attempt.content_type = 200, "text/event-stream"
    evidence = passing.evidence(7, MCPError(-32001, "Request 'tools/call' timed out"))
    assert (evidence.http_status, evidence.content_type) == (None, None)
    assert classify(evidence).kind is K.TIMEOUT


def test_an_error_of_the_callers_callback_is_its_own() -> None:
    passing = Passing(7)
    passing.receive(SessionMessage(JSONRPCResponse(jsonrpc="2.0", id=7, result={"inputRequests": {}})))
    assert passing.evidence(7, MCPError(-32001, "no sampling today")).from_wire is True


def test_secrets_are_hidden_in_evidence_and_not_in_the_message() -> None:
    passing = Passing(7)
    item = error(7, -32602, "bad key sk-secret-value")
    assert passing.receive(item).message.error.message == "bad key sk-secret-value"
    assert passing.records[7].message == "bad key ***"


def test_what_was_made_here_is_not_received() -> None:
    passing = Passing(7)
    item = made(7, -32000, "Request failed: ReadError")
    assert passing.receive(item) is item
    assert (passing.records[7].from_wire, passing.records[7].answered) == (None, False)


def test_a_late_answer_tells_nothing() -> None:
    passing = Passing(7)
    passing.watch.waiting.give_up("7")
    item = error(7)
    assert passing.receive(item) is item
    assert passing.records[7].code is None


def test_what_the_wire_saw_comes_before_what_the_sdk_made_of_it() -> None:
    passing = Passing(7)
    passing.records[7].http_status = 502
    evidence = passing.evidence(7, MCPError(-32000, "Request failed: HTTP 502"))
    assert (evidence.http_status, evidence.code) == (502, None)


def test_the_end_of_a_transport_is_explained_by_its_reason() -> None:
    passing = Passing(7)
    passing.watch.reason = ChildExited(1, ["KeyError: 'x'"])
    passing.watch.end()
    evidence = passing.evidence(7, MCPError(-32000, "Connection closed"))
    assert (evidence.code, evidence.from_wire, evidence.exception) == (None, False, passing.watch.reason)
    failure = classify(evidence)
    assert (failure.kind, failure.proof) == (K.TRANSPORT_LOST, True)
    assert "exited with 1: KeyError: 'x'" in failure.summary


def test_a_local_exception_is_not_the_fault_of_an_answer_that_came() -> None:
    passing = Passing(7)
    attempt = passing.records[7]
    attempt.http_status, attempt.content_type = 200, "application/json"
    problem = ValueError("Invalid structured content: session expired")
    evidence = passing.evidence(7, problem)
    assert (evidence.http_status, evidence.content_type, evidence.exception) == (None, None, problem)


# -- answers that are none


@pytest.mark.parametrize("shared", [True, False])
def test_a_broken_answer_on_a_shared_stream_is_its_callers(shared: bool) -> None:
    passing = Passing(7, 8, shared=shared)
    broken = Unreadable("the answer is not valid JSON", answers="7")
    item = passing.receive(broken)
    if not shared:
        # On a stream of its own the transport knows whose it is.
        assert item is broken
        return
    assert (item.message.id, passing.records[7].exception) == (7, broken)
    failure = classify(passing.evidence(7, MCPError(-32000, str(broken))))
    assert (failure.kind, failure.delivery.value) == (K.PROTOCOL, "unknown")
    assert passing.records[8].exception is None


@pytest.mark.parametrize(
    "broken",
    [Unreadable("a banner"), Unreadable("x", answers=9), Unreadable("x", answers=7, asks=True)],
    ids=["no id", "nobody's", "a request"],
)
def test_a_broken_line_of_no_request_is_left_to_the_session(broken: Unreadable) -> None:
    passing = Passing(7)
    assert passing.receive(broken) is broken
    assert passing.records[7].exception is None


ANONYMOUS = [
    error(None, -32700, "Parse error"),
    error(8, -32602, "no"),
    error("somebody", -32602, "no"),
    Unreadable("the answer is not a JSON-RPC message", anonymous=True),
]
"""Answers to no request that there is or was."""


@pytest.mark.parametrize("item", ANONYMOUS)
@pytest.mark.parametrize("listening", [True, False])
def test_a_stray_answer_is_the_only_requests(item: Any, listening: bool) -> None:
    passing = Passing()
    if listening:
        # This one waits indefinitely, and was answered with what it waits for.
        passing.watch.sent(request(3, "subscriptions/listen"), Attempt("idle"))
    attempt = passing.records[7] = Attempt("call", written=True)
    passing.watch.sent(request(7), attempt)
    # Its own answer may still come: see test_strays.py.
    assert passing.receive(item) is item
    assert (passing.watch.waiting.doubted, attempt.exception) == (7, None)
    failed: Any = passing.watch.waiting.condemn()
    assert failed.message.id == 7
    assert isinstance(attempt.exception, Unreadable)


@pytest.mark.parametrize("item", ANONYMOUS)
def test_an_ambiguous_answer_is_given_to_no_request(item: Any) -> None:
    several, followed, closed = Passing(6, 7), Passing(7), Passing(7, shared=False)
    # It may be about this, which came after the request.
    followed.watch.sent(JSONRPCNotification(jsonrpc="2.0", method="notifications/roots/list_changed"), None)
    for passing in (several, followed, closed):
        assert passing.receive(item) is item
        assert passing.watch.waiting.condemn() is None
        assert passing.records[7].exception is None


def test_a_late_answer_is_not_given_to_a_waiting_request() -> None:
    passing = Passing(6)
    passing.watch.waiting.give_up(6)
    attempt = passing.records[7] = Attempt("call", written=True)
    passing.watch.sent(request(7), attempt)
    item = error(6)
    assert passing.receive(item) is item
    assert passing.watch.waiting.doubted is None


# -- signs that a request is being worked on


@pytest.mark.parametrize("token", [7, "7"])
@pytest.mark.parametrize("shared", [True, False])
def test_progress_is_one_requests(token: Any, shared: bool) -> None:
    passing = Passing(7, 8, shared=shared)
    passing.receive(notification("notifications/progress", progressToken=token, progress=1))
    assert (passing.records[7].progressed, passing.records[8].progressed) == (True, False)


@pytest.mark.parametrize("token", [None, True, [], 9, "x"])
def test_progress_of_an_unknown_request_is_not_counted(token: Any) -> None:
    passing = Passing(7)
    passing.receive(notification("notifications/progress", progressToken=token, progress=1))
    assert not passing.records[7].progressed


@pytest.mark.parametrize(
    "item",
    [
        notification("notifications/message", level="info", data="x"),
        SessionMessage(request(1, "sampling/createMessage")),
    ],
    ids=["log", "question"],
)
@pytest.mark.parametrize("shared", [True, False])
def test_a_log_message_may_be_any_requests(item: SessionMessage, shared: bool) -> None:
    passing = Passing(7, 8, shared=shared)
    passing.receive(item)
    # With a stream for each request, those on a stream of no request are no request's.
    assert [each.progressed for each in passing.records.values()] == [shared, shared]


@pytest.mark.parametrize("method", ["notifications/tools/list_changed", "notifications/resources/updated"])
def test_a_change_is_no_requests(method: str) -> None:
    passing = Passing(7)
    passing.receive(notification(method))
    assert not passing.records[7].progressed


# -- the streams


class Taking:
    """A write stream that takes what it is given."""

    def __init__(self, problem: Exception | None = None) -> None:
        self.items: list[Outgoing] = []
        self._problem = problem

    async def send(self, item: Outgoing) -> None:
        if self._problem is not None:
            raise self._problem
        self.items.append(item)


@pytest.mark.parametrize("final", [True, False])
async def test_a_message_keeps_its_bytes(final: bool) -> None:
    inner, watch = Taking(), Watch(lambda _: None)
    attempt = Attempt("call")
    ATTEMPT.set(attempt)
    await WatchedWrite(inner, watch, final=final).send(SessionMessage(request()))
    assert inner.items[0].body == b'{"jsonrpc":"2.0","id":7,"method":"tools/call"}'
    # What HTTP has written, the HTTP client says.
    assert attempt.written is final


async def test_what_cannot_be_sent_is_never_handed_to_the_transport() -> None:
    inner, watch = Taking(), Watch(lambda _: None)
    attempt = Attempt("call", written=False)
    ATTEMPT.set(attempt)
    message = request()
    message.params = {"arguments": {"n": int("7" * 4000) ** 2}}
    with pytest.raises(ValueError, match="thousands of digits"):
        await WatchedWrite(inner, watch, final=True).send(SessionMessage(message))
    assert (inner.items, attempt.written) == ([], False)


async def test_what_a_closed_transport_was_given_was_not_written() -> None:
    attempt = Attempt("call")
    ATTEMPT.set(attempt)
    stream = WatchedWrite(Taking(anyio.BrokenResourceError()), Watch(lambda _: None), final=True)
    with pytest.raises(anyio.BrokenResourceError):
        await stream.send(SessionMessage(request()))
    assert attempt.written is False


async def test_the_end_of_a_stream_is_told_once() -> None:
    signs: list[Evidence] = []
    watch, inbox = Watch(signs.append), Inbox()
    stream = WatchedRead(inbox, watch)
    inbox.end()
    for _ in range(2):
        with pytest.raises(anyio.EndOfStream):
            await stream.receive()
    (sign,) = signs
    assert isinstance(sign.exception, anyio.EndOfStream)
    assert classify(sign).proof
    inbox.close()


async def test_what_is_received_keeps_the_context_it_was_put_in() -> None:
    inbox = Inbox()
    stream = WatchedRead(inbox, Watch(lambda _: None))
    attempt = Attempt("call")

    async def put() -> None:
        ATTEMPT.set(attempt)
        await inbox.put(notification("notifications/message"))

    async with anyio.create_task_group() as group:
        group.start_soon(put)
        await stream.receive()
    assert stream.last_context is not None
    assert stream.last_context[ATTEMPT] is attempt
    inbox.close()
    # A transport that puts something then has lost its session already.
    await inbox.put(notification("notifications/message"))


def test_only_the_first_message_that_is_dropped_is_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    watch = Watch(lambda _: None, name="srv")
    for _ in range(3):
        watch.drop("an answer to another request")
    assert watch.dropped == 3
    warnings = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert warnings == ["message.dropped connection=srv why='an answer to another request'"]
