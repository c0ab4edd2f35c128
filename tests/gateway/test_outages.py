"""A server is away while a hundred calls wait for it: each is answered once it is back, and it is not hammered."""

from __future__ import annotations

from contextlib import AsyncExitStack
from itertools import pairwise
from typing import Any, Literal

import anyio
import httpx2
import pytest
from mcp import Client

from mcpconn.gateway.servers.upstreams import ERA_PATIENCE
from mcpconn.testing import FaultProxy, HttpServer, Script, ScriptTransport
from mcpconn.testing.clock import virtual_backend
from tests.gateway.inside import FRONTS, inside
from tests.gateway.test_killed import SAFETY, Process
from tests.support import UNFINISHED_STREAMS, text_of

pytestmark = [pytest.mark.anyio, UNFINISHED_STREAMS]

CLIENTS, EACH = 20, 5


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    """The gateway is served on asyncio alone."""
    return virtual_backend("asyncio")


class Noting(ScriptTransport):
    """Notes when somebody tried to open a session without success."""

    def __init__(self, script: Script) -> None:
        super().__init__(script)
        self.at: list[float] = []

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        # The first request of a session; `server/discover` is a probe's, too, with a later id.
        if self.down and b'"id":1,' in await request.aread():
            self.at.append(anyio.current_time())
        return await super().handle_async_request(request)


class Calls:
    """A hundred calls of all clients, half of them of a tool that may not run twice."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.last = 0.0

    async def make(self, client: Client, number: int) -> None:
        tool = "charge" if number % 2 else "add"
        result = await client.call_tool(f"a__{tool}", {"amount": number, "a": number, "b": 0})
        assert text_of(result) == (f"charged {number}" if number % 2 else str(number))
        self.texts.append(text_of(result))
        self.last = anyio.current_time()


@pytest.mark.parametrize("seconds", [3, 30])
@pytest.mark.parametrize("era", ["legacy", "modern"])
@pytest.mark.parametrize("front", FRONTS)
async def test_calls_wait_for_an_absent_server(front: str, era: Literal["legacy", "modern"], seconds: int) -> None:
    script, calls = Script(era=era), Calls()
    transport = Noting(script)
    async with inside(script, transport=transport) as made, AsyncExitStack() as stack:
        clients = [
            await stack.enter_async_context(made.client(front)) for _ in range(1 if front == "stdio" else CLIENTS)
        ]
        for client in clients:
            await client.call_tool("a__add", {"a": 1, "b": 1})
        before = script.executions.copy()
        transport.down = True
        transport.drop()
        await anyio.sleep(0.5)
        async with anyio.create_task_group() as group:
            for number in range(CLIENTS * EACH):
                group.start_soon(calls.make, clients[number % len(clients)], number)
            await anyio.sleep(seconds)
            transport.down = False
            back = anyio.current_time()
    assert len(calls.texts) == CLIENTS * EACH
    assert script.executions["charge"] - before["charge"] == CLIENTS * EACH // 2
    assert calls.last - back < 2.5
    # Those that were in progress when the first one was refused could not know: 8 at once are allowed.
    dials = [at for at in transport.at if at >= transport.at[0] + 0.5]
    assert len(transport.at) - len(dials) <= 8
    assert 1 < len(dials) <= seconds + 1
    assert all(after - first >= 0.999 for first, after in pairwise(dials))


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.parametrize("mode", ["legacy", "auto"], ids=["legacy client", "modern client"])
async def test_a_gateway_dials_once_a_second(tmp_path: Any, mode: Any) -> None:
    script, calls = Script(), Calls()
    with anyio.fail_after(SAFETY):
        async with HttpServer(script) as server, FaultProxy(server) as proxy, AsyncExitStack() as stack:
            made = Process(tmp_path, proxy.url)
            stack.push_async_callback(made.kill)
            await made.start()
            clients = [await stack.enter_async_context(Client(made.url, mode=mode)) for _ in range(CLIENTS)]
            for client in clients:
                await client.call_tool("a__add", {"a": 1, "b": 1})
            proxy.refusing = True
            proxy.reset()
            async with anyio.create_task_group() as group:
                await anyio.sleep(0.5)
                # Until every connection has found out: a call that meets the outage first opens a connection, too, and
                # calls wait 5 s for the server's era before that. Calls that are safe: what is written to a connection
                # before its reset arrives may have run.
                for number in range(0, CLIENTS * EACH, 2):
                    group.start_soon(calls.make, clients[number // 2 % CLIENTS], number)
                await anyio.sleep(ERA_PATIENCE + 3)
                for number in range(1, CLIENTS * EACH, 2):
                    group.start_soon(calls.make, clients[number // 2 % CLIENTS], number)
                accepted, began = proxy.accepted, anyio.current_time()
                await anyio.sleep(3)
                # One of each second, and one that was due just then. On a busy machine the seconds are longer.
                passed, dialled = anyio.current_time() - began, proxy.accepted - accepted
                proxy.refusing = False
        # An era that is not certain is asked for first: a dial may be two connections.
        assert dialled <= 2 * (passed + 1)
    assert len(calls.texts) == CLIENTS * EACH
    assert script.executions["charge"] == CLIENTS * EACH // 2
