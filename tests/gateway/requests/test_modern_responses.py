"""Responses to modern clients that ask for nothing before their answer."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import anyio
import pytest

from mcpconn.gateway.requests.large import decide
from mcpconn.gateway.requests.large_tools import LARGE, is_known
from mcpconn.gateway.requests.modern_responses import WATCHED, ModernResponse, says_nothing_early
from mcpconn.gateway.requests.responses import PING, TURN, Releases
from mcpconn.testing.clock import virtual_backend

pytestmark = pytest.mark.anyio

BOTH = [(b"accept", b"application/json, text/event-stream")]
ANSWER = b'{"jsonrpc":"2.0","id":1,"result":{}}'


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request):
    return virtual_backend(request.param)


class Client:
    """A client, and what it was sent."""

    def __init__(self, *, slow: float = 0.0) -> None:
        self.gone = anyio.Event()
        self.reachable = True
        self.heads: list[dict[bytes, bytes]] = []
        self.parts: list[bytes] = []
        self.complete = False
        self._slow = slow
        self._asked = False

    async def receive(self) -> Any:
        if not self._asked:
            self._asked = True
            return {"type": "http.request", "body": b"{}", "more_body": False}
        await self.gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Any) -> None:
        await anyio.sleep(self._slow)
        if not self.reachable:
            raise OSError("the client is gone")
        assert not self.complete, "nothing follows the end of a response"
        if message["type"] == "http.response.start":
            self.heads.append(dict(message["headers"]))
        else:
            assert self.heads
            self.parts.append(message["body"])
            self.complete = not message.get("more_body")


def answering(after: float, body: bytes = ANSWER) -> Any:
    """The SDK's server, which answers with JSON."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        assert (await receive())["type"] == "http.request"
        await decide(scope, ("a", "look"), safe=True)
        await anyio.sleep(after)
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/json")]})
        await send({"type": "http.response.body", "body": body})

    return app


async def run(releases: Releases, client: Client, app: Any) -> None:
    await ModernResponse(client.receive, client.send, releases).run(app, {"type": "http"})


@pytest.mark.parametrize("after", [0, WATCHED, 1, PING - 0.1])
async def test_an_answer_is_json(releases, after):
    client = Client()
    await run(releases, client, answering(after))
    await anyio.sleep(10 * PING)
    assert client.heads == [{b"content-type": b"application/json"}]
    assert client.parts == [ANSWER]
    assert client.complete


async def test_a_late_answer_ends_a_stream_that_says_that_it_is_still_to_come(releases):
    client = Client()
    await run(releases, client, answering(3 * PING + 1))
    assert [head[b"content-type"] for head in client.heads] == [b"text/event-stream"]
    assert client.parts == [b": ping\r\n\r\n"] * 3 + [b"event: message\r\ndata: " + ANSWER + b"\r\n\r\n"]
    assert client.complete
    assert not is_known(("a", "look"))


async def test_a_tool_whose_late_answer_is_large_is_remembered(releases):
    await run(releases, Client(), answering(PING + 1, b"x" * (LARGE + 1)))
    assert is_known(("a", "look"))


@pytest.mark.parametrize("slow", [2.0, 2 * PING])
@pytest.mark.parametrize("after", [0, PING - 1, PING - 0.01, PING, PING + 0.01, 2 * PING - 1])
async def test_a_client_that_reads_slowly_gets_one_response(releases, after, slow):
    client = Client(slow=slow)
    await run(releases, client, answering(after))
    await anyio.sleep(10 * PING)
    assert len(client.heads) == 1
    assert client.complete
    assert ANSWER in client.parts[-1]
    assert (client.parts[-1] == ANSWER) is (client.heads[0][b"content-type"] == b"application/json")


@pytest.mark.parametrize("after", [0.01, WATCHED, 5, PING + 5])
async def test_the_end_of_its_client_cancels_the_request(releases, after):
    client = Client()
    async with anyio.create_task_group() as group:
        group.start_soon(run, releases, client, answering(100))
        await anyio.sleep(after)
        client.gone.set()
        left = anyio.current_time()
    assert anyio.current_time() - left <= WATCHED + 2 * TURN
    assert not client.complete


async def test_a_client_that_cannot_be_sent_to_cancels_its_request_and_no_other(releases):
    lost, other = Client(), Client()
    lost.reachable = False
    async with anyio.create_task_group() as group:
        group.start_soon(run, releases, other, answering(2 * PING))
        await run(releases, lost, answering(100))
        assert anyio.current_time() <= PING + 1
    assert other.complete


async def test_a_request_is_let_go_once_it_is_answered(releases):
    client = Client()
    there = weakref.ref(client)
    await run(releases, client, answering(0))
    del client
    gc.collect()
    assert there() is None


async def test_a_response_that_ends_at_the_moment_it_is_due_is_not_watched(releases):
    client = Client()
    response = ModernResponse(client.receive, client.send, releases)
    await response.run(answering(0), {"type": "http"})
    await response.tick()


async def test_a_failure_of_the_server_is_passed_on(releases):
    async def fails(scope: Any, receive: Any, send: Any) -> None:
        await anyio.sleep(1)
        raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"):
        await run(releases, Client(), fails)


@pytest.mark.parametrize(
    ("body", "accept", "expected"),
    [
        (b'{"method":"tools/call","params":{"name":"a","arguments":{}}}', BOTH, True),
        (b'{"params":{"_meta":{"progressToken":1}}}', BOTH, False),
        (b'{"params":{"_meta":{"io.modelcontextprotocol/logLevel":"debug"}}}', BOTH, False),
        (b'{"method":"subscriptions/listen"}', BOTH, False),
        (b'{"params":{"_meta":{"progress\\u0054oken":1}}}', BOTH, False),
        (b'{"method":"tools/list"}', [(b"accept", b"application/json")], False),
        (b'{"method":"tools/list"}', [], False),
    ],
    ids=["a call", "progress", "log messages", "listening", "escaped", "json alone", "no accept"],
)
def test_what_may_say_something_before_its_answer_is_left_to_the_sdk(body, accept, expected):
    assert says_nothing_early({"type": "http", "headers": accept}, body) is expected
