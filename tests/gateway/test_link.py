"""Faults on the link between `mcpconn.Connection` and the gateway: every call is answered, and runs once."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import pytest
from mcp_types import CallToolResult
from starlette.types import Message, Receive, Scope, Send

from mcpconn import Connection, OutcomeUnknown
from mcpconn.gateway.outcomes import OUTCOME
from mcpconn.testing import FaultProxy, Script, faults
from tests.gateway.conftest import Gateway, gateway
from tests.support import text_of
from tests.test_faults import UNKNOWN

pytestmark = pytest.mark.anyio

ENGINES = pytest.mark.parametrize("engine", ["direct", "httpx"])
ERAS = pytest.mark.parametrize("mode", ["legacy", "auto"], ids=["legacy link", "modern link"])


class Port:
    def __init__(self, made: Gateway) -> None:
        self.port = int(made.url.split(":")[2].partition("/")[0])


async def _nothing(message: Message) -> None:
    """Lose an answer."""


def _answers(status: int) -> Callable[..., Awaitable[None]]:
    async def fault(app: Any, scope: Scope, receive: Receive, send: Send) -> None:
        await app(scope, receive, _nothing)
        await send({"type": "http.response.start", "status": status, "headers": [(b"content-length", b"0")]})
        await send({"type": "http.response.body", "body": b""})

    return fault


def _refuses(status: int) -> Callable[..., Awaitable[None]]:
    async def fault(app: Any, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": status, "headers": [(b"content-length", b"0")]})
        await send({"type": "http.response.body", "body": b""})

    return fault


async def _cut(app: Any, scope: Scope, receive: Receive, send: Send) -> None:
    await app(scope, receive, _nothing)
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]})
    await send({"type": "http.response.body", "body": b": \n\n", "more_body": False})


def _says(status: int, kind: bytes, body: bytes) -> Callable[..., Awaitable[None]]:
    async def fault(app: Any, scope: Scope, receive: Receive, send: Send) -> None:
        await app(scope, receive, _nothing)
        headers = [(b"content-type", kind), (b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    return fault


async def _breaks(app: Any, scope: Scope, receive: Receive, send: Send) -> None:
    """The connection is closed in the middle of a chunked answer."""
    await app(scope, receive, _nothing)
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]})
    await send({"type": "http.response.body", "body": b": \n\n", "more_body": True})
    raise ConnectionResetError("the link is cut")


FAULTS = {
    "502 after the tool ran": _answers(502),
    "500 after the tool ran": _answers(500),
    "503 after the tool ran": _answers(503),
    "500 before it": _refuses(500),
    "503 before it": _refuses(503),
    "502 before it": _refuses(502),
    "429 before it": _refuses(429),
    "a stream without an answer": _cut,
    "a stream that is cut": _breaks,
    "garbage": _says(200, b"application/json", b"{nonsense"),
    "html": _says(200, b"text/html", b"<html>Sign in</html>"),
    "202": _answers(202),
}


class Link:
    """Spoils the next requests that call a tool, before the gateway's application."""

    def __init__(self, made: Gateway) -> None:
        self._app = made.app
        self.left: list[Callable[..., Awaitable[None]]] = []
        endpoint = made.app.endpoint("")
        self._inner = endpoint.sessions.__call__
        made.app._endpoints[""] = self  # type: ignore[assignment]
        self._endpoint = endpoint

    def __getattr__(self, name: str) -> Any:
        return getattr(self._endpoint, name)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        first = await receive() if scope["method"] == "POST" else {}

        async def again() -> Message:
            nonlocal first
            given, first = first, {}
            return given or await receive()

        if self.left and b'"tools/call"' in first.get("body", b""):
            await self.left.pop(0)(self._endpoint, scope, again, send)
        else:
            await self._endpoint(scope, again, send)


@ERAS
@pytest.mark.parametrize(("times", "engine", "backend"), [(1, "httpx", "trio"), (3, "direct", "asyncio")])
@pytest.mark.parametrize("fault", FAULTS, ids=list(FAULTS))
async def test_a_fault_of_the_link_is_no_unknown(fault, times, mode, engine, backend):
    script = Script()
    async with gateway(script) as made:
        link = Link(made)

        async def client() -> None:
            async with Connection({"url": made.url, "mode": mode, "engine": engine}) as connection:
                await connection.list_tools()
                # A server that says three times that there are too many calls is believed.
                link.left = [FAULTS[fault]] * (1 if fault.startswith("429") else times)
                result = await connection.call_tool("a__charge", {"amount": 1})
                assert not result.is_error, result
                assert not (await connection.call_tool("a__charge", {"amount": 2})).is_error

        # The gateway is served on asyncio; its client has an event loop of its own.
        await anyio.to_thread.run_sync(lambda: anyio.run(client, backend=backend))
    assert script.executions["charge"] == 2


@ENGINES
@ERAS
async def test_a_reset_while_the_tool_runs_is_no_unknown(mode, engine):
    script = Script()
    async with (
        gateway(script) as made,
        FaultProxy(Port(made)) as proxy,
        Connection({"url": proxy.url, "mode": mode, "engine": engine}) as connection,
    ):
        await connection.list_tools()
        script.on_execute = lambda _: proxy.reset()
        result = await connection.call_tool("a__slow_charge", {"seconds": 0.2})
        assert not result.is_error, result
    assert script.executions["slow_charge"] == 1


@ERAS
async def test_faults_behind_it_stay_unknown(mode):
    script = Script()
    async with gateway(script) as made, Connection({"url": made.url, "mode": mode}) as connection:
        await connection.list_tools()
        script.inject(faults.drop_after())
        result = await connection.call_tool("a__charge", {"amount": 1})
        assert isinstance(result, CallToolResult)
        assert (result.meta or {})[OUTCOME] == "unknown"
    assert script.executions["charge"] == 1


@ERAS
@pytest.mark.parametrize("era", ["legacy", "modern"], ids=["legacy server", "modern server"])
@pytest.mark.parametrize("fault", UNKNOWN)
async def test_behind_it_is_unknown_what_the_cores_table_says(fault, mode, era):
    script, row = Script(era=era), UNKNOWN[fault]
    async with gateway(script) as made, Connection({"url": made.url, "mode": mode}) as connection:
        await connection.list_tools()
        script.inject(row.make(), tool="charge")
        result = await connection.call_tool("a__charge", {"amount": 1})
        assert (result.meta or {})[OUTCOME] == "unknown"
        assert script.executions["charge"] == int(row.ran)
        assert text_of(await connection.call_tool("a__charge", {"amount": 2})) == "charged 2"
        script.inject(row.make(), tool="add")
        assert text_of(await connection.call_tool("a__add", {"a": 2, "b": 3})) == "5"
    assert script.executions["charge"] == int(row.ran) + 1


@ERAS
async def test_a_gateway_with_another_ledger_runs_nothing_again(mode):
    script = Script()
    async with gateway(script) as made:
        link = Link(made)
        async with Connection({"url": made.url, "mode": mode}) as connection:
            await connection.list_tools()

            async def forget(*args: Any) -> None:
                await _answers(502)(*args)
                made.app.ledger._identity = "another"
                await made.store.put(made.app.ledger.NAME, b"another", ttl=60)

            link.left = [forget]
            try:
                result = await connection.call_tool("a__charge", {"amount": 1})
            except OutcomeUnknown:
                pass
            else:
                assert (result.meta or {})[OUTCOME] == "unknown"
    assert script.executions["charge"] == 1


@ERAS
async def test_an_abandoned_call_is_cancelled(mode):
    script = Script()
    async with gateway(script) as made, Connection({"url": made.url, "mode": mode}) as connection:
        await connection.list_tools()
        began, cancelled = anyio.Event(), anyio.Event()
        script.on_execute = lambda _: began.set()
        ledger = made.app.ledger
        real = ledger.unknown

        async def unknown(entry: Any) -> None:
            await real(entry)
            cancelled.set()

        ledger.unknown = unknown  # type: ignore[method-assign]
        async with anyio.create_task_group() as group:

            async def call() -> None:
                await connection.call_tool("a__slow_charge", {"seconds": 30})

            group.start_soon(call)
            await began.wait()
            group.cancel_scope.cancel()
        await cancelled.wait()


async def test_a_plain_server_gets_no_key():
    script = Script()
    async with gateway(script) as made, Connection({"url": made.url}) as connection:
        await connection.list_tools()
        assert (connection.server_capabilities.experimental or {})["mcpconn/ledger"]["ttl"] == made.app.ledger.ttl
        await connection.call_tool("a__charge", {"amount": 1})
    run = script.calls[-1]
    assert run.tool == "charge"
    assert "_meta" not in run.arguments
