"""The same with mcpconn."""

from typing import Any

from mcpconn import Connection


class Shop:
    def __init__(self, target: Any) -> None:
        self.connection = Connection(target, name="shop")  # entered by the host

    async def call(self, tool: str, arguments: dict[str, Any]) -> Any:
        return await self.connection.call_tool(tool, arguments, timeout=30)
