"""A canary for each inner working of the SDK's client that `mcpconn.sdk.client` depends on."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import mcp
import pytest
from mcp.client import ClientSession
from mcp.server import MCPServer
from mcp_types import CallToolResult, Tool

from mcpconn.sdk import client as sdk

pytestmark = pytest.mark.anyio

SCHEMA = {"type": "object", "properties": {"total": {"type": "integer"}}, "required": ["total"]}


@asynccontextmanager
async def session(mode: str = "legacy") -> AsyncIterator[ClientSession]:
    server = MCPServer("canary")

    @server.tool()
    def total() -> dict[str, Any]:
        return {"total": 1}

    async with sdk.Client(server, mode=mode) as client:
        yield client.session


def listing_of(one: ClientSession) -> list[str]:
    """Counts the listings that the session makes from now on."""
    made: list[str] = []
    original = one.list_tools

    async def list_tools(**options: Any) -> Any:
        made.append("tools/list")
        return await original(**options)

    one.list_tools = list_tools  # type: ignore[method-assign]
    return made


@pytest.mark.parametrize("mode", ["legacy", "auto"])
async def test_the_sdk_lists_tools_inside_a_call(mode: str) -> None:
    # If this fails, the SDK has changed, and `validate_known` may not be needed any more.
    async with session(mode) as one:
        made = listing_of(one)
        await one.call_tool("total")
        assert made == ["tools/list"]


@pytest.mark.parametrize("mode", ["legacy", "auto"])
async def test_a_call_is_one_request(mode: str) -> None:
    async with session(mode) as one:
        sdk.validate_known(one)
        made = listing_of(one)
        await one.call_tool("total")
        assert made == []


async def test_what_was_listed_is_validated() -> None:
    async with session() as one:
        sdk.validate_known(one)
        tools = (await one.list_tools()).tools
        assert tools[0].output_schema is not None
        with pytest.raises(RuntimeError, match="did not return structured content"):
            await one.validate_tool_result("total", CallToolResult(content=[]))


@pytest.mark.parametrize("listed_before", [True, False])
async def test_seeded_tools_are_not_validated(listed_before: bool) -> None:
    async with session() as one:
        sdk.validate_known(one)
        if listed_before:
            await one.list_tools()
        sdk.restore_tools(one, [Tool(name="total", input_schema={"type": "object"}, output_schema=SCHEMA)])
        made = listing_of(one)
        await one.validate_tool_result("total", CallToolResult(content=[]))
        assert made == []


async def test_restored_tools_send_headers() -> None:
    schema = {"type": "object", "properties": {"region": {"type": "string", "x-mcp-header": "Region"}}}
    async with session("auto") as one:
        sdk.restore_tools(one, [Tool(name="total", input_schema=schema)])
        sent = one._resolve_param_headers("total", {"region": "eu"})
        assert {name.lower(): value for name, value in sent.items()} == {"mcp-param-region": "eu"}


def test_the_private_names_are_still_there() -> None:
    assert inspect.iscoroutinefunction(mcp.Client._relist_tool)
    assert list(inspect.signature(mcp.Client._relist_tool).parameters) == ["self", "name"]
    parameters = inspect.signature(ClientSession._absorb_tool_listing).parameters
    assert list(parameters) == ["self", "result", "complete"]
    assert list(inspect.signature(ClientSession.validate_tool_result).parameters) == ["self", "name", "result"]


def test_a_call_relists_through_the_method_that_is_replaced() -> None:
    assert "_relist_tool(name)" in inspect.getsource(mcp.Client.call_tool)


async def test_a_session_remembers_schemas_under_the_name_that_is_read() -> None:
    async with session() as one:
        assert one._tool_output_schemas == {}
        await one.list_tools()
        assert set(one._tool_output_schemas) == {"total"}
