"""Responses to legacy clients: JSON, or a stream of events, and when its head goes out."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import anyio
import pytest
from mcp_types import (
    ErrorData,
    JSONRPCError,
    JSONRPCMessage,
    JSONRPCNotification,
    JSONRPCRequest,
    JSONRPCResponse,
    jsonrpc_message_adapter,
)

from mcpconn.gateway.clients.events import Events, SessionEvents, dump
from mcpconn.gateway.clients.session_ids import Session
from mcpconn.gateway.principals import ANONYMOUS
from mcpconn.gateway.requests import large_tools
from mcpconn.gateway.requests.large_tools import LARGE
from mcpconn.gateway.requests.responses import (
    DECISION,
    KEPT,
    LARGE_HOLD,
    PING,
    SAFE_HOLD,
    TURN,
    Releases,
    Response,
)
from mcpconn.testing.clock import virtual_backend

pytestmark = pytest.mark.anyio

CALL = JSONRPCRequest(jsonrpc="2.0", id=7, method="tools/call", params={"name": "pay"})
ANSWER = JSONRPCResponse(jsonrpc="2.0", id=7, result={"content": []})
ERROR = JSONRPCError(jsonrpc="2.0", id=7, error=ErrorData(code=-1, message="no"))
PROGRESS = JSONRPCNotification(jsonrpc="2.0", method="notifications/progress", params={"progressToken": 7})
QUESTION = JSONRPCRequest(jsonrpc="2.0", id=7, method="elicitation/create", params={})
LONG = JSONRPCResponse(jsonrpc="2.0", id=7, result={"x": "y" * LARGE})
LONG_ERROR = JSONRPCError(jsonrpc="2.0", id=7, error=ErrorData(code=-1, message="y" * LARGE))


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request):
    return virtual_backend(request.param)


class Client:
    """A client, and the response to its request."""

    def __init__(self, releases: Releases, *, resumable: bool = True) -> None:
        self.started: dict[bytes, bytes] | None = None
        self.at: float | None = None
        self.body = b""
        self.complete = False
        self.gone = anyio.Event()
        self.events: SessionEvents = Events().of(Session("sid", ANONYMOUS, ""))
        self.response = Response(
            self._send, CALL, releases, events=self.events, headers={"mcp-session-id": "s"}, resumable=resumable
        )

    async def _send(self, message: Any) -> None:
        if self.gone.is_set():
            raise OSError("the client is gone")
        assert not self.complete, "nothing follows the end of a response"
        if message["type"] == "http.response.start":
            assert self.started is None
            self.started, self.at = dict(message["headers"]), anyio.current_time()
        else:
            assert self.started is not None
            self.body += message["body"]
            self.complete = not message.get("more_body")

    async def receive(self) -> Any:
        await self.gone.wait()
        return {"type": "http.disconnect"}

    @property
    def kind(self) -> bytes | None:
        return None if self.started is None else self.started[b"content-type"]

    @property
    def got(self) -> list[JSONRPCMessage]:
        """The messages of its stream."""
        data = [line[6:] for line in self.body.split(b"\r\n") if line.startswith(b"data: {")]
        return [jsonrpc_message_adapter.validate_json(each) for each in data]

    def is_json(self, answer: JSONRPCMessage) -> None:
        assert self.kind == b"application/json"
        assert self.complete
        assert self.body == dump(answer)
        assert self.started is not None
        assert self.started[b"content-length"] == str(len(self.body)).encode()
        assert self.started[b"mcp-session-id"] == b"s"


@pytest.mark.parametrize("answer", [ANSWER, ERROR, LONG, LONG_ERROR], ids=["result", "error", "long", "long error"])
@pytest.mark.parametrize("resumable", [True, False])
async def test_an_answer_that_comes_first_is_json(releases, answer, resumable):
    client = Client(releases, resumable=resumable)
    await client.response.decide(("a", "look"), safe=True)
    await client.response.message(answer)
    client.is_json(answer)
    await client.response.finished(client.receive)


@pytest.mark.parametrize("answer", [ANSWER, ERROR], ids=["result", "error"])
async def test_an_unsafe_tools_stream_begins_before_its_call(releases, answer):
    client = Client(releases)
    await client.response.decide(("a", "pay"), safe=False)
    assert client.kind == b"text/event-stream"
    assert client.body.startswith(b"id: ")
    assert b"\r\ndata: \r\nretry: 2500\r\n\r\n" in client.body
    await client.response.message(PROGRESS)
    assert not client.complete
    await client.response.message(answer)
    assert client.complete, "the stream ends with its answer"
    assert client.got == [PROGRESS, answer]


async def test_a_client_of_an_old_version_gets_no_event_without_a_message(releases):
    client = Client(releases, resumable=False)
    await client.response.decide(("a", "pay"), safe=False)
    assert client.kind == b"text/event-stream"
    assert client.body == b""
    await client.response.message(ANSWER)
    assert client.got == [ANSWER]


@pytest.mark.parametrize("before", [PROGRESS, QUESTION], ids=["a notification", "a question"])
async def test_what_comes_before_the_answer_begins_the_stream(releases, before):
    client = Client(releases)
    await client.response.decide(None, safe=True)
    await client.response.message(before)
    assert client.got == [before]
    await client.response.message(ANSWER)
    assert client.got == [before, ANSWER]
    assert client.complete


async def test_events_are_numbered_in_the_order_in_which_they_are_sent(releases):
    client = Client(releases)
    for message in (PROGRESS, QUESTION, ANSWER):
        await client.response.message(message)
    numbers = [line.partition(b"-")[0] for line in client.body.split(b"\r\n") if line.startswith(b"id: ")]
    assert len(numbers) == 4
    assert numbers == sorted(numbers)


@pytest.mark.parametrize(("tool", "held"), [(None, DECISION), (("a", "look"), SAFE_HOLD), (("a", "dump"), LARGE_HOLD)])
async def test_a_head_held_long_enough_is_sent(releases, tool, held):
    large_tools.remember(("a", "dump"))
    began, client = anyio.current_time(), Client(releases)
    if tool is not None:
        await client.response.decide(tool, safe=True)
    await anyio.sleep(2 * LARGE_HOLD)
    assert client.at is not None
    assert held <= client.at - began <= held + TURN


async def test_a_stream_is_kept_busy(releases):
    client = Client(releases)
    await client.response.decide(("a", "pay"), safe=False)
    await anyio.sleep(4.5 * PING)
    assert client.body.count(b": ping\r\n\r\n") == 4
    await client.response.message(ANSWER)
    await anyio.sleep(2 * PING)
    assert client.got == [ANSWER]


async def test_a_long_hold_delays_no_other(releases):
    large_tools.remember(("a", "dump"))
    await Client(releases).response.decide(("a", "dump"), safe=True)
    # The long hold is then the only one that is looked at.
    await anyio.sleep(LARGE_HOLD / 2)
    began, client = anyio.current_time(), Client(releases)
    await anyio.sleep(LARGE_HOLD)
    assert client.at is not None
    assert client.at - began <= DECISION + TURN


async def test_a_client_that_is_gone_holds_up_no_other(releases):
    gone, other = Client(releases), Client(releases)
    gone.gone.set()
    await anyio.sleep(2 * DECISION)
    assert gone.response.over
    assert other.kind == b"text/event-stream"


async def test_the_request_of_a_client_that_is_gone_goes_on(releases):
    client = Client(releases)
    await client.response.decide(("a", "pay"), safe=False)
    first = client.body[4:].partition(b"\r\n")[0].decode()
    client.gone.set()
    await client.response.finished(client.receive)
    client.response.cut()
    # Its sender learns nothing of that.
    await client.response.message(ANSWER)
    got: list[Any] = []

    async def take(event: Any) -> None:
        got.append(event.message)

    await client.events.replay_events_after(first, take)
    assert got == [ANSWER]


@pytest.mark.parametrize("answer", [LONG, LONG_ERROR], ids=["a result", "an error"])
async def test_progress_does_not_release_the_head_of_a_tool_known_for_large_answers(releases, answer):
    large_tools.remember(("a", "pay"))
    client = Client(releases)
    await client.response.decide(("a", "pay"), safe=False)
    for _ in range(2 * KEPT):
        await client.response.message(PROGRESS)
    assert client.kind is None
    await client.response.message(answer)
    client.is_json(answer)


async def test_kept_progress_goes_out_before_an_answer_that_is_small(releases):
    large_tools.remember(("a", "dump"))
    client = Client(releases)
    await client.response.decide(("a", "dump"), safe=False)
    await client.response.message(PROGRESS)
    await client.response.message(ANSWER)
    assert client.got == [PROGRESS, ANSWER]


async def test_a_question_releases_a_held_head(releases):
    large_tools.remember(("a", "dump"))
    client = Client(releases)
    await client.response.decide(("a", "dump"), safe=False)
    await client.response.message(QUESTION)
    assert client.got == [QUESTION]


@pytest.mark.parametrize("safe", [True, False])
async def test_a_large_answer_is_remembered_whichever_way_it_went(releases, safe):
    client = Client(releases)
    await client.response.decide(("a", "walk"), safe=safe)
    await client.response.message(LONG)
    assert large_tools.is_known(("a", "walk"))


async def test_a_response_without_an_answer_ends_cleanly(releases):
    for safe in (True, False):
        client = Client(releases)
        await client.response.decide(("a", "pay"), safe=safe)
        await client.response.end()
        assert client.kind == b"text/event-stream"
        assert client.complete
        assert client.got == []


async def test_half_a_response_is_not_left_by_a_sender_that_is_cancelled(releases):
    client = Client(releases)
    with anyio.CancelScope() as scope:
        scope.cancel()
        await client.response.message(ANSWER)
    client.is_json(ANSWER)


async def test_an_answer_is_let_go_once_it_is_sent(releases):
    client = Client(releases)
    answer = ANSWER.model_copy()
    there = weakref.ref(answer)
    await client.response.message(answer)
    del answer
    gc.collect()
    assert there() is None
