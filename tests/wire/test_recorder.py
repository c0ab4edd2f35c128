"""The record of each HTTP request that carries a message: what an earlier one may have done is not forgotten."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from typing import Any

import anyio
import httpx2
import pytest

from mcpconn import CallFailed, Delivery, OutcomeUnknown
from mcpconn.core.attempt import Attempt
from mcpconn.testing import Script
from mcpconn.testing.scripted import faults
from mcpconn.wire.evidence_client import Recorder, carrying
from mcpconn.wire.extensions import ATTEMPT_KEY, UNSAFE_KEY
from mcpconn.wire.network import Network
from tests.support import UNFINISHED_STREAMS, served, text_of
from tests.wire.sockets import Name, Reply, free_port, listening

pytestmark = [pytest.mark.anyio, UNFINISHED_STREAMS]


@pytest.fixture(params=["direct", "httpx"])
def engine(request: pytest.FixtureRequest) -> Name:
    return request.param  # type: ignore[no-any-return]


# -- one request


class Answering(httpx2.AsyncBaseTransport):
    """Does what it is told with each request, in turn."""

    def __init__(self, *replies: httpx2.Response | Exception) -> None:
        self.replies = list(replies)
        self.seen: list[httpx2.Request] = []

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        self.seen.append(request)
        reply = self.replies.pop(0)
        if isinstance(reply, Exception):
            raise reply
        return reply


def post(**headers: str) -> httpx2.Request:
    return httpx2.Request("POST", "http://host.example/mcp", headers=headers, content=b"message")


async def test_a_messageless_request_has_no_record() -> None:
    inner = Answering(httpx2.Response(200))
    assert (await Recorder(inner).handle_async_request(post())).status_code == 200
    assert inner.seen[0].extensions == {}


async def test_what_came_of_a_request_is_recorded() -> None:
    attempt = Attempt("call", unsafe=True)
    inner = Answering(httpx2.Response(204))
    await Recorder(inner).handle_async_request(carrying(post(**{"mcp-session-id": "s"}), attempt))
    assert (attempt.written, attempt.http_status, attempt.session_sent) == (True, 204, True)
    assert inner.seen[0].extensions[UNSAFE_KEY] is True


async def test_the_event_stream_transport_is_always_in_a_session() -> None:
    attempt = Attempt("call")
    await Recorder(Answering(httpx2.Response(200)), in_session=True).handle_async_request(carrying(post(), attempt))
    assert attempt.session_sent is True


@pytest.mark.parametrize(
    ("error", "written"),
    [
        (httpx2.ConnectError("refused"), False),
        (httpx2.ConnectTimeout("late"), False),
        (httpx2.PoolTimeout("full"), False),
        (httpx2.LocalProtocolError("header"), False),
        (httpx2.ReadError("reset"), True),
        (httpx2.WriteTimeout("stuck"), True),
        (RuntimeError("bug"), True),
    ],
)
async def test_a_foreign_transport_tells_by_its_error_what_was_written(error: Exception, written: bool) -> None:
    attempt = Attempt("call")
    with pytest.raises(type(error)):
        await Recorder(Answering(error)).handle_async_request(carrying(post(), attempt))
    assert attempt.written is written


async def test_each_request_gets_an_own_record() -> None:
    attempt = Attempt("call")
    recorder = Recorder(Answering(httpx2.Response(307), httpx2.Response(502), httpx2.ConnectError("refused")))
    request = carrying(post(), attempt)
    await recorder.handle_async_request(request)
    await recorder.handle_async_request(request)
    assert (attempt.earlier, attempt.http_status) == (0, 502)
    with pytest.raises(httpx2.ConnectError):
        await recorder.handle_async_request(request)
    assert (attempt.earlier, attempt.http_status, attempt.written) == (1, None, False)


async def test_a_request_that_was_never_connected_was_not_written(engine: Name) -> None:
    attempt = Attempt("call")
    url = f"http://127.0.0.1:{await free_port()}/mcp"
    transport = Network().transport(url, engine)
    with pytest.raises(httpx2.ConnectError):
        await Recorder(transport).handle_async_request(carrying(httpx2.Request("POST", url), attempt))
    assert attempt.written is False
    await transport.aclose()


async def test_an_unsendable_header_is_not_written(engine: Name) -> None:
    attempt = Attempt("call")
    async with listening(Reply()) as server:
        transport = Network().transport(server.url, engine)
        request = httpx2.Request("POST", server.url, headers={"x": "a\r\nb: c"}, content=b"m")
        with pytest.raises(httpx2.LocalProtocolError):
            await Recorder(transport).handle_async_request(carrying(request, attempt))
        await transport.aclose()
        assert server.heads == []
    assert attempt.written is False


async def test_written_is_true_before_the_answer(engine: Name) -> None:
    attempt = Attempt("call")
    async with listening(Reply(b"", "hang")) as server:
        transport = Network().transport(server.url, engine)
        request = carrying(httpx2.Request("POST", server.url, content=b"m"), attempt)
        async with anyio.create_task_group() as group:
            group.start_soon(Recorder(transport).handle_async_request, request)
            await server.hanging.wait()
            assert attempt.written is True
            group.cancel_scope.cancel()
        assert attempt.written is True
        await transport.aclose()


# -- an auth flow that sends the message more than once

Flow = AsyncGenerator[httpx2.Request, httpx2.Response]


class Resending(httpx2.Auth):
    """Sends a message again when its answer has one of these statuses; asks a token endpoint first, if there is one."""

    def __init__(self, *statuses: int, token_url: Callable[[], str] | None = None) -> None:
        self.statuses = statuses
        self.token_url = token_url

    async def async_auth_flow(self, request: httpx2.Request) -> Flow:
        response = yield request
        if response.status_code in self.statuses:
            if self.token_url is not None:
                assert ATTEMPT_KEY in request.extensions
                yield httpx2.Request("POST", self.token_url(), content=b"grant")
            yield request


def config(engine: Name, auth: httpx2.Auth) -> dict[str, Any]:
    return {"engine": engine, "auth": auth}


async def test_a_message_refused_first_and_lost_then_is_unknown(engine: Name) -> None:
    script = Script()
    async with served(script, config=config(engine, Resending(401))) as (connection, _):
        script.inject(faults.unauthorized())
        script.inject(faults.drop_after())
        with pytest.raises(OutcomeUnknown):
            await connection.call_tool("charge", {"amount": 5})
        assert script.executions["charge"] == 1


async def test_a_message_sent_again_after_it_may_have_run_is_unknown(engine: Name) -> None:
    script = Script()
    async with served(script, config=config(engine, Resending(502))) as (connection, _):
        script.inject(faults.bad_gateway(ran=True))
        script.inject(faults.forbidden())
        with pytest.raises(OutcomeUnknown):
            await connection.call_tool("charge", {"amount": 5})
        assert script.executions["charge"] == 1


async def test_a_message_refused_first_and_answered_then_is_answered(engine: Name) -> None:
    script = Script()
    async with served(script, config=config(engine, Resending(401))) as (connection, _):
        script.inject(faults.unauthorized())
        assert text_of(await connection.call_tool("charge", {"amount": 5})) == "charged 5"


async def test_a_token_endpoint_that_is_down_leaves_a_refused_call_unrun(engine: Name) -> None:
    script = Script()
    port = await free_port()
    auth = Resending(401, token_url=lambda: f"http://127.0.0.1:{port}/token")
    async with served(script, config=config(engine, auth)) as (connection, _):
        script.inject(faults.unauthorized(), times=None)
        with pytest.raises(CallFailed) as caught:
            await connection.call_tool("charge", {"amount": 5}, timeout=0.2)
        assert caught.value.failure.delivery is Delivery.NOT_SENT
        assert script.executions["charge"] == 0
