"""`as_server` and `Session`, on a process that is killed."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import anyio
import mcp
import pytest
from mcp_types import CallToolResult, TextContent

import mcpconn
from mcpconn import Manager, State
from mcpconn.integrations import Session
from tests.integrations.shop import Shop, until

pytestmark = pytest.mark.anyio


def said(result: Any) -> str:
    assert isinstance(result, CallToolResult)
    return "\n".join(block.text for block in result.content if isinstance(block, TextContent))


@pytest.fixture(params=["legacy", "auto"])
def mode(request: pytest.FixtureRequest) -> Any:
    return request.param


async def test_a_client_of_as_server_lives_through_the_death_of_the_server(shop: Shop, mode: Any) -> None:
    async with Manager(shop.servers) as manager:
        async with mcp.Client(mcpconn.as_server(manager), mode=mode) as client:
            listed = (await client.list_tools()).tools
            assert [tool.name for tool in listed][:2] == ["shop__add", "shop__charge"]
            assert said(await client.call_tool("shop__add", {"a": 1, "b": 2})) == "3"
            shop.kill()
            assert said(await client.call_tool("shop__add", {"a": 2, "b": 2})) == "4"
            assert list(manager) == ["shop"], "no second copy of the server was started"
            shop.die_after_the_next_charge()
            result = await client.call_tool("shop__charge", {"order": "7"})
            assert result.is_error
            assert "It is not known whether the tool ran" in said(result)
            assert (result.meta or {})["mcpconn/outcome"] == "unknown"
            assert said(await client.call_tool("shop__charge", {"order": "8"})) == "charged 8"
        assert shop.ledger == ["7", "8"]
        assert manager["shop"].state is State.READY, "the host's connection outlives its clients"


async def test_a_connection_keeps_the_names_of_its_server(shop: Shop) -> None:
    async with Manager(shop.servers) as manager:
        await manager.wait_ready()
        async with mcp.Client(mcpconn.as_server(manager["shop"])) as client:
            assert said(await client.call_tool("add", {"a": 1, "b": 2})) == "3"
            failed = await client.call_tool("fails", {"reason": "no money"})
            assert failed.is_error
            assert "Error executing tool" in said(failed)


async def test_two_clients_share_the_session_and_hear_of_a_changed_list(shop: Shop) -> None:
    heard = anyio.Event()

    async def heed(message: Any) -> None:
        if getattr(message, "method", "") == "notifications/tools/list_changed":
            heard.set()

    async with Manager(shop.servers) as manager:
        server = mcpconn.as_server(manager)
        async with (
            mcp.Client(server, mode="legacy", message_handler=heed) as first,
            mcp.Client(server, mode="legacy") as second,
        ):
            await first.list_tools()
            await second.call_tool("shop__learn", {})
            with anyio.fail_after(20):
                await heard.wait()
            assert "shop__learned" in [tool.name for tool in (await first.list_tools()).tools]
            assert manager["shop"].epoch == 1


async def test_a_cancelled_call_is_cancelled_on_the_server(shop: Shop) -> None:
    async with Manager(shop.servers) as manager, mcp.Client(mcpconn.as_server(manager)) as client:
        async with anyio.create_task_group() as group:
            group.start_soon(client.call_tool, "shop__slow", {"order": "1"})
            await shop.began("slow-began")
            group.cancel_scope.cancel()
        await shop.began("slow-cancelled")
        assert said(await client.call_tool("shop__add", {"a": 1, "b": 1})) == "2"


async def test_a_session_tells_a_failed_call(shop: Shop) -> None:
    async with Manager(shop.servers) as manager:
        session = Session(manager["shop"])
        assert (await session.initialize()).server_info.name == "shop"
        assert "add" in [tool.name for tool in (await session.list_tools(params=None)).tools]
        await session.send_ping()
        shop.die_after_the_next_charge()
        result = await session.call_tool("charge", {"order": "1"}, 20.0)
        assert "Do not just try again" in said(result)
        assert (result.meta or {})["mcpconn/outcome"] == "unknown"
        assert said(await session.call_tool("add", {"a": 1, "b": 1})) == "2"
    assert shop.ledger == ["1"]


async def test_a_call_that_is_running_when_the_server_dies_says_so(shop: Shop) -> None:
    async with Manager(shop.servers) as manager:
        results: list[Any] = []

        async def call() -> None:
            results.append(await Session(manager["shop"]).call_tool("slow", {"order": "1"}))

        async with anyio.create_task_group() as group:
            group.start_soon(call)
            await shop.began("slow-began")
            shop.kill()
        assert (results[0].meta or {})["mcpconn/outcome"] == "unknown"
        await until(lambda: manager["shop"].state is State.READY)


def test_names_without_a_prefix_need_exactly_one_server() -> None:
    with pytest.raises(ValueError, match="exactly one server"):
        mcpconn.as_server(Manager({}), prefix=False)


def test_an_import_of_mcpconn_loads_neither_gateway_nor_integrations() -> None:
    program = "import sys, mcpconn; print([n for n in sys.modules if 'gateway' in n or 'integrations' in n])"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, env={**os.environ}
    )
    assert done.stdout.strip() == "[]"
