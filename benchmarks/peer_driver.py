"""Runs in a peer's own environment: connects with it, and calls tools as it is told on standard input.

Only the standard library, anyio and the peer are imported. Usage: peer_driver.py PEER URL
"""

from __future__ import annotations

import asyncio
import json
import logging
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

Call = Callable[[str, dict[str, Any]], Awaitable[Any]]


async def connect(peer: str, url: str, stack: AsyncExitStack) -> Call:
    """A client that is open, and stays open; used as its own documentation shows."""
    client: Any
    if peer == "mcpconn":
        from mcpconn import Connection

        client = await stack.enter_async_context(Connection(url))
        return client.call_tool  # type: ignore[no-any-return]
    if peer == "mcp":
        from mcp import Client

        client = await stack.enter_async_context(Client(url))
        return client.call_tool  # type: ignore[no-any-return]
    if peer == "fastmcp":
        import fastmcp

        client = await stack.enter_async_context(fastmcp.Client(url))
        return client.call_tool  # type: ignore[no-any-return]
    if peer == "openai-agents":
        from agents.mcp import MCPServerStreamableHttp

        client = await stack.enter_async_context(MCPServerStreamableHttp(params={"url": url}))
        return client.call_tool  # type: ignore[no-any-return]
    if peer == "pydantic-ai":
        from pydantic_ai.mcp import MCPToolset

        client = await stack.enter_async_context(MCPToolset(url, tool_error_behavior="error"))
        return client.direct_call_tool  # type: ignore[no-any-return]
    raise SystemExit(f"unknown peer {peer!r}")


async def main(peer: str, url: str) -> None:
    """Answer one line with one line."""
    async with AsyncExitStack() as stack:
        call = await connect(peer, url, stack)
        print(json.dumps({"ready": True}), flush=True)
        while line := await asyncio.to_thread(sys.stdin.readline):
            order = json.loads(line)
            began = time.perf_counter()
            problem = ""
            try:
                result = await asyncio.wait_for(call(order["tool"], order["arguments"]), order["timeout"])
                if getattr(result, "is_error", False) or getattr(result, "isError", False):
                    problem = "an error result"
            except Exception as error:
                problem = f"{type(error).__name__}: {error}"[:200]
            print(json.dumps({"problem": problem, "took": time.perf_counter() - began}), flush=True)


if __name__ == "__main__":
    logging.disable(logging.CRITICAL)
    asyncio.run(main(sys.argv[1], sys.argv[2]))
