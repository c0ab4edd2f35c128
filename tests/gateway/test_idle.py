"""Clients that do nothing: each costs little, and the others are served."""

from __future__ import annotations

import json
from contextlib import AsyncExitStack

import anyio
import psutil
import pytest
from anyio.abc import SocketStream
from mcp import Client

from mcpconn.testing import Script
from tests.gateway.test_killed import serving

pytestmark = pytest.mark.anyio

CLIENTS = 300
EACH = 250_000
"""Bytes of memory a client; 115 KB were measured. 10,000 of them, the most there may be, are 1.2 GB."""
INITIALIZE = json.dumps(
    {
        "jsonrpc": "2.0",
        "id": 1,
        "method": "initialize",
        "params": {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}},
    }
)
INITIALIZED = json.dumps({"jsonrpc": "2.0", "method": "notifications/initialized"})


async def ask(stream: SocketStream, method: str, body: str = "", session: str = "") -> str:
    """One request; returns the answer's head."""
    head = f"{method} /mcp HTTP/1.1\r\nhost: 127.0.0.1\r\naccept: application/json, text/event-stream\r\n"
    head += f"content-type: application/json\r\ncontent-length: {len(body)}\r\n" if body else ""
    head += f"mcp-session-id: {session}\r\n" if session else ""
    await stream.send(f"{head}\r\n{body}".encode())
    answer = ""
    while "\r\n\r\n" not in answer or ("chunked" in answer and method == "POST" and not answer.endswith("0\r\n\r\n")):
        answer += (await stream.receive()).decode("utf-8", "replace")
    assert answer.startswith("HTTP/1.1 20"), answer
    return answer


async def idle(port: int) -> SocketStream:
    """A client with a session and an open event stream."""
    stream = await anyio.connect_tcp("127.0.0.1", port)
    opened = await ask(stream, "POST", INITIALIZE)
    session = opened.partition("mcp-session-id: ")[2].partition("\r\n")[0]
    await ask(stream, "POST", INITIALIZED, session)
    await ask(stream, "GET", session=session)
    return stream


async def test_idle_clients_cost_little_and_harm_no_other(tmp_path):
    async with serving(tmp_path, Script()) as made, AsyncExitStack() as stack:
        assert made.process is not None
        process = psutil.Process(made.process.pid)
        stack.push_async_callback((await idle(made.port)).aclose)
        before = process.memory_info().rss
        for _ in range(CLIENTS):
            stack.push_async_callback((await idle(made.port)).aclose)
        assert (process.memory_info().rss - before) / CLIENTS < EACH
        async with Client(made.url, mode="legacy") as client:
            assert not (await client.call_tool("a__add", {"a": 1, "b": 1})).is_error
