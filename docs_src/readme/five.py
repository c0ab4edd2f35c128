import anyio

import mcpconn


async def main() -> None:
    async with mcpconn.Manager.from_file("mcp.json") as manager:
        print(await manager.call_tool("shop", "add", {"a": 1, "b": 2}, timeout=30))


anyio.run(main)
