"""A client's own era is spoken to a server that speaks both, and each server has what it wants of the modern one."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import mcp_types as types
import pytest
from mcp import Client, MCPError
from mcp.server.lowlevel import Server
from mcp.server.mcpserver import Context, MCPServer

from mcpconn.testing import Script
from tests.gateway.conftest import Gateway, gateway
from tests.gateway.questions import Context as LowContext
from tests.gateway.questions import serving
from tests.support import text_of

pytestmark = pytest.mark.anyio

CLIENTS = pytest.mark.parametrize("mode", ["legacy", "auto"], ids=["legacy client", "modern client"])


class Both:
    """A server of both eras whose tools say which one they are called in."""

    def server(self) -> Server[Any]:
        made: MCPServer[Any] = MCPServer("both")

        @made.tool()
        async def era(ctx: Context[Any, Any]) -> str:
            return str(ctx.request_context.protocol_version)

        return made._lowlevel_server


class Wanting:
    """A modern server with tools that want an argument as a header; it refuses calls without."""

    def server(self) -> Server[Any]:
        async def listed(ctx: LowContext, params: Any) -> types.ListToolsResult:
            region = {"type": "string", "x-mcp-header": "Region"}
            schema = {"type": "object", "properties": {"region": region}}
            tools = [types.Tool(name=name, input_schema=schema) for name in ("deploy", "destroy")]
            return types.ListToolsResult(tools=[*tools, types.Tool(name="plain", input_schema={"type": "object"})])

        async def called(ctx: LowContext, params: types.CallToolRequestParams) -> types.CallToolResult:
            text = (params.arguments or {}).get("region", "nowhere")
            return types.CallToolResult(content=[types.TextContent(type="text", text=f"{params.name} {text}")])

        return Server("wanting", on_list_tools=listed, on_call_tool=called)


@asynccontextmanager
async def before(server: Any, mode: str = "both") -> AsyncIterator[Gateway]:
    async with serving(server, mode) as url, gateway(more={"s": {"url": url}}) as made:
        yield made


@CLIENTS
async def test_a_server_of_both_eras_is_spoken_to_in_the_clients(mode):
    async with before(Both()) as made, Client(made.url, mode=mode) as client:
        said = text_of(await client.call_tool("s__era", {}))
        assert said == client.protocol_version


@pytest.mark.parametrize("refusal", [-32022, -32601])
async def test_a_server_that_is_modern_only_serves_legacy_clients(refusal):
    script = Script(era="modern", refuse_initialize=refusal)
    async with gateway(script) as made:
        for _ in range(2):
            async with Client(made.url, mode="legacy") as client:
                assert not (await client.call_tool("a__add", {"a": 1, "b": 2})).is_error
    assert script.count("initialize") == 1, "the refusal is remembered"


@CLIENTS
async def test_arguments_that_a_tool_wants_as_headers_are_sent_so(mode):
    async with before(Wanting(), "auto") as made, Client(made.url, mode=mode) as client:
        await client.list_tools()
        for tool in ("deploy", "destroy", "plain", "deploy"):
            result = await client.call_tool(f"s__{tool}", {"region": "Hello, w\u00f6rld"})
            assert text_of(result) == f"{tool} Hello, w\u00f6rld"
        await made.app.manager["s"].catalog.refresh()
        for connection in made.app.manager.values():
            await connection.reconnect(5)
        assert text_of(await client.call_tool("s__deploy", {"region": "x"})) == "deploy x"


async def test_an_argument_that_is_not_what_its_header_says_is_refused():
    async with before(Wanting(), "auto") as made, Client(made.url) as client:
        await client.list_tools()
        client.session._x_mcp_header_maps.clear()
        with pytest.raises(MCPError, match="header"):
            await client.session.call_tool("s__deploy", {"region": "x"})
