"""mcp-use, at a gateway."""

import asyncio
from collections.abc import Callable
from typing import Any

# --8<-- [start:use]
from mcp_use import MCPClient


async def calls(url: str, between: Callable[[], Any]) -> list[str]:
    client = MCPClient.from_dict({"mcpServers": {"all": {"url": url}}})
    try:
        session = await client.create_session("all")
        # For an agent: MCPAgent(llm=..., client=client)
        first = await session.call_tool("shop__add", {"a": 1, "b": 2})
        between()  # the server is killed, and started again by the gateway
        second = await session.call_tool("shop__add", {"a": 3, "b": 4})
    finally:
        await client.close_all_sessions()
    return [str(first.content), str(second.content)]


# --8<-- [end:use]


def use(url: str, between: Callable[[], Any]) -> list[str]:
    return asyncio.run(calls(url, between))
