"""Clients with keys and tokens before a real gateway: what they see, and what they cannot reach of each other."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import anyio
import httpx2
import pytest
from mcp import Client, MCPError
from mcp.client.streamable_http import streamable_http_client

from mcpconn.gateway import Settings
from mcpconn.gateway.access.config import AccessSettings
from mcpconn.gateway.access.keys import KeyFile
from mcpconn.gateway.access.rights import Rights
from mcpconn.gateway.access.tokens import Issuer
from mcpconn.testing import Script, ScriptTransport
from tests.gateway.access.issuer import AUDIENCE, ISSUER, JWKS, Authority
from tests.gateway.conftest import Gateway, gateway
from tests.support import text_of

pytestmark = pytest.mark.anyio

MODES = pytest.mark.parametrize("mode", ["legacy", "auto"], ids=["legacy client", "modern client"])
INITIALIZE = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "initialize",
    "params": {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}},
}
ACCEPT = {"accept": "application/json, text/event-stream", "content-type": "application/json"}


@asynccontextmanager
async def client(made: Gateway, credential: str | None, mode: str = "auto", **options: Any) -> AsyncIterator[Client]:
    """A client with a key or token, or with none."""
    async with AsyncExitStack() as stack:
        headers = {} if credential is None else {"authorization": f"Bearer {credential}"}
        http = await stack.enter_async_context(httpx2.AsyncClient(headers=headers, timeout=30))
        transport = streamable_http_client(made.url, http_client=http)
        yield await stack.enter_async_context(Client(transport, mode=mode, **options))


def settings(keys: KeyFile | None = None, *rules: Rights, issuers: tuple[Issuer, ...] = ()) -> Settings:
    return Settings(access=AccessSettings(keys, issuers, rules or (Rights(),)))


async def post(made: Gateway, body: Any, credential: str | None = None, **headers: str) -> httpx2.Response:
    async with httpx2.AsyncClient(timeout=30) as http:
        given = {} if credential is None else {"authorization": f"Bearer {credential}"}
        return await http.post(made.url, json=body, headers={**ACCEPT, **given, **headers})


async def session(made: Gateway, key: str) -> dict[str, str]:
    """The headers of a session that its owner has opened."""
    opened = await post(made, INITIALIZE, key)
    found = {"mcp-session-id": opened.headers["mcp-session-id"], "mcp-protocol-version": "2025-11-25"}
    await post(made, {"jsonrpc": "2.0", "method": "notifications/initialized"}, key, **found)
    return found


@MODES
async def test_a_key_opens_the_gateway(keys, mode):
    script = Script()
    key = keys.add("ann")
    async with gateway(script, settings=settings(keys)) as made, client(made, key, mode) as ann:
        assert text_of(await ann.call_tool("a__add", {"a": 1, "b": 2})) == "3"


@pytest.mark.parametrize("header", [None, "Bearer mck_wrong", "Basic YTpi", "Bearer"])
async def test_without_a_key_nothing_is_reached(keys, header):
    script = Script()
    keys.add("ann")
    async with gateway(script, settings=settings(keys)) as made, httpx2.AsyncClient() as http:
        for method in ("POST", "GET", "DELETE"):
            answer = await http.request(method, made.url, headers={} if header is None else {"authorization": header})
            assert answer.status_code == 401
            assert answer.headers["www-authenticate"].startswith("Bearer")
        assert script.count("tools/call") == 0


@MODES
async def test_a_rule_hides_servers_and_tools(keys, mode):
    one, two = Script(), Script()
    rules = (Rights(who=("key:ann",), servers=("a",), deny=("a/charge",)), Rights(who=("key:bob",)))
    ann_key, bob_key, eve_key = keys.add("ann"), keys.add("bob"), keys.add("eve")
    async with gateway(one, two, settings=settings(keys, *rules)) as made:
        async with client(made, ann_key, mode) as ann, client(made, bob_key, mode) as bob:
            seen = {tool.name for tool in (await ann.list_tools()).tools}
            assert "a__add" in seen
            assert "a__charge" not in seen
            assert not any(name.startswith("b__") for name in seen)
            for hidden in ("a__charge", "b__add"):
                with pytest.raises(MCPError, match="Unknown tool"):
                    await ann.call_tool(hidden, {})
            everything = {tool.name for tool in (await bob.list_tools()).tools}
            assert {"a__charge", "b__add"} <= everything
        refused = await post(made, INITIALIZE, eve_key)
        assert refused.status_code == 403
    assert one.executions["charge"] == two.executions["add"] == 0


async def test_a_session_of_another_is_not_found(keys):
    ann, bob = keys.add("ann"), keys.add("bob")
    script = Script()
    async with gateway(script, settings=settings(keys)) as made:
        opened = await post(made, INITIALIZE, ann)
        session = {"mcp-session-id": opened.headers["mcp-session-id"], "mcp-protocol-version": "2025-11-25"}
        call = {"jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": {"name": "a__charge", "arguments": {}}}
        assert (await post(made, call, bob, **session)).status_code == 404
        assert script.executions["charge"] == 0
        assert (await post(made, call, ann, **session)).status_code == 200
        assert script.executions["charge"] == 1


async def test_a_flood_of_one_spares_the_other(keys):
    script = Script()
    ann, bob = keys.add("ann"), keys.add("bob")
    rules = (Rights(who=("key:ann",), rate=0.001, burst=3), Rights())
    ping = {"jsonrpc": "2.0", "id": 1, "method": "ping"}
    async with gateway(script, settings=settings(keys, *rules)) as made:
        opened = await post(made, INITIALIZE, ann)
        session = {"mcp-session-id": opened.headers["mcp-session-id"], "mcp-protocol-version": "2025-11-25"}
        codes = [(await post(made, ping, ann, **session)).status_code for _ in range(4)]
        assert codes == [200, 200, 429, 429]
        refused = await post(made, ping, ann, **session)
        assert int(refused.headers["retry-after"]) > 1
        # What is no request is not counted.
        note = {"jsonrpc": "2.0", "method": "notifications/initialized"}
        assert (await post(made, note, ann, **session)).status_code == 202
        async with client(made, bob) as other:
            assert text_of(await other.call_tool("a__add", {"a": 1, "b": 2})) == "3"


@pytest.mark.parametrize("replaced", [False, True], ids=["removed", "replaced"])
async def test_a_removed_key_ends_its_streams(keys, replaced):
    ann, bob = keys.add("ann"), keys.add("bob")
    async with gateway(Script(), settings=settings(keys)) as made, httpx2.AsyncClient(timeout=30) as http:

        async def stream(key: str) -> tuple[Any, dict[str, str]]:
            opened = await session(made, key)
            headers = {**opened, "accept": "text/event-stream", "authorization": f"Bearer {key}"}
            return http.stream("GET", made.url, headers=headers), opened

        ann_stream, ann_session = await stream(ann)
        bob_stream, _ = await stream(bob)
        async with ann_stream as first, bob_stream as second:
            assert (first.status_code, second.status_code) == (200, 200)
            keys.remove("ann")
            if replaced:
                # Before the gateway looks: it never sees the file without the name.
                keys.add("ann")
            # A clean end, not a cut: iterating to the end raises nothing.
            with anyio.fail_after(10):
                async for _ in first.aiter_bytes():
                    pass
        ping = {"jsonrpc": "2.0", "id": 1, "method": "ping"}
        assert (await post(made, ping, ann, **ann_session)).status_code == 401


async def test_a_token_opens_until_it_expires(keys):
    authority = Authority()
    issuer = Issuer(ISSUER, audience=AUDIENCE, jwks=JWKS, fetch=authority.fetch)
    script = Script()
    async with gateway(script, settings=settings(issuers=(issuer,))) as made:
        async with client(made, authority.token()) as alice:
            assert text_of(await alice.call_tool("a__add", {"a": 1, "b": 2})) == "3"
        refused = await post(made, INITIALIZE, authority.token(exp=1))
        assert refused.status_code == 401
        challenge = refused.headers["www-authenticate"]
        assert 'error="invalid_token"' in challenge
        link = challenge.partition('resource_metadata="')[2].partition('"')[0]
        async with httpx2.AsyncClient() as http:
            metadata = (await http.get(link)).json()
        assert metadata["authorization_servers"] == [ISSUER]
        assert metadata["resource"] == made.url
        authority.away = True
        assert (await post(made, INITIALIZE, authority.token())).status_code == 200
    assert script.executions["add"] == 1


async def test_tokens_of_an_issuer_never_seen_wait(keys):
    authority = Authority()
    authority.away = True
    issuer = Issuer(ISSUER, audience=AUDIENCE, jwks=JWKS, fetch=authority.fetch)
    async with gateway(Script(), settings=settings(issuers=(issuer,))) as made:
        answer = await post(made, INITIALIZE, authority.token())
        assert answer.status_code == 503
        assert answer.headers["retry-after"] == "5"


async def test_a_stream_ends_with_its_token():
    authority = Authority()
    issuer = Issuer(ISSUER, audience=AUDIENCE, jwks=JWKS, fetch=authority.fetch)
    async with gateway(Script(), settings=settings(issuers=(issuer,))) as made, httpx2.AsyncClient(timeout=30) as http:
        long = authority.token()
        opened = await post(made, INITIALIZE, long)
        session = {"mcp-session-id": opened.headers["mcp-session-id"], "mcp-protocol-version": "2025-11-25"}
        await post(made, {"jsonrpc": "2.0", "method": "notifications/initialized"}, long, **session)
        made.app._gate._wall = lambda: 1e12
        headers = {**session, "accept": "text/event-stream", "authorization": f"Bearer {long}"}
        with anyio.fail_after(20):
            async with http.stream("GET", made.url, headers=headers) as stream:
                assert stream.status_code == 200
                async for _ in stream.aiter_bytes():
                    pass


class Seeing(ScriptTransport):
    """Keeps the headers of what reaches the server."""

    def __init__(self, script: Script) -> None:
        super().__init__(script)
        self.headers: list[str] = []

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        self.headers.append(str(request.headers.raw))
        return await super().handle_async_request(request)


async def test_no_credential_goes_upstream(keys):
    seen = Seeing(Script())
    key = keys.add("ann")
    more = {"a": {"url": "http://shop.test/mcp", "http_transport": seen}}
    async with gateway(more=more, settings=settings(keys)) as made, client(made, key) as ann:
        await ann.call_tool("a__add", {"a": 1, "b": 2})
    assert seen.headers
    assert not any(key in each for each in seen.headers)


async def test_a_reload_keeps_the_keys_of_an_issuer_that_is_away(tmp_path):
    authority = Authority()
    issuer = Issuer(ISSUER, audience=AUDIENCE, jwks=JWKS, fetch=authority.fetch)
    path = tmp_path / "mcp.json"
    access = {"issuers": [{"issuer": ISSUER, "audience": AUDIENCE, "jwks": JWKS}]}
    async with gateway(Script(), settings=settings(issuers=(issuer,))) as made:
        entries = {"a": {"url": made.app.manager["a"].config.url}}
        path.write_text(json.dumps({"mcpServers": entries, "gateway": {"access": access}}))
        assert (await post(made, INITIALIZE, authority.token())).status_code == 200
        authority.away = True
        made.app.reload(path)
        assert (await post(made, INITIALIZE, authority.token())).status_code == 200
    assert authority.fetched == 1
