import sys
from contextlib import suppress

import anyio

import mcpconn

SERVERS = {"shop": {"command": sys.executable, "args": ["-m", "mcpconn.demo.server"]}}


async def main() -> None:
    async with mcpconn.Manager(SERVERS) as manager:
        manager.subscribe(print)  # every change of a connection's state
        for a in range(60):
            result = await manager.call_tool("shop", "add", {"a": a, "b": 1})
            print(result.structured_content, "from process", manager["shop"].status()["pid"])
            await anyio.sleep(1)


with suppress(KeyboardInterrupt):  # Ctrl-C ends it
    anyio.run(main)
