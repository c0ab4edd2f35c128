"""A call a second, and every change of the connection's state."""

from contextlib import suppress

import anyio

import mcpconn

URL = "http://127.0.0.1:8000/mcp"


async def main(url: str = URL, calls: int = 60, pause: float = 1) -> None:
    async with mcpconn.Manager({"shop": {"url": url}}) as manager:
        manager.subscribe(print)
        for number in range(calls):
            result = await manager.call_tool("shop", "price", {"item": "apple"})
            print(number, result.structured_content)
            await anyio.sleep(pause)


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):  # Ctrl-C ends it
        anyio.run(main)
