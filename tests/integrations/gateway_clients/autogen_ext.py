"""autogen-ext, at a gateway."""

import asyncio
from collections.abc import Callable
from typing import Any

# --8<-- [start:use]
from autogen_ext.tools.mcp import McpWorkbench, StreamableHttpServerParams


async def calls(url: str, between: Callable[[], Any]) -> list[str]:
    async with McpWorkbench(StreamableHttpServerParams(url=url)) as workbench:
        # For an agent: AssistantAgent(..., workbench=workbench)
        first = await workbench.call_tool("shop__add", {"a": 1, "b": 2})
        between()  # the server is killed, and started again by the gateway
        second = await workbench.call_tool("shop__add", {"a": 3, "b": 4})
    return [first.to_text(), second.to_text()]


# --8<-- [end:use]


def use(url: str, between: Callable[[], Any]) -> list[str]:
    return asyncio.run(calls(url, between))
