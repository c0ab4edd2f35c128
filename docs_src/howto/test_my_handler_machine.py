"""A handler with a bug that none of its author's tests has met."""

from typing import Any

import mcpconn
from mcpconn.testing.machine import HandlerMachine


async def buy(manager: mcpconn.Manager, server: str, tool: str, args: Any) -> Any:
    """The handler under test. It means well."""
    for _ in range(2):
        try:
            return await manager.call_tool(server, tool, args)
        except mcpconn.CallFailed as error:
            failed = error  # "the network hiccuped, so once more"
    raise failed


class Buying(HandlerMachine):
    tools = ("charge",)

    async def handle(
        self, manager: mcpconn.Manager, server: str, tool: str, args: dict[str, Any]
    ) -> Any:
        return await buy(manager, server, tool, args)


TestBuying = Buying.TestCase
