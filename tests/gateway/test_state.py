"""Who shares a server's session: each client sees its own state, and the calls of one never count for another."""

from __future__ import annotations

import socket
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import httpx2
import pytest
from mcp import Client, MCPError
from mcp.client.streamable_http import streamable_http_client
from mcp.server.mcpserver import Context, MCPServer

from mcpconn.gateway import Settings
from mcpconn.gateway.access.config import AccessSettings
from mcpconn.gateway.access.keys import KeyFile
from mcpconn.gateway.access.rights import Rights
from mcpconn.testing import Script
from tests.gateway.conftest import Gateway, gateway, served
from tests.support import text_of

pytestmark = pytest.mark.anyio


class Counting:
    """A legacy server that counts the calls of each of its sessions."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.counts: Counter[str] = Counter()
        self.requests: Counter[str] = Counter()
        """JSON-RPC requests, by method."""


@asynccontextmanager
async def counting() -> AsyncIterator[Counting]:
    accepting = socket.create_server(("127.0.0.1", 0))
    seen = Counting(f"http://127.0.0.1:{accepting.getsockname()[1]}/mcp")
    server = MCPServer("counting")

    @server.tool()
    async def count(ctx: Context[Any, Any]) -> str:
        session = ctx.headers["mcp-session-id"] if ctx.headers is not None else ""
        seen.counts[session] += 1
        return str(seen.counts[session])

    async def noting(ctx: Any, call_next: Any) -> Any:
        seen.requests[ctx.method] += 1
        return await call_next(ctx)

    server._lowlevel_server.middleware.append(noting)
    app = server.streamable_http_app()
    async with server.session_manager.run(), served(app, accepting):
        yield seen


@asynccontextmanager
async def before_counting(**options: Any) -> AsyncIterator[tuple[Gateway, Counting]]:
    async with counting() as server, gateway(more={"c": {"url": server.url, "mode": "legacy"}}, **options) as made:
        yield made, server


async def count(client: Client) -> int:
    return int(text_of(await client.call_tool("c__count", {})))


async def test_two_legacy_sessions_have_own_state():
    async with (
        before_counting() as (made, server),
        Client(made.url, mode="legacy") as one,
        Client(made.url, mode="legacy") as two,
    ):
        assert [await count(one), await count(one), await count(one)] == [1, 2, 3]
        assert await count(two) == 1
        before = sum(server.requests.values())
        assert [await count(one), await count(two)] == [4, 2]
        assert sum(server.requests.values()) - before == 2, "one upstream request a call"


async def test_two_modern_clients_with_keys_have_their_own(tmp_path):
    keys = KeyFile(tmp_path / "clients.json")
    ann_key, bob_key = keys.add("ann"), keys.add("bob")
    settings = Settings(access=AccessSettings(keys, (), (Rights(),)))
    async with before_counting(settings=settings) as (made, server), AsyncExitStack() as stack:
        clients = []
        for key in (ann_key, bob_key):
            http = httpx2.AsyncClient(headers={"authorization": f"Bearer {key}"}, timeout=30)
            await stack.enter_async_context(http)
            clients.append(await stack.enter_async_context(Client(streamable_http_client(made.url, http_client=http))))
        ann, bob = clients
        assert [await count(ann), await count(ann), await count(ann)] == [1, 2, 3]
        assert await count(bob) == 1
        before = sum(server.requests.values())
        assert [await count(ann), await count(bob)] == [4, 2]
        assert sum(server.requests.values()) - before == 2


async def test_anonymous_modern_clients_are_one_person_here():
    async with before_counting() as (made, _), Client(made.url) as one, Client(made.url) as two:
        assert [await count(one), await count(two), await count(one)] == [1, 2, 3]


async def test_elsewhere_anonymous_modern_clients_are_refused():
    async with before_counting(one_person=False) as (made, server), Client(made.url) as client:
        with pytest.raises(MCPError, match="cannot tell its anonymous clients apart"):
            await count(client)
        async with Client(made.url, mode="legacy") as legacy:
            assert await count(legacy) == 1
    assert sum(server.counts.values()) == 1


@pytest.mark.parametrize("mode", ["legacy", "auto"])
async def test_a_shared_server_is_one_for_all(mode):
    settings = Settings(scopes={"c": "shared"})
    async with (
        before_counting(one_person=False, settings=settings) as (made, _),
        Client(made.url, mode=mode) as one,
        Client(made.url, mode=mode) as two,
    ):
        assert [await count(one), await count(two), await count(one)] == [1, 2, 3]


async def test_a_user_scope_is_one_for_a_principal():
    settings = Settings(scopes={"c": "user"})
    async with (
        before_counting(settings=settings) as (made, _),
        Client(made.url, mode="legacy") as one,
        Client(made.url) as two,
    ):
        assert [await count(one), await count(two)] == [1, 2]


async def test_a_client_scope_ends_with_a_session():
    async with before_counting() as (made, _):
        async with Client(made.url, mode="legacy") as one:
            assert await count(one) == 1
            assert len(made.app.manager) == 2
        assert len(made.app.manager) == 1


async def test_above_the_cap_the_longest_unused_is_closed(monkeypatch):
    monkeypatch.setattr("mcpconn.gateway.servers.upstreams.RECENT", 0.0)
    script = Script()
    async with gateway(script) as made, AsyncExitStack() as stack:
        made.app.upstreams._at_most = 2
        clients = [await stack.enter_async_context(Client(made.url, mode="legacy")) for _ in range(3)]
        for client in clients:
            assert text_of(await client.call_tool("a__add", {"a": 1, "b": 2})) == "3"
        own = [name for name in made.app.manager if "#" in name]
        assert len(own) == 2
        # Whoever was closed is connected again when it calls, and the next in line makes room.
        assert text_of(await clients[0].call_tool("a__add", {"a": 1, "b": 3})) == "4"
        assert len([name for name in made.app.manager if "#" in name]) == 2
