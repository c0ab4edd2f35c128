"""A client of fastmcp, which has no agents: the script calls the tools itself."""

from __future__ import annotations

import fastmcp

from mcpconn import Manager
from mcpconn.integrations.fastmcp import ManagedTransport
from tests.integrations.scenarios import Script


# --8<-- [start:use]
async def converse(manager: Manager, script: Script) -> None:
    async with fastmcp.Client(ManagedTransport(manager)) as client:
        heard = None
        while True:
            call = script.turn([tool.name for tool in await client.list_tools()], heard)
            if call is None:
                return
            result = await client.call_tool(call[0], call[1], raise_on_error=False)
            heard = "\n".join(block.text for block in result.content)


# --8<-- [end:use]
