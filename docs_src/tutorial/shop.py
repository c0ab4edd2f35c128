"""A shop: one tool that only reads, one that must not run twice."""

import os
import sys
from contextlib import suppress

import anyio
from mcp.server.mcpserver import MCPServer
from mcp_types import ToolAnnotations

PRICES = {"apple": 2, "pear": 3}
shop: MCPServer[None] = MCPServer("shop", log_level="WARNING")


@shop.tool(annotations=ToolAnnotations(read_only_hint=True))
async def price(item: str) -> int:
    """What an item costs."""
    return PRICES[item]


@shop.tool()
async def order(item: str) -> str:
    """Order an item. Packing takes three seconds."""
    print(f"packing: {item}", flush=True)
    await anyio.sleep(3)
    print(f"sold: {item}", flush=True)
    return f"you have ordered: {item}"


if __name__ == "__main__":
    port = int(sys.argv[1]) if len(sys.argv) > 1 else 8000
    with suppress(KeyboardInterrupt):  # Ctrl-C ends it
        print(f"shop: process {os.getpid()}", flush=True)
        shop.run("streamable-http", port=port)
