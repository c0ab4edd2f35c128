"""strands, at a gateway."""

from collections.abc import Callable
from typing import Any

# --8<-- [start:use]
from strands.tools.mcp import MCPClient


def use(url: str, between: Callable[[], Any]) -> list[str]:
    with MCPClient(url=url) as client:
        # For an agent: Agent(tools=client.list_tools_sync())
        first = client.call_tool_sync("1", "shop__add", {"a": 1, "b": 2})
        between()  # the server is killed, and started again by the gateway
        second = client.call_tool_sync("2", "shop__add", {"a": 3, "b": 4})
    return [str(first["content"]), str(second["content"])]


# --8<-- [end:use]
