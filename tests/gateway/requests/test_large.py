"""When the head of a response goes out, and that its stream ends with the answer of its request."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import pytest

from mcpconn.gateway.clients.sessions import REQUEST_KEY
from mcpconn.gateway.requests import large_tools
from mcpconn.gateway.requests.large import (
    DECISION,
    KEPT,
    LARGE,
    LARGE_HOLD,
    SAFE_HOLD,
    TURN,
    Releases,
    decide,
    noticing,
    whole_if_large,
)
from mcpconn.testing.clock import virtual_backend

pytestmark = pytest.mark.anyio

START = {"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]}
FIRST = b"id: 1-x-cn.7\r\ndata: \r\nretry: 2500\r\n\r\n"
END = {"type": "http.response.body", "body": b"", "more_body": False}


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request):
    return virtual_backend(request.param)


@pytest.fixture(autouse=True)
def forget(monkeypatch):
    """No tool is known for its large answers."""
    monkeypatch.setattr(large_tools, "_known", type(large_tools._known)())


def event(data: str) -> dict[str, Any]:
    """A chunk as the SDK's server sends it."""
    return {
        "type": "http.response.body",
        "body": b"id: 2-x-cn.7\r\nevent: message\r\ndata: %b\r\n\r\n" % data.encode(),
        "more_body": True,
    }


def first() -> dict[str, Any]:
    return {"type": "http.response.body", "body": FIRST, "more_body": True}


class Served:
    """A response as its client gets it."""

    def is_plain_json(self, answer: str) -> None:
        start, body = self.got
        assert (b"content-type", b"application/json") in start["headers"]
        assert body["body"] == answer.encode()

    def __init__(self, releases: Releases, request_id: Any = 7) -> None:
        self._releases = releases
        self._request_id = request_id
        self.got: list[dict[str, Any]] = []
        self.at: list[float] = []

    async def __call__(self, app: Callable[..., Awaitable[None]]) -> None:
        async def send(message: Any) -> None:
            self.got.append(message)
            self.at.append(anyio.current_time())

        async def receive() -> Any:
            raise AssertionError("nobody reads the request")

        scope = {"type": "http", REQUEST_KEY: (self._request_id, "tools/call")}
        await whole_if_large(self._releases, app, scope, receive, send)

    @property
    def ends(self) -> list[bool]:
        return [not each.get("more_body") for each in self.got if each["type"] == "http.response.body"]


ANSWERS = {
    "a result": (7, '{"jsonrpc":"2.0","id":7,"result":{"content":[]}}'),
    "an error": (7, '{"jsonrpc":"2.0","id":7,"error":{"code":-1,"message":"no"}}'),
    "an id that is a text": ("a-1", '{"jsonrpc":"2.0","id":"a-1","result":{}}'),
}


@pytest.mark.parametrize("kind", ANSWERS)
async def test_a_stream_ends_with_its_answer(kind):
    request_id, answer = ANSWERS[kind]

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(START)
        await send(first())
        await send(event(answer))
        # The client has the whole response while the SDK's server still ends its tasks.
        assert served.ends == [False, True]
        await send({"type": "http.response.body", "body": b": ping\r\n\r\n", "more_body": True})
        await send(END)

    async with Releases().running() as releases:
        served = Served(releases, request_id)
        await served(app)
    assert [each.get("body") for each in served.got] == [None, FIRST, event(answer)["body"]]


OTHERS = {
    "a notification": '{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":7}}',
    "a question": '{"jsonrpc":"2.0","id":7,"method":"elicitation/create","params":{"result":{}}}',
    "another's answer": '{"jsonrpc":"2.0","id":77,"result":{}}',
    "an answer to a text": '{"jsonrpc":"2.0","id":"7","result":{}}',
    "an answer in a message": r'{"jsonrpc":"2.0","method":"m","params":{"x":"\r\ndata: {\"jsonrpc\":\"2.0\""}}',
}


@pytest.mark.parametrize("kind", OTHERS)
async def test_no_other_message_ends_a_stream(kind):
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(START)
        await send(event(OTHERS[kind]))
        assert served.ends == [False]
        await send(event(ANSWERS["a result"][1]))

    async with Releases().running() as releases:
        served = Served(releases)
        await served(app)
    assert served.ends == [False, True]


async def test_a_stream_of_an_unknown_id_ends_with_the_server():
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(START)
        await send(event(ANSWERS["a result"][1]))
        await send(END)

    async with Releases().running() as releases:
        served = Served(releases, None)
        await served(app)
    assert served.ends == [False, True]
    assert served.got[-1]["body"] == b""


async def test_an_unsafe_tools_stream_begins_before_its_call():
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(START)
        await send(first())
        assert served.got == []
        await decide(scope, ("a", "pay"), safe=False)
        assert len(served.got) == 2

    async with Releases().running() as releases:
        served = Served(releases)
        await served(app)


@pytest.mark.parametrize(("tool", "held"), [(None, DECISION), (("a", "look"), SAFE_HOLD), (("a", "dump"), LARGE_HOLD)])
async def test_a_head_held_long_enough_is_sent(tool, held):
    large_tools.remember(("a", "dump"))

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(START)
        await send(first())
        if tool is not None:
            await decide(scope, tool, safe=True)
        await anyio.sleep(2 * LARGE_HOLD)

    async with Releases().running() as releases:
        began, served = anyio.current_time(), Served(releases)
        await served(app)
    assert held <= served.at[0] - began <= held + TURN


async def test_a_long_hold_delays_no_other():
    large_tools.remember(("a", "dump"))

    async def long(scope: Any, receive: Any, send: Any) -> None:
        await send(START)
        await decide(scope, ("a", "dump"), safe=True)
        await anyio.sleep(2 * LARGE_HOLD)

    async def short(scope: Any, receive: Any, send: Any) -> None:
        await send(START)
        await anyio.sleep(2 * LARGE_HOLD)

    async with Releases().running() as releases, anyio.create_task_group() as group:
        group.start_soon(Served(releases), long)
        # The long hold is then the only one that is looked at.
        await anyio.sleep(LARGE_HOLD / 2)
        began, served = anyio.current_time(), Served(releases)
        await served(short)
    assert served.at[0] - began <= DECISION + TURN


async def test_a_large_answer_that_was_held_back_is_plain_json():
    answer = '{"jsonrpc":"2.0","id":7,"result":{"x":"%s"}}' % ("y" * LARGE)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(START)
        await send(first())
        await decide(scope, ("a", "look"), safe=True)
        await send(event(answer))
        await send(END)

    async with Releases().running() as releases:
        served = Served(releases)
        await served(app)
    served.is_plain_json(answer)


async def test_an_unsendable_head_ends_no_other():
    async def broken(message: Any) -> None:
        raise OSError("the client is gone")

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(START)
        await anyio.sleep(2 * DECISION)

    async with Releases().running() as releases:
        scope = {"type": "http", REQUEST_KEY: (7, "tools/call")}
        await whole_if_large(releases, app, scope, None, broken)  # type: ignore[arg-type]
        served = Served(releases)
        await served(app)
    assert served.got == [START]


RESULT = '{"jsonrpc":"2.0","id":7,"result":{"x":"%s"}}' % ("y" * LARGE)
ERROR = '{"jsonrpc":"2.0","id":7,"error":{"code":-1,"message":"%s"}}' % ("y" * LARGE)
PROGRESS = '{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":7,"progress":1}}'


@pytest.mark.parametrize("answer", [RESULT, ERROR], ids=["a result", "an error"])
async def test_progress_does_not_release_the_head_of_a_tool_known_for_large_answers(answer):
    large_tools.remember(("a", "pay"))

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(START)
        await send(first())
        await decide(scope, ("a", "pay"), safe=False)
        for _ in range(2 * KEPT):
            await send(event(PROGRESS))
        await send(event(answer))
        await send(END)

    async with Releases().running() as releases:
        served = Served(releases)
        await served(app)
    served.is_plain_json(answer)


async def test_kept_progress_goes_out_before_an_answer_that_is_small():
    large_tools.remember(("a", "dump"))
    small = event(ANSWERS["a result"][1])

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(START)
        await decide(scope, ("a", "dump"), safe=False)
        await send(event(PROGRESS))
        await send(small)

    async with Releases().running() as releases:
        served = Served(releases)
        await served(app)
    assert [each.get("body") for each in served.got] == [None, event(PROGRESS)["body"], small["body"]]


async def test_a_question_releases_a_held_head():
    large_tools.remember(("a", "dump"))

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(START)
        await decide(scope, ("a", "dump"), safe=False)
        await send(event(OTHERS["a question"]))
        assert len(served.got) == 2

    async with Releases().running() as releases:
        served = Served(releases)
        await served(app)


async def test_a_modern_tool_with_a_large_event_is_quiet_from_then_on():
    told: list[bool] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        told.append(await decide(scope, ("a", "walk"), safe=False))
        await send(START)
        await send(event(RESULT))

    async def drop(message: Any) -> None:
        pass

    for _ in range(2):
        await noticing(app, {"type": "http"}, None, drop)  # type: ignore[arg-type]
    assert told == [False, True]


NAMES = {
    "get_image": True,
    "browser_take_screenshot": True,
    "readFile": True,
    "HTMLDump": True,
    "charge": False,
    "getAndDelete": False,
    "run_query": False,
    "write_file": False,
    "getaway": False,
}


@pytest.mark.parametrize("name", NAMES)
def test_a_name_tells_that_much_is_returned(name):
    assert large_tools.returns_much(name) is NAMES[name]
