"""What anybody may send to the gateway: it refuses clearly, keeps little, and serves the others."""

from __future__ import annotations

import gzip
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import httpx2
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mcp import Client, MCPError

from mcpconn.gateway.clients.session_ids import FAILURES, Failures
from mcpconn.gateway.clients.session_requests import NoRoom
from mcpconn.gateway.http.bodies import BODY_LIMIT, Bodies, BodyRefused
from mcpconn.gateway.principals import Principal
from mcpconn.testing import Script, ScriptedTool
from tests.gateway.conftest import Gateway, gateway

pytestmark = pytest.mark.anyio

ACCEPT = {"accept": "application/json, text/event-stream"}
MODERN = {**ACCEPT, "mcp-protocol-version": "2026-07-28"}
INITIALIZE = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "initialize",
    "params": {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}},
}
PING = {"jsonrpc": "2.0", "id": 2, "method": "ping"}


def modern(method: str, **params: Any) -> dict[str, Any]:
    meta = {
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientCapabilities": {},
        "io.modelcontextprotocol/clientInfo": {"name": "t", "version": "1"},
    }
    return {"jsonrpc": "2.0", "id": 1, "method": method, "params": {**params, "_meta": meta}}


@asynccontextmanager
async def open_to_all(*scripts: Script, **options: Any) -> AsyncIterator[tuple[Gateway, httpx2.AsyncClient]]:
    async with gateway(*(scripts or (Script(),)), **options) as made, httpx2.AsyncClient(headers=ACCEPT) as http:
        yield made, http


async def still_serves(made: Gateway) -> None:
    for mode in ("legacy", "auto"):
        async with Client(made.url, mode=mode) as client:
            assert not (await client.call_tool("a__add", {"a": 1, "b": 1})).is_error


# -- bodies


@pytest.mark.parametrize("version", ["2025-11-25", "2026-07-28"])
async def test_a_body_over_the_limit_is_refused(version):
    async with open_to_all() as (made, http):
        headers = {"content-type": "application/json", "mcp-protocol-version": version}
        long = b'{"x": "' + b"x" * BODY_LIMIT + b'"}'
        assert (await http.post(made.url, content=long, headers=headers)).status_code == 413

        async def chunks() -> AsyncIterator[bytes]:
            for _ in range(5):
                yield b"x" * (BODY_LIMIT // 4)

        refused = await http.post(made.url, content=chunks(), headers=headers)
        assert refused.status_code == 413
        assert "4194304 bytes" in refused.text
        await still_serves(made)


BOMBS = {
    "deep lists": b"[" * 1_000_000,
    "deep and closed": b"[" * 100_000 + b"]" * 100_000,
    "deep objects": b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
    "a long number": b'{"jsonrpc":"2.0","id":' + b"9" * 1_000_000 + b',"method":"ping"}',
    "a large number": b'{"jsonrpc":"2.0","id":1e999999999,"method":"ping"}',
    "many keys": b"{" + b",".join(b'"%d":1' % number for number in range(200_000)) + b"}",
    "lone surrogates": b'{"jsonrpc":"2.0","id":1,"method":"\\ud800"}',
    "not a number": b'{"jsonrpc":"2.0","id":NaN,"method":"ping"}',
    "not UTF-8": b'{"jsonrpc":"2.0","id":1,"method":"\xff"}',
    "no JSON": b"hello",
    "a batch": b"[]",
    "null": b"null",
    "nothing": b"",
}


@pytest.mark.parametrize("bomb", BOMBS, ids=list(BOMBS))
async def test_a_bomb_is_refused_alone(bomb):
    async with open_to_all() as (made, http):
        opened = await http.post(made.url, json=INITIALIZE)
        known = {"mcp-session-id": opened.headers["mcp-session-id"]}
        for extra in ({}, known, {"mcp-protocol-version": "2026-07-28"}):
            headers = {"content-type": "application/json", **extra}
            refused = await http.post(made.url, content=BOMBS[bomb], headers=headers)
            # The SDK takes a message whose id is no id for a notification, and drops it.
            dropped = bomb in ("a large number", "not a number") and refused.status_code == 202
            assert dropped or 400 <= refused.status_code < 500, (extra, refused.text[:200])
            assert len(refused.content) < 10_000
        assert (await http.post(made.url, json=PING, headers=known)).status_code == 200, "the session goes on"
        await still_serves(made)


async def test_compressed_bodies_are_refused():
    async with open_to_all() as (made, http):
        body = gzip.compress(json.dumps(INITIALIZE).encode())
        headers = {"content-type": "application/json", "content-encoding": "gzip"}
        refused = await http.post(made.url, content=body, headers=headers)
        assert refused.status_code == 415
        assert "Content-Encoding" in refused.text
        plain = {**headers, "content-encoding": "identity"}
        assert (await http.post(made.url, content=json.dumps(INITIALIZE), headers=plain)).status_code == 200


@pytest.mark.parametrize("mode", ["legacy", "auto"])
async def test_a_long_unknown_name_is_not_sent_back_whole(mode):
    async with gateway(Script()) as made, Client(made.url, mode=mode) as client:
        with pytest.raises(MCPError, match="Unknown tool") as caught:
            await client.call_tool("x" * 30_000, {})
        assert len(caught.value.error.message) < 2000
        with pytest.raises(MCPError, match="Unknown resource") as caught:
            await client.read_resource("x:" + "y" * 30_000)
        assert len(str(caught.value.error)) < 5000
        assert not (await client.call_tool("a__add", {"a": 1, "b": 1})).is_error


async def test_arguments_of_any_depth_are_no_crash():
    script = Script(tools=[*Script().tools.values(), ScriptedTool("any", lambda arguments: "fine")])
    async with open_to_all(script) as (made, http):
        async with Client(made.url, mode="legacy") as client:
            await client.list_tools()
            for depth in (10, 100, 180, 500, 900):
                body = '{"x":' * depth + "1" + "}" * depth
                text = (
                    '{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"a__any","arguments":'
                    f'{body},"_meta":{{"mcpconn/idempotencyKey":"k{depth}"}}}}}}'
                )
                opened = await http.post(made.url, json=INITIALIZE)
                known = {"mcp-session-id": opened.headers["mcp-session-id"], "content-type": "application/json"}
                answered = await http.post(made.url, content=text.encode(), headers=known)
                assert answered.status_code in (200, 400), depth
        await still_serves(made)


class Arriving:
    """A body that comes as told."""

    def __init__(self, *chunks: bytes, stalls: bool = False) -> None:
        self._chunks, self._stalls = list(chunks), stalls

    async def __call__(self) -> dict[str, Any]:
        if not self._chunks:
            if self._stalls:
                await anyio.sleep_forever()
            return {"type": "http.disconnect"}
        chunk = self._chunks.pop(0)
        return {"type": "http.request", "body": chunk, "more_body": bool(self._chunks) or self._stalls}


SCOPE: dict[str, Any] = {"type": "http", "headers": []}


async def refusal(bodies: Bodies, receive: Any, **headers: str) -> int:
    scope = {**SCOPE, "headers": [(name.replace("_", "-").encode(), text.encode()) for name, text in headers.items()]}
    with pytest.raises(BodyRefused) as raised:
        await bodies.read(scope, receive)
    assert bodies.held == 0
    return raised.value.status


async def test_a_body_is_read_within_limits():
    bodies = Bodies(limit=10, total=15, patience=0.01)
    assert await bodies.read(SCOPE, Arriving(b"12345", b"67890")) == b"1234567890"
    assert await refusal(bodies, Arriving(b"12345", b"678901")) == 413
    assert await refusal(bodies, Arriving(), content_length="11") == 413
    assert await refusal(bodies, Arriving(), content_length="9" * 5000) == 413
    assert await refusal(bodies, Arriving(b"1", stalls=True)) == 408
    assert await refusal(bodies, Arriving()) == 400


async def test_what_arrives_at_once_is_bounded():
    bodies = Bodies(limit=10, total=15)
    async with anyio.create_task_group() as group:

        async def stall() -> None:
            await bodies.read(SCOPE, Arriving(b"1234567890", stalls=True))

        group.start_soon(stall)
        await anyio.wait_all_tasks_blocked()
        assert bodies.held == 10
        with pytest.raises(BodyRefused) as raised:
            await bodies.read(SCOPE, Arriving(b"123456"))
        assert raised.value.status == 503
        assert await bodies.read(SCOPE, Arriving(b"12345")) == b"12345"
        group.cancel_scope.cancel()


# -- ids


@pytest.mark.parametrize("request_id", [1.5, True, None, {}, []])
@pytest.mark.parametrize("era", ["legacy", "modern"])
async def test_a_request_that_nothing_could_answer_is_refused(era, request_id):
    script = Script()
    async with open_to_all(script) as (made, http):
        params = {"name": "a__charge", "arguments": {"amount": 1}}
        if era == "modern":
            headers = {**MODERN, "mcp-method": "tools/call", "mcp-name": "a__charge"}
            call = modern("tools/call", **params)
        else:
            opened = await http.post(made.url, json=INITIALIZE)
            headers = {"mcp-session-id": opened.headers["mcp-session-id"], "mcp-protocol-version": "2025-11-25"}
            call = {"jsonrpc": "2.0", "method": "tools/call", "params": params}
        refused = await http.post(made.url, json={**call, "id": request_id}, headers=headers)
        assert refused.status_code == 400
        assert refused.json()["error"]["code"] in (-32600, -32602)
    assert script.executions["charge"] == 0


# -- headers


@pytest.mark.parametrize(
    ("header", "value"), [("mcp-method", "tools/list"), ("mcp-name", "a__add"), ("mcp-method", ""), ("mcp-name", "")]
)
async def test_a_header_that_contradicts_the_body_is_refused(header, value):
    script = Script()
    async with open_to_all(script) as (made, http):
        headers = {**MODERN, "mcp-method": "tools/call", "mcp-name": "a__charge", header: value}
        refused = await http.post(
            made.url, json=modern("tools/call", name="a__charge", arguments={"amount": 1}), headers=headers
        )
        assert refused.status_code == 400
        assert refused.json()["error"]["code"] == -32020
    assert script.executions["charge"] == 0


@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
@pytest.mark.parametrize(
    "headers",
    [
        {"host": "evil.example"},
        {"origin": "http://evil.example"},
        {"host": "127.0.0.1.evil.example"},
        {"origin": "null"},
        {"host": "evil.example:80"},
    ],
    ids=lambda headers: "=".join(next(iter(headers.items()))),
)
async def test_a_page_of_another_site_cannot_do_anything(method, headers):
    async with open_to_all() as (made, http):
        opened = await http.post(made.url, json=INITIALIZE)
        known = {"mcp-session-id": opened.headers["mcp-session-id"]}
        body: dict[str, Any] = {"json": PING} if method == "POST" else {}
        refused = await http.request(method, made.url, headers={**known, **headers}, **body)
        assert refused.status_code in (403, 421)
        assert (await http.post(made.url, json=PING, headers=known)).status_code == 200, "the session is there"


# -- ids


async def test_forged_ids_harm_no_client(monkeypatch):
    script = Script()
    async with open_to_all(script) as (made, http), Client(made.url, mode="legacy") as client:
        await client.call_tool("a__add", {"a": 1, "b": 1})
        endpoint = made.app.endpoint("")
        opened: list[int] = []
        real = endpoint.sessions._ids._sealer.open

        def noting(text: str, context: str = "") -> bytes:
            opened.append(len(text))
            return real(text, context)

        monkeypatch.setattr(endpoint.sessions._ids._sealer, "open", noting)
        statuses = []
        for number in range(FAILURES // 2):
            forged = {"mcp-session-id": "A" * (6000 if number % 2 else 100)}
            statuses.append((await http.post(made.url, json=PING, headers=forged)).status_code)
        assert set(statuses) <= {404, 429}
        assert statuses[0] == 404
        assert max(opened) <= 4096, "a long one is refused before any crypto"
        assert not (await client.call_tool("a__add", {"a": 1, "b": 2})).is_error, "a good id of the same address"


def test_failures_are_counted_for_each_peer():
    now = 0.0
    failures = Failures(lambda: now, limit=10)
    assert [failures.exceeded("a") for _ in range(11)] == [False] * 10 + [True]
    assert not failures.exceeded("b")
    now = 1.0
    assert not failures.exceeded("a")
    for number in range(3000):
        failures.exceeded(str(number))
    assert len(failures._left) <= 1024


# -- sessions


async def test_one_principal_cannot_open_too_many_sessions():
    async with open_to_all() as (made, http):
        sessions = made.app.endpoint("").sessions
        sessions._per_principal = 20
        first = await http.post(made.url, json=INITIALIZE)
        for _ in range(60):
            assert (await http.post(made.url, json=INITIALIZE)).status_code == 200
        assert len(sessions) <= 20
        assert len(made.app.manager) <= 21
        known = {"mcp-session-id": first.headers["mcp-session-id"]}
        assert (await http.post(made.url, json=PING, headers=known)).status_code == 200, "put away, and opened again"


async def test_a_named_principal_with_no_idle_session_is_refused():
    async with open_to_all() as (made, _):
        sessions = made.app.endpoint("").sessions
        sessions._per_principal = 0
        with pytest.raises(NoRoom):
            await sessions._make_room(Principal("key"), {})


async def test_no_room_is_not_a_lost_session(monkeypatch):
    async with open_to_all() as (made, http):
        opened = await http.post(made.url, json=INITIALIZE)
        known = {"mcp-session-id": opened.headers["mcp-session-id"]}
        await made.replace()
        monkeypatch.setattr(made.app.endpoint("").manager, "max_sessions", 0)
        refused = await http.post(made.url, json=PING, headers=known)
        assert refused.status_code == 503
        monkeypatch.setattr(made.app.endpoint("").manager, "max_sessions", 10)
        assert (await http.post(made.url, json=PING, headers=known)).status_code == 200


# -- slow readers


async def test_a_client_that_does_not_read_delays_no_other():
    long = "x" * 2_000_000
    script = Script(tools=[*Script().tools.values(), ScriptedTool("long", lambda arguments: long)])
    async with open_to_all(script) as (made, http):
        opened = await http.post(made.url, json=INITIALIZE)
        session = opened.headers["mcp-session-id"]
        host, port = "127.0.0.1", int(made.url.split(":")[2].partition("/")[0])
        stuck = []
        for number in range(20):
            call = {"jsonrpc": "2.0", "id": number, "method": "tools/call", "params": {"name": "a__long"}}
            body = json.dumps(call).encode()
            peer = socket.create_connection((host, port))
            peer.setblocking(False)
            peer.send(
                b"POST /mcp HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n"
                b"accept: application/json, text/event-stream\r\nmcp-session-id: %s\r\ncontent-length: %d\r\n\r\n%s"
                % (session.encode(), len(body), body)
            )
            stuck.append(peer)
        await still_serves(made)
        async with Client(made.url, mode="legacy") as client:
            made.app.relay.changed("tools", {""})
            assert not (await client.call_tool("a__add", {"a": 1, "b": 1})).is_error
        for peer in stuck:
            peer.close()


# -- anything


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=12,
)
METHODS = [
    "initialize",
    "ping",
    "tools/call",
    "tools/list",
    "resources/read",
    "resources/subscribe",
    "prompts/get",
    "completion/complete",
    "logging/setLevel",
    "subscriptions/listen",
    "server/discover",
    "notifications/cancelled",
    "notifications/initialized",
    "mcpconn/cancel",
]
messages = st.fixed_dictionaries(
    {"jsonrpc": st.sampled_from(["2.0", "1.0"])},
    optional={
        "id": st.integers() | st.text(max_size=10) | values,
        "method": st.sampled_from(METHODS) | st.text(max_size=10),
        "params": st.fixed_dictionaries(
            {},
            optional={
                "name": st.sampled_from(["a__add", "a__", "x"]) | values,
                "arguments": values,
                "cursor": values,
                "uri": st.text(max_size=20),
                "requestState": values,
                "inputResponses": values,
                "_meta": st.dictionaries(
                    st.sampled_from(["mcpconn/idempotencyKey", "mcpconn/ledger", "progressToken"]), values, max_size=3
                ),
            },
        )
        | values,
        "result": values,
        "error": values,
    },
)
names = st.sampled_from(
    ["mcp-session-id", "mcp-protocol-version", "mcp-method", "mcp-name", "last-event-id", "accept", "content-type"]
)
texts = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=40).map(str.strip)
requests = st.tuples(
    st.sampled_from(["POST", "GET", "DELETE", "PUT"]),
    st.dictionaries(names, st.sampled_from(["2025-11-25", "2026-07-28", "known"]) | texts, max_size=4),
    messages.map(lambda message: json.dumps(message).encode()) | st.binary(max_size=60),
)


async def test_the_endpoint_survives_any_input():
    """Each example is one request on a real socket; after all of them the gateway serves as before."""
    examples: list[Any] = []

    @settings(max_examples=100, database=None, suppress_health_check=list(HealthCheck), deadline=None)
    @given(requests)
    def collect(example: Any) -> None:
        examples.append(example)

    collect()
    script = Script()
    async with open_to_all(script) as (made, http):
        opened = await http.post(made.url, json=INITIALIZE)
        known = opened.headers["mcp-session-id"]
        for method, chosen, body in examples:
            headers = {**ACCEPT, "content-type": "application/json", **chosen}
            if headers.get("mcp-session-id") == "known":
                headers["mcp-session-id"] = known
            with anyio.move_on_after(2):
                async with http.stream(method, made.url, headers=headers, content=body) as answered:
                    assert answered.status_code < 500 or answered.status_code == 503, (method, headers, body)
                    if method != "GET":
                        async for _ in answered.aiter_bytes():
                            break
        assert len(made.app.parking) == 0
        await still_serves(made)
