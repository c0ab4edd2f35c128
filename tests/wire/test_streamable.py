"""Requests over Streamable HTTP: what their answers may be, and what ends with whom."""

from __future__ import annotations

import json
from typing import Any

import anyio
import httpx2
import pytest
from mcp.shared.message import ClientMessageMetadata, SessionMessage
from mcp_types import JSONRPCError, JSONRPCNotification, JSONRPCRequest, JSONRPCResponse

from mcpconn import FailureKind, classify
from mcpconn.core.attempt import ATTEMPT, Attempt
from mcpconn.testing import Reply, Reset, Send
from mcpconn.wire.era import EraUnknown
from mcpconn.wire.messages import MessageTooLarge, Unreadable
from tests.wire.transports import (
    DISCOVER,
    LIMITS,
    REQUEST,
    RESULT,
    Chunks,
    Session,
    opened,
    replied,
    streamed,
)

pytestmark = pytest.mark.anyio

K = FailureKind
ERROR = '{"jsonrpc": "2.0", "id": %s, "error": {"code": -32602, "message": "no"}}'
PROGRESS = b'{"jsonrpc": "2.0", "method": "notifications/progress", "params": {"progressToken": 7, "progress": 1}}'


async def asked(reply: Any, message: JSONRPCRequest = REQUEST) -> tuple[JSONRPCResponse | JSONRPCError, Session]:
    async with opened(lambda _: reply) as session:
        return await session.ask(message), session


def kind(session: Session) -> tuple[FailureKind, str]:
    failure = classify(session.evidence)
    return failure.kind, failure.delivery.value


# -- one JSON answer


@pytest.mark.parametrize("body", [RESULT, RESULT.replace(b"7", b'"7"')])
async def test_an_answer_is_handed_on(body: bytes) -> None:
    answer, session = await asked(replied(200, body, "application/json; charset=utf-8"))
    assert isinstance(answer, JSONRPCResponse)
    assert (answer.id, answer.result) == (7, {"ok": True})
    assert session.attempt.answered
    assert not session.attempt.failed


@pytest.mark.parametrize(
    "body",
    [
        RESULT.replace(b"7", b"8"),
        RESULT.replace(b"7", b'"seven"'),
        (ERROR % "null").encode(),
        (ERROR % "8").encode(),
        PROGRESS,
        b'{"jsonrpc"',
        b"",
        b"[]",
        b'{"jsonrpc": "2.0", "id": 7, "error": {"code": -32602, "message": "\\ud83d"}}',
    ],
)
async def test_what_is_no_answer_to_this_request_is_unknown_at_once(body: bytes) -> None:
    answer, session = await asked(replied(200, body, "application/json"))
    assert isinstance(answer, JSONRPCError)
    assert (answer.id, kind(session)) == (7, (K.PROTOCOL, "unknown"))
    assert isinstance(session.evidence.exception, Unreadable)
    assert session.evidence.code is None


@pytest.mark.parametrize(("body", "content_type"), [(b"", None), (b"fine", "text/plain"), (b"<html>", "text/html")])
async def test_only_json_or_a_stream_is_an_answer(body: bytes, content_type: str | None) -> None:
    _, session = await asked(replied(200, body, content_type))
    assert kind(session) == (K.PROTOCOL if content_type is None else K.CONFIG, "unknown")


async def test_a_body_that_breaks_off_is_an_error_of_this_call_and_of_no_other() -> None:
    broken = Reply(200, (("content-type", "application/json"),), (Send(b'{"jsonrpc"'), Reset()))
    async with opened(lambda _: replied(200, RESULT, "application/json")) as session:
        session._handler = lambda _: broken
        await session.ask()
        assert isinstance(session.evidence.exception, httpx2.ReadError)
        session._handler = lambda _: replied(200, RESULT, "application/json")
        session.attempt = Attempt("call")
        assert isinstance(await session.ask(), JSONRPCResponse)


async def test_an_answer_without_end_is_given_up() -> None:
    body = Chunks(b"x" * 1000, endless=True)
    _, session = await asked(httpx2.Response(200, headers={"content-type": "application/json"}, stream=body))
    assert body.given <= LIMITS.size + 2000
    assert isinstance(session.evidence.exception, MessageTooLarge)


# -- refusals


async def test_a_refusal_gets_its_requests_id() -> None:
    body = b'{"jsonrpc": "2.0", "error": {"code": -32000, "message": "Bad Request: No valid session ID provided"}}'
    answer, session = await asked(replied(400, body, "application/json"))
    assert isinstance(answer, JSONRPCError)
    assert (answer.id, answer.error.code) == (7, -32000)
    assert (session.evidence.from_wire, session.evidence.http_status) == (True, 400)


@pytest.mark.parametrize("status", [202, 302, 503])
async def test_a_bare_refusal_is_answered_here(status: int) -> None:
    answer, session = await asked(replied(status))
    assert isinstance(answer, JSONRPCError)
    assert answer.error.message == f"Request failed: HTTP {status}"
    assert (session.evidence.from_wire, session.evidence.http_status) == (None, status)


@pytest.mark.parametrize("status", [401, 403, 408, 429, 502, 503])
async def test_a_discovery_that_says_nothing_of_the_era_fails_the_dial(status: int) -> None:
    await fails_the_dial(replied(status))


async def test_a_cut_discovery_fails_the_dial() -> None:
    await fails_the_dial(httpx2.ReadError("reset"))


async def fails_the_dial(reply: Any) -> None:
    found: list[BaseException] = []
    try:
        async with opened(lambda _: reply) as session:
            session.attempt = Attempt("dial")
            await session.ask(DISCOVER)
    except BaseException as error:
        found.append(error)
        while isinstance(getattr(found[-1], "exceptions", None), tuple):
            found.append(found[-1].exceptions[0])  # type: ignore[attr-defined]
    assert isinstance(found[-1], EraUnknown)


@pytest.mark.parametrize(
    "reply",
    [
        replied(400),
        replied(404),
        replied(405),
        replied(500),
        replied(200, (ERROR % "7").encode(), "application/json"),
        replied(200, (ERROR % "null").encode(), "application/json"),
        replied(200, b"what?", "text/plain"),
    ],
)
async def test_a_refused_discovery_does_not(reply: Reply) -> None:
    async with opened(lambda _: reply) as session:
        session.attempt = Attempt("dial")
        assert isinstance(await session.ask(DISCOVER), JSONRPCError)


# -- event streams


@pytest.mark.parametrize("identity", [b"7", b'"7"'])
async def test_the_answer_on_an_event_stream(identity: bytes) -> None:
    answer, session = await asked(streamed(b"data: " + RESULT.replace(b"7", identity)))
    assert isinstance(answer, JSONRPCResponse)
    assert answer.id == 7
    assert not session.attempt.progressed


@pytest.mark.parametrize(
    "before",
    [
        b"data: " + PROGRESS,
        b'data: {"jsonrpc": "2.0", "method": "notifications/message", "params": {"level": "info", "data": 1}}',
        b'data: {"jsonrpc": "2.0", "id": 1, "method": "sampling/createMessage", "params": {}}',
        b"id: 1\ndata:",
        b'data: {"jsonrpc": "2.0", "method": "notifications/odd", "params": [1]}',
    ],
    ids=["progress", "log", "question", "event id", "odd"],
)
async def test_anything_before_it_says_that_the_call_was_running(before: bytes) -> None:
    refusal = b"data: " + (ERROR % "7").encode()
    _, session = await asked(streamed(before, refusal))
    assert session.attempt.progressed
    assert session.evidence.from_wire


@pytest.mark.parametrize("foreign", [ERROR % "8", ERROR % '"seven"', RESULT.decode().replace("7", "8")])
async def test_a_foreign_answer_is_dropped_and_the_end_of_the_stream_decides(foreign: str) -> None:
    answer, session = await asked(streamed(b"data: " + foreign.encode(), b"data: " + RESULT))
    assert isinstance(answer, JSONRPCResponse)
    assert session.watch.dropped == 1
    answer, session = await asked(streamed(b"data: " + foreign.encode()))
    assert isinstance(answer, JSONRPCError)
    assert kind(session) == (K.TRANSPORT_LOST, "unknown")


@pytest.mark.parametrize("event", [b"data: {", b'data: {"a": "\\ud800"}', (b"data: " + (ERROR % "null").encode())])
async def test_an_event_that_may_be_the_answer_and_cannot_be_read_ends_the_wait(event: bytes) -> None:
    # The server would leave its stream open, and the caller would wait.
    response = streamed(event, b": nothing more", endless=True)
    _, session = await asked(response)
    assert kind(session) == (K.PROTOCOL, "unknown")


async def test_an_event_without_end_is_given_up() -> None:
    body = Chunks(b"data: ", b"x" * 1000, endless=True)
    _, session = await asked(httpx2.Response(200, headers={"content-type": "text/event-stream"}, stream=body))
    assert isinstance(session.evidence.exception, MessageTooLarge)
    assert body.given <= LIMITS.size + 2000


class Resuming:
    """A server whose answers break off after an event with an id, and what it says to those who resume."""

    def __init__(self, *resumed: Any) -> None:
        self.resumed = list(resumed)
        self.asked: list[str | None] = []
        self.gone = anyio.Event()

    def __call__(self, request: httpx2.Request) -> Any:
        if request.method == "POST":
            return streamed(b"id: one\nretry: 1\ndata:") if b'"id":7' in request.content else replied(202)
        self.asked.append(request.headers.get("last-event-id"))
        return self.resumed.pop(0) if len(self.resumed) > 1 else self.resumed[0]


async def test_a_stream_that_broke_off_is_resumed_after_its_last_event() -> None:
    server = Resuming(httpx2.ConnectError("refused"), streamed(b"id: two\ndata:"), streamed(b"data: " + RESULT))
    async with opened(server) as session:
        answer = await session.ask()
    assert isinstance(answer, JSONRPCResponse)
    assert server.asked == ["one", "one", "two"]
    # What the resumed request met is not what became of the call.
    assert (session.attempt.written, session.attempt.http_status) == (True, 200)


@pytest.mark.parametrize(
    ("refusal", "times"), [(replied(404), 1), (replied(405), 1), (replied(502), 2), (httpx2.ReadError("reset"), 2)]
)
async def test_a_stream_that_cannot_be_resumed_leaves_the_outcome_unknown(refusal: Any, times: int) -> None:
    server = Resuming(refusal)
    async with opened(server) as session:
        await session.ask()
    assert len(server.asked) == times
    assert kind(session) == (K.TRANSPORT_LOST, "unknown")
    assert "the event stream ended before the answer, and cannot be resumed" in classify(session.evidence).summary


@pytest.mark.parametrize("waits", ["in between", "for the head", "for an event"])
async def test_no_stream_is_resumed_for_a_cancelled_call(waits: str) -> None:
    reached = anyio.Event()

    async def silent() -> httpx2.Response:
        reached.set()
        await anyio.sleep_forever()
        raise AssertionError

    class Silent(Chunks):
        async def __anext__(self) -> bytes:
            reached.set()
            await anyio.sleep_forever()
            raise AssertionError

    def resumed(request: httpx2.Request) -> Any:
        if request.method == "POST":
            return streamed(b"id: one\nretry: 1\ndata:") if b'"id":7' in request.content else replied(202)
        if waits == "for the head":
            return silent()
        if waits == "for an event":
            return httpx2.Response(200, headers={"content-type": "text/event-stream"}, stream=Silent())
        reached.set()
        return streamed()

    async with opened(resumed) as session:
        ATTEMPT.set(session.attempt)
        await session.write.send(SessionMessage(REQUEST))
        await reached.wait()
        await session.write.send(SessionMessage(cancelled(7)))
        await anyio.wait_all_tasks_blocked()
        # The task that would go on has ended.
        assert session.write._inner._in_flight == {}


# -- cancellation


def cancelled(request_id: Any) -> JSONRPCNotification:
    params = {} if request_id is None else {"requestId": request_id}
    return JSONRPCNotification(jsonrpc="2.0", method="notifications/cancelled", params=params)


@pytest.mark.parametrize(("request_id", "ends"), [(7, True), ("7", True), (None, False), (8, False)])
@pytest.mark.parametrize("modern", [True, False])
async def test_only_the_cancelled_request_ends(request_id: Any, ends: bool, modern: bool) -> None:
    waiting = anyio.Event()

    async def silent() -> httpx2.Response:
        waiting.set()
        await anyio.sleep_forever()
        raise AssertionError

    def handler(request: httpx2.Request) -> Any:
        return silent() if b'"id":7' in request.content else replied(202)

    version = "2026-07-28" if modern else "2025-11-25"
    metadata = ClientMessageMetadata(headers={"mcp-protocol-version": version})
    async with opened(handler) as session:
        ATTEMPT.set(session.attempt)
        await session.write.send(SessionMessage(REQUEST, metadata))
        await waiting.wait()
        await session.write.send(SessionMessage(cancelled(request_id)))
        await anyio.wait_all_tasks_blocked()
        assert (session.write._inner._in_flight == {}) is ends
        # In the modern era the end of the request says it, and there are no notifications to a server.
        told = [request for request in session.requests if b"notifications/cancelled" in request.content]
        assert len(told) == (0 if modern else 1)


# -- what else is sent


@pytest.mark.parametrize(
    "message",
    [
        JSONRPCNotification(jsonrpc="2.0", method="notifications/roots/list_changed"),
        JSONRPCResponse(jsonrpc="2.0", id=3, result={}),
    ],
)
async def test_what_expects_no_answer_never_raises_and_its_failure_is_a_sign(message: Any) -> None:
    for reply in (httpx2.ReadError("reset"), replied(404, b"Session not found", "text/plain"), replied(202)):
        async with opened(lambda _, reply=reply: reply) as session:  # type: ignore[misc]
            await session.write.send(SessionMessage(message))
        assert len(session.signs) == (0 if isinstance(reply, Reply) and reply.status == 202 else 1)


async def begun(session: Session, version: str = "2025-11-25") -> None:
    """Shake hands, as the SDK does it."""
    await session.ask(JSONRPCRequest(jsonrpc="2.0", id=7, method="initialize", params={}))
    metadata = ClientMessageMetadata(headers={"mcp-protocol-version": version})
    initialized = JSONRPCNotification(jsonrpc="2.0", method="notifications/initialized")
    await session.write.send(SessionMessage(initialized, metadata))


def in_session(request: httpx2.Request) -> Any:
    if request.method == "POST":
        if b'"id":' not in request.content:
            return replied(202)
        return replied(200, RESULT, "application/json", mcp_session_id="session-1")
    return replied(405) if request.method == "GET" else replied(200)


async def test_a_session_and_its_version_are_named_in_every_request_after_the_first() -> None:
    async with opened(in_session) as session:
        await begun(session)
        session.attempt = Attempt("call")
        await session.ask()
    seen = [
        (request.method, request.headers.get("mcp-session-id"), request.headers.get("mcp-protocol-version"))
        for request in session.requests
    ]
    assert seen[0] == ("POST", None, None)
    assert set(seen[1:]) == {(method, "session-1", "2025-11-25") for method in ("POST", "GET", "DELETE")}
    assert json.loads(session.requests[0].content)["method"] == "initialize"
    assert session.attempt.session_sent is True


@pytest.mark.parametrize(("lost", "said"), [(False, 1), (True, 0)])
async def test_goodbye_is_said_to_a_living_session_and_to_no_other(lost: bool, said: int) -> None:
    async with opened(in_session) as session:
        await begun(session)
        session.watch.lost = lost
    assert len([request for request in session.requests if request.method == "DELETE"]) == said


async def test_a_server_that_is_stuck_at_a_goodbye_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mcpconn.wire.streamable.GOODBYE_TIMEOUT", 0.01)

    async def silent() -> httpx2.Response:
        await anyio.sleep_forever()
        raise AssertionError

    async with opened(lambda request: silent() if request.method == "DELETE" else in_session(request)) as session:
        await begun(session)


async def test_an_answer_on_the_standalone_stream_is_dropped() -> None:
    async def silent() -> httpx2.Response:
        await anyio.sleep_forever()
        raise AssertionError

    forged = b"data: " + RESULT.replace(b'"ok": true', b'"forged": true')
    change = b'data: {"jsonrpc": "2.0", "method": "notifications/tools/list_changed"}'

    def handler(request: httpx2.Request) -> Any:
        if request.method == "GET":
            return streamed(forged, change)
        return silent() if b"tools/call" in request.content else in_session(request)

    async with opened(handler) as session:
        await begun(session)
        ATTEMPT.set(session.attempt)
        await session.write.send(SessionMessage(REQUEST))
        item = await session.read.receive()
        assert item.message.method == "notifications/tools/list_changed"
        assert session.watch.dropped == 1
        assert not session.attempt.answered
