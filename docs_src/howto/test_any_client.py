"""A test of any MCP client: here the bare SDK's, on a server that fails on command."""

import anyio
from mcp import Client, MCPError

from mcpconn.testing import HttpServer, Script, faults


async def charge_once(url: str) -> str:
    async with Client(url) as client:
        try:
            await client.call_tool("charge", {})
        except MCPError as error:
            return str(error)
    return "charged"


def test_a_cut_stream_is_an_error_although_the_tool_ran() -> None:
    async def main() -> None:
        script = Script()
        async with HttpServer(script) as server:
            script.inject(faults.cut_stream())
            assert await charge_once(server.url) != "charged"
            assert script.executions["charge"] == 1

    anyio.run(main)
