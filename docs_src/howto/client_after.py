"""The same on a connection."""

from typing import Any

from mcpconn import Connection


async def main(server: Any) -> list[str]:
    async with Connection(server) as client:
        tools = await client.list_tools()
        await client.call_tool("add", {"a": 1, "b": 2})
        return [tool.name for tool in tools.tools]
