"""crewai, at a gateway."""

from collections.abc import Callable
from typing import Any

# --8<-- [start:use]
from crewai_tools import MCPServerAdapter


def use(url: str, between: Callable[[], Any]) -> list[str]:
    with MCPServerAdapter({"url": url, "transport": "streamable-http"}) as tools:
        # For an agent: Agent(..., tools=tools)
        add = tools["shop_add"]  # crewai makes one underscore of two
        first = add.run(a=1, b=2)
        between()  # the server is killed, and started again by the gateway
        second = add.run(a=3, b=4)
    return [str(first), str(second)]


# --8<-- [end:use]
