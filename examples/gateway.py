"""A gateway: one MCP endpoint with the tools of many MCP servers, each called `server__tool`.

    MCP_CONFIG=mcp.json uvicorn --app-dir examples gateway:app --port 9000

serves http://127.0.0.1:9000/mcp. Its clients notice nothing of a server that restarts: their calls wait, and are
made again where that is right. Where it is not, they are told that the tool may have run.
"""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import anyio
import mcp_types as types
from mcp.server.context import ServerRequestContext
from mcp.server.lowlevel import Server

import mcpconn

Context = ServerRequestContext[mcpconn.Manager]
PATIENCE = 5.0
"""Seconds that a listing waits for servers which have not been heard of yet."""


@asynccontextmanager
async def connections(_: Server[Any]) -> AsyncIterator[mcpconn.Manager]:
    """The manager lives as long as the application, and does not wait for servers."""
    async with mcpconn.Manager.from_file(os.environ.get("MCP_CONFIG", "mcp.json")) as manager:
        yield manager


async def learn(connection: mcpconn.Connection) -> None:
    """Return when it is known what the server offers, or when it was waited for in vain."""
    with suppress(mcpconn.CallFailed):
        await connection.wait_ready(PATIENCE)
        await connection.catalog.refresh()


async def list_tools(ctx: Context, params: types.PaginatedRequestParams | None) -> types.ListToolsResult:
    manager = ctx.lifespan_context
    async with anyio.create_task_group() as group:
        for connection in manager.values():
            # Nobody waits for one that is down. What it offered before it went away stays listed.
            if not connection.catalog.epoch and connection.last_failure is None:
                group.start_soon(learn, connection)
    return types.ListToolsResult(
        tools=[
            tool.model_copy(update={"name": f"{server}__{tool.name}"})
            for server, connection in manager.items()
            for tool in connection.catalog.tools.values()
        ]
    )


async def call_tool(ctx: Context, params: types.CallToolRequestParams) -> types.CallToolResult:
    server, _, tool = params.name.partition("__")
    try:
        # An error of the tool's own server passes as it is. It is not this gateway's.
        return await ctx.lifespan_context.call_tool(server, tool, params.arguments, timeout=30)
    except (mcpconn.CallFailed, mcpconn.UnknownServer) as failure:
        # In words, for the model. As a protocol error it would look like a failure of the session with the gateway.
        return types.CallToolResult(content=[types.TextContent(text=str(failure))], is_error=True)


server = Server("gateway", lifespan=connections, on_list_tools=list_tools, on_call_tool=call_tool)
app = server.streamable_http_app()
