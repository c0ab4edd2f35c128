"""A transport of your own: a function that makes one for each session."""

from mcp.client.streamable_http import streamable_http_client

from mcpconn import Connection


async def main(url: str) -> int:
    async with Connection(lambda: streamable_http_client(url)) as connection:
        await connection.call_tool("add", {"a": 1, "b": 2})
        await connection.reconnect()
        await connection.call_tool("add", {"a": 1, "b": 2})
        return connection.epoch
