"""Clients that do not read what they asked for: little piles up for them, and the others are served."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from typing import Any

import httpx2
import pytest
from mcp import Client
from mcp.server.mcpserver import Context, MCPServer

from mcpconn.gateway import Settings
from mcpconn.gateway.clients.downstream import WAITING
from tests.gateway.conftest import Gateway, gateway, served
from tests.gateway.test_bad_input import ACCEPT, INITIALIZE, modern
from tests.support import text_of

pytestmark = pytest.mark.anyio

STUCK = 3
"""Clients that do not read."""
COUNT, SIZE = 500, 20_000
"""Notifications that each of them is sent, and characters of each: 10 MB."""


class Flooding:
    """A server that sends progress, as much as is asked for."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.sent = 0
        """Notifications that were handed to its stream."""


@asynccontextmanager
async def flooding() -> AsyncIterator[Flooding]:
    accepting = socket.create_server(("127.0.0.1", 0))
    seen = Flooding(f"http://127.0.0.1:{accepting.getsockname()[1]}/mcp")
    server = MCPServer("flooding", log_level="CRITICAL")

    @server.tool()
    async def flood(ctx: Context[Any, Any]) -> str:
        for number in range(COUNT):
            await ctx.report_progress(number, COUNT, "x" * SIZE)
            seen.sent += 1
        return "done"

    @server.tool()
    async def echo(word: str) -> str:
        return word

    app = server.streamable_http_app()
    async with server.session_manager.run(), served(app, accepting):
        yield seen


async def stuck(made: Gateway, era: str) -> socket.socket:
    """A client that has called the tool and reads nothing."""
    headers = {**ACCEPT, "host": "127.0.0.1", "content-type": "application/json"}
    message = modern("tools/call", name="q__flood", arguments={})
    if era == "modern":
        headers |= {"mcp-protocol-version": "2026-07-28", "mcp-method": "tools/call", "mcp-name": "q__flood"}
        message["params"]["_meta"]["progressToken"] = "p"
    else:
        message["params"]["_meta"] = {"progressToken": "p"}
        async with httpx2.AsyncClient(headers=ACCEPT) as http:
            opened = await http.post(made.url, json=INITIALIZE)
            headers["mcp-session-id"] = opened.headers["mcp-session-id"]
            initialized = {"jsonrpc": "2.0", "method": "notifications/initialized"}
            await http.post(made.url, json=initialized, headers=headers)
    body = json.dumps(message)
    head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    peer = socket.socket()
    # A small buffer, so that what is not read waits in the gateway and not in the system.
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    peer.connect(("127.0.0.1", int(made.url.split(":")[2].partition("/")[0])))
    peer.sendall(f"POST /mcp HTTP/1.1\r\n{head}content-length: {len(body)}\r\n\r\n{body}".encode())
    return peer


@pytest.mark.parametrize("scope", ["user", "shared"])
@pytest.mark.parametrize("era", ["legacy", "modern"])
async def test_a_flood_that_is_not_read_lets_little_pile_up(era: str, scope: Any) -> None:
    async with flooding() as server:
        settings = Settings(scopes={"q": scope})
        async with gateway(more={"q": {"url": server.url}}, settings=settings, safety=120) as made:
            mode: Any = "legacy" if era == "legacy" else "auto"
            async with Client(made.url, mode=mode) as other:
                assert text_of(await other.call_tool("q__echo", {"word": "before"})) == "before"
                before = len(asyncio.all_tasks())
                with ExitStack() as stack:
                    for _ in range(STUCK):
                        stack.enter_context(await stuck(made, era))
                    sent, most = -1, 0
                    # Until all was sent, or nothing more is: then the server waits for its reader.
                    while server.sent < STUCK * COUNT and (server.sent > sent or not sent):
                        sent = server.sent
                        assert text_of(await other.call_tool("q__echo", {"word": "during"})) == "during"
                        most = max(most, len(asyncio.all_tasks()))
                    # Of 10 MB for each, 1 MiB may wait: some 50 notifications, a task of the SDK's for each.
                    assert most - before < STUCK * 150 < WAITING
                    assert text_of(await other.call_tool("q__echo", {"word": "after"})) == "after"
