"""Tests of a host's own handler, on a server that misbehaves on command."""

import json
from typing import Any

import pytest

import mcpconn
from mcpconn import handlers
from mcpconn.testing import Script, ScriptTransport
from mcpconn.testing.scripted import faults

pytestmark = pytest.mark.anyio


async def buy(manager: mcpconn.Manager, amount: int) -> str:
    """The handler under test: what the host shows its user."""
    answer = json.loads(
        await handlers.call_tool(manager, "shop", "charge")({"amount": amount})
    )
    if "error" not in answer:
        return "done"
    return "ask the shop" if answer["outcome"] == "unknown" else "try again"


@pytest.fixture
def script() -> Script:
    """A correct MCP server with `add` and `charge`, until told to misbehave."""
    return Script()


def manager_of(script: Script) -> mcpconn.Manager:
    server: dict[str, Any] = {
        "url": "http://shop/mcp",
        "http_transport": ScriptTransport(script),
    }
    return mcpconn.Manager({"shop": server})


async def test_an_expired_session_is_nobodys_business(script: Script) -> None:
    async with manager_of(script) as manager:
        await manager["shop"].wait_ready()
        script.forget_sessions()
        assert await buy(manager, 5) == "done"
    assert script.executions["charge"] == 1


async def test_a_cut_connection_is_not_taken_for_a_refusal(script: Script) -> None:
    script.inject(faults.drop_after(), tool="charge")
    async with manager_of(script) as manager:
        assert await buy(manager, 5) == "ask the shop"
    assert script.executions["charge"] == 1


async def test_a_refusal_may_be_tried_again(script: Script) -> None:
    script.inject(faults.forbidden(), tool="charge")
    async with manager_of(script) as manager:
        assert await buy(manager, 5) == "try again"
    assert script.executions["charge"] == 0
