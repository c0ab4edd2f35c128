"""The scripted server behind connections in memory: kept, used again, poisoned, reset, in virtual time."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import httpx2
import pytest

from mcpconn import Connection, OutcomeUnknown, Policy, State
from mcpconn.testing import MemoryTransport, Script
from mcpconn.testing.clock import run
from mcpconn.testing.scripted import faults, poison
from tests.support import text_of

BACKENDS = ["asyncio", "trio"]


@asynccontextmanager
async def connected(script: Script, **options: Any) -> AsyncIterator[tuple[Connection, MemoryTransport]]:
    transport = MemoryTransport(script)
    config = {"url": "http://memory.test/mcp", "http_transport": transport}
    async with transport.serving(), Connection(config, policy=Policy(), **options) as connection:
        yield connection, transport


def live(backend: str, what: Any) -> None:
    """Run it in virtual time."""
    run(what, backend=backend, seed=1)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("answer", ["json", "sse"])
def test_calls_are_answered(backend: str, answer: Any) -> None:
    async def scenario() -> None:
        async with connected(Script(answer=answer)) as (connection, _):
            for amount in range(5):
                assert text_of(await connection.call_tool("charge", {"amount": amount})) == f"charged {amount}"

    live(backend, scenario)


@pytest.mark.parametrize("backend", BACKENDS)
def test_what_a_server_leaves_on_a_connection_is_not_read(backend: str) -> None:
    async def scenario() -> None:
        script = Script()
        async with connected(script) as (connection, _):
            script.inject(poison.followed_by(poison.refusal(404)))
            await connection.call_tool("charge", {"amount": 1})
            assert text_of(await connection.call_tool("charge", {"amount": 2})) == "charged 2"
            assert script.executions["charge"] == 2

    live(backend, scenario)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_reset_is_a_reset(backend: str) -> None:
    async def scenario() -> None:
        script = Script()
        async with connected(script) as (connection, transport):
            script.inject(faults.drop_after())
            with pytest.raises(OutcomeUnknown):
                await connection.call_tool("charge")
            transport.drop()
            assert text_of(await connection.call_tool("add", {"a": 1, "b": 2})) == "3"
            assert connection.state is State.READY

    live(backend, scenario)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_server_that_is_down_refuses(backend: str) -> None:
    async def scenario() -> None:
        async with MemoryTransport(Script()).serving() as transport, httpx2.AsyncClient(transport=transport) as client:
            transport.down = True
            with pytest.raises(httpx2.ConnectError):
                await client.get("http://memory.test/mcp")
            transport.down = False
            transport.refusing = 1
            with pytest.raises(httpx2.ConnectError):
                await client.get("http://memory.test/mcp")
            assert (await client.get("http://memory.test/mcp")).status_code == 400
            assert transport.refused == 2

    live(backend, scenario)


@pytest.mark.parametrize("backend", BACKENDS)
def test_time_passes_only_in_sleep(backend: str) -> None:
    async def scenario() -> None:
        script = Script()
        async with connected(script) as (connection, transport):
            script.inject(faults.slow(3000), tool="charge")
            began = anyio.current_time()
            assert text_of(await connection.call_tool("charge", {"amount": 1}, timeout=None)) == "charged 1"
            assert anyio.current_time() - began == pytest.approx(3000)
            # What was idle for so long is gone.
            await anyio.sleep(10)
            assert len(transport._engine._idle) == 0

    live(backend, scenario)
