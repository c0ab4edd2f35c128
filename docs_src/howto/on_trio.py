"""The same library on trio: nothing to configure."""

from typing import Any

import trio

import mcpconn


async def main(server: Any) -> int:
    async with (
        mcpconn.Manager({"shop": server}) as manager,
        trio.open_nursery() as nursery,
    ):
        for number in range(10):
            nursery.start_soon(manager.call_tool, "shop", "add", {"a": number, "b": 1})
    return 10


def run(server: Any) -> int:
    return trio.run(main, server)
