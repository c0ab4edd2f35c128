"""semantic-kernel, at a gateway."""

import asyncio
from collections.abc import Callable
from typing import Any

# --8<-- [start:use]
from semantic_kernel.connectors.mcp import MCPStreamableHttpPlugin


async def calls(url: str, between: Callable[[], Any]) -> list[str]:
    async with MCPStreamableHttpPlugin(name="all", url=url) as plugin:
        # For an agent: ChatCompletionAgent(..., plugins=[plugin])
        first = await plugin.call_tool("shop__add", a=1, b=2)
        between()  # the server is killed, and started again by the gateway
        second = await plugin.call_tool("shop__add", a=3, b=4)
    return [str(first[0]), str(second[0])]


# --8<-- [end:use]


def use(url: str, between: Callable[[], Any]) -> list[str]:
    return asyncio.run(calls(url, between))
