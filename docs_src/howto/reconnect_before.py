"""What many hosts have: a client, a lock, and a list of texts that mean "reconnect"."""

import asyncio
from contextlib import AsyncExitStack
from typing import Any

from mcp import Client, MCPError

LOST = ("session not found", "session terminated", "connection closed", "stream ended")


class Shop:
    def __init__(self, target: Any) -> None:
        self._target = target
        self._client: Client | None = None
        self._stack = AsyncExitStack()
        self._lock = asyncio.Lock()

    async def _connect(self) -> Client:
        await self._stack.aclose()
        self._client = await self._stack.enter_async_context(Client(self._target))
        return self._client

    async def call(self, tool: str, arguments: dict[str, Any]) -> Any:
        for attempt in range(3):
            async with self._lock:  # one call at a time, and one reconnect
                try:
                    client = self._client or await self._connect()
                    return await client.call_tool(tool, arguments)
                except MCPError as error:
                    if not any(text in str(error).lower() for text in LOST):
                        raise
                    self._client = None
            await asyncio.sleep(2**attempt)
        raise RuntimeError("not connected")
