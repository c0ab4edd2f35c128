"""A server that refuses all replicas is dialled once a second; when it is back, all of them follow."""

from __future__ import annotations

import socket
from contextlib import suppress
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint

from mcpconn import Connection, Policy
from mcpconn.core.backoff import Backoff
from mcpconn.core.states import State
from mcpconn.errors import McpConnError
from mcpconn.testing import HttpServer, Script
from tests.fleet.conftest import replicas

pytestmark = pytest.mark.anyio

SECONDS = 5.0


class Refusing:
    """Accepts connections, counts them, and hangs up."""

    def __init__(self) -> None:
        self.listening = socket.create_server(("127.0.0.1", 0))
        self.listening.setblocking(False)
        self.port = self.listening.getsockname()[1]
        self.dialled = 0

    async def run(self) -> None:
        while True:
            try:
                accepted, _ = self.listening.accept()
            except BlockingIOError:
                await anyio.wait_readable(self.listening)
                continue
            self.dialled += 1
            accepted.close()


async def test_a_refusing_server_has_one_scout():
    refusing = Refusing()
    servers: Any = {"a": {"url": f"http://127.0.0.1:{refusing.port}/mcp", "mode": "legacy"}}
    async with replicas(servers) as made, anyio.create_task_group() as group:
        group.start_soon(refusing.run)
        connections = [each.app.manager["a"] for each in made.gateways]

        async def wants(connection: Connection) -> None:
            # Without somebody who waits, a connection backs off.
            with suppress(McpConnError):
                await connection.call_tool("add", {"a": 1, "b": 1}, timeout=60)

        for each in connections:
            group.start_soon(wants, each)
        # Each finds out by itself at first.
        await anyio.sleep(1.5)
        before = refusing.dialled
        await anyio.sleep(SECONDS)
        # By themselves they would be at least 3 a second.
        assert 2 <= refusing.dialled - before <= 2 * SECONDS
        group.cancel_scope.cancel()
    refusing.listening.close()


async def test_when_a_server_is_back_all_replicas_follow():
    script = Script()
    # By themselves they would dial again after 1,000 s, except the first: somebody waits for it.
    policy = Policy(backoff=Backoff(initial=1000, maximum=1000))
    async with HttpServer(script) as server:
        servers: Any = {"a": {"url": server.url}}
        async with replicas(servers, policy=policy) as made:
            connections = [each.app.manager["a"] for each in made.gateways]
            for each in connections:
                await each.wait_ready(10)
            await server.stop()
            for each in connections:
                with anyio.fail_after(10):
                    while each.state is State.READY:
                        with suppress(McpConnError):
                            await each.call_tool("add", {"a": 1, "b": 1}, timeout=0.2)
            await anyio.sleep(1.2)
            await server.start()
            first, *others = connections
            await first.wait_ready(10)
            with anyio.fail_after(10):
                for each in others:
                    while each.state is not State.READY:
                        # Not `wait_ready`: it would have the connection dial by itself.
                        await checkpoint()
