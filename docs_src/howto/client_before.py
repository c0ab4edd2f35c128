"""With the SDK's client alone."""

from typing import Any

from mcp import Client


async def main(server: Any) -> list[str]:
    async with Client(server) as client:
        tools = await client.list_tools()
        await client.call_tool("add", {"a": 1, "b": 2})
        return [tool.name for tool in tools.tools]
