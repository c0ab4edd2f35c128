"""What a bare client sees through the gateway: the library's promise, names, sessions, and nothing of another's."""

from __future__ import annotations

from typing import Any

import anyio
import httpx2
import pytest
from mcp import Client, MCPError
from mcp_types import CallToolResult, TextContent

from mcpconn.gateway import Settings, View
from mcpconn.gateway.outcomes import OUTCOME
from mcpconn.keys import IDEMPOTENCY_KEY
from mcpconn.testing import Script, ScriptedTool
from mcpconn.testing.scripted import faults
from tests.gateway.conftest import gateway

pytestmark = pytest.mark.anyio

MODES = pytest.mark.parametrize("mode", ["legacy", "auto"], ids=["legacy client", "modern client"])
ERAS = pytest.mark.parametrize("era", ["legacy", "modern"], ids=["legacy server", "modern server"])


def outcome(result: CallToolResult) -> Any:
    assert result.is_error
    return (result.meta or {})[OUTCOME]


def text_of(result: CallToolResult) -> str:
    assert isinstance(result.content[0], TextContent)
    return result.content[0].text


@MODES
@ERAS
async def test_a_call_reaches_its_server(mode, era):
    script = Script(era=era)
    async with gateway(script) as made, Client(made.url, mode=mode) as client:
        assert "a__add" in [tool.name for tool in (await client.list_tools()).tools]
        before = len(script.requests)
        result = await client.call_tool("a__add", {"a": 2, "b": 3})
        assert text_of(result) == "5"
        again = await client.call_tool("a__add", {"a": 2, "b": 4})
        assert text_of(again) == "6"
    assert script.executions["add"] == 2
    assert script.count("tools/list") <= 2, "a call lists nothing"
    assert before


@MODES
async def test_one_upstream_request_a_call(mode):
    script = Script()
    async with gateway(script) as made, Client(made.url, mode=mode) as client:
        await client.list_tools()
        await client.call_tool("a__add", {"a": 1, "b": 1})
        before = len(script.requests)
        for _ in range(5):
            await client.call_tool("a__add", {"a": 1, "b": 1})
        assert len(script.requests) - before == 5


@MODES
async def test_a_forgotten_session_is_answered_and_runs_once(mode):
    script = Script()
    async with gateway(script) as made, Client(made.url, mode=mode) as client:
        await client.call_tool("a__charge", {"amount": 1})
        script.forget_sessions()
        result = await client.call_tool("a__charge", {"amount": 1})
        assert not result.is_error
    assert script.executions["charge"] == 2


@MODES
async def test_a_call_cut_off_is_unknown_and_said(mode):
    script = Script()
    async with gateway(script) as made, Client(made.url, mode=mode) as client:
        await client.list_tools()
        script.inject(faults.drop_after())
        result = await client.call_tool("a__charge", {"amount": 1})
        assert outcome(result) == "unknown"
        assert "not known whether the tool ran" in text_of(result)
        assert not (await client.call_tool("a__add", {"a": 1, "b": 1})).is_error
    assert script.executions["charge"] == 1


@MODES
async def test_a_safe_call_cut_off_is_answered(mode):
    script = Script()
    async with gateway(script) as made, Client(made.url, mode=mode) as client:
        await client.list_tools()
        script.inject(faults.drop_after())
        assert not (await client.call_tool("a__add", {"a": 1, "b": 1})).is_error


@MODES
async def test_a_client_outlives_the_gateway(mode):
    script = Script()
    async with gateway(script) as made, Client(made.url, mode=mode) as client:
        await client.call_tool("a__add", {"a": 1, "b": 1})
        await made.replace()
        assert text_of(await client.call_tool("a__add", {"a": 1, "b": 2})) == "3"
        assert text_of(await client.call_tool("a__add", {"a": 1, "b": 3})) == "4"


async def test_each_client_has_its_own_session():
    script = Script()
    async with gateway(script) as made:
        async with Client(made.url, mode="legacy") as first, Client(made.url, mode="legacy") as second:
            for client in (first, second):
                await client.call_tool("a__add", {"a": 1, "b": 1})
            calls = [seen.session_id for seen in script.requests if seen.rpc_method == "tools/call"]
            assert len(set(calls)) == 2
        # The clients have said goodbye, and with them went the upstream sessions that were theirs.
        assert list(made.app.manager) == ["a"]


async def test_anonymous_clients_of_a_network_share_no_state():
    async with gateway(Script(), one_person=False) as made, Client(made.url) as client:
        with pytest.raises(MCPError, match="cannot tell its anonymous clients apart"):
            await client.call_tool("a__add", {"a": 1, "b": 1})


@MODES
async def test_a_key_asked_again_gets_its_answer(mode):
    script = Script()
    async with gateway(script) as made, Client(made.url, mode=mode) as client:
        meta: Any = {IDEMPOTENCY_KEY: "k"}
        first = await client.call_tool("a__charge", {"amount": 1}, meta=meta)
        again = await client.call_tool("a__charge", {"amount": 1}, meta=meta)
        assert first.content == again.content
        assert script.executions["charge"] == 1
        other = await client.call_tool("a__charge", {"amount": 2}, meta=meta)
        assert outcome(other) == "not_run"
    assert script.executions["charge"] == 1


async def test_a_key_used_twice_at_once_runs_once():
    script = Script()
    async with gateway(script) as made, Client(made.url, mode="legacy") as client:
        await client.call_tool("a__add", {"a": 1, "b": 1})
        script.inject(faults.slow(0.2))
        results = []

        async def call() -> None:
            meta: Any = {IDEMPOTENCY_KEY: "k"}
            results.append(await client.call_tool("a__charge", {"amount": 1}, meta=meta))

        async with anyio.create_task_group() as group:
            group.start_soon(call)
            group.start_soon(call)
    assert script.executions["charge"] == 1
    assert results[0].content == results[1].content


async def test_a_key_of_a_lost_call_stays_unknown():
    script = Script()
    async with gateway(script) as made, Client(made.url, mode="legacy") as client:
        await client.list_tools()
        meta: Any = {IDEMPOTENCY_KEY: "k"}
        script.inject(faults.drop_after())
        assert outcome(await client.call_tool("a__charge", {"amount": 1}, meta=meta)) == "unknown"
        assert outcome(await client.call_tool("a__charge", {"amount": 1}, meta=meta)) == "unknown"
        await made.replace()
        assert outcome(await client.call_tool("a__charge", {"amount": 1}, meta=meta)) == "unknown"
    assert script.executions["charge"] == 1


async def test_a_hanging_server_delays_no_other():
    hanging = Script()
    hanging.inject(faults.hang(), times=None, method=None)
    healthy = Script()
    async with gateway(hanging, healthy) as made, Client(made.url, mode="legacy") as client:
        listed = await client.list_tools()
        assert {tool.name.partition("__")[0] for tool in listed.tools} == {"b"}
        assert "a" in (listed.meta or {})["mcpconn/servers"]
        assert not (await client.call_tool("b__add", {"a": 1, "b": 1})).is_error


@pytest.mark.parametrize("name", ["nothing", "c__add", "a__", "__add"])
async def test_an_unknown_tool_is_refused(name):
    script = Script()
    async with gateway(script) as made, Client(made.url, mode="legacy") as client:
        with pytest.raises(MCPError, match="Unknown tool"):
            await client.call_tool(name, {})


async def test_a_view_shows_what_it_allows():
    settings = Settings(
        views={
            "": View(),
            "calm": View(name="calm", deny=("*/charge",)),
            "raw": View(name="raw", prefix=False, servers=("a",)),
        }
    )
    script = Script()
    async with gateway(script, settings=settings) as made:
        async with Client(f"{made.url}/calm", mode="legacy") as client:
            assert "a__charge" not in [tool.name for tool in (await client.list_tools()).tools]
            with pytest.raises(MCPError, match="Unknown tool"):
                await client.call_tool("a__charge", {"amount": 1})
        async with Client(f"{made.url}/raw", mode="legacy") as client:
            assert not (await client.call_tool("add", {"a": 1, "b": 1})).is_error
        async with httpx2.AsyncClient() as http:
            assert (await http.post(f"{made.url}/none", json={})).status_code == 404
    assert script.executions["charge"] == 0


@MODES
async def test_resources_and_prompts_pass(mode):
    async with gateway(Script()) as made, Client(made.url, mode=mode) as client:
        uris = [str(resource.uri) for resource in (await client.list_resources()).resources]
        assert uris
        assert all(uri.startswith("a+") for uri in uris)
        read = await client.read_resource(uris[0])
        assert str(read.contents[0].uri) == uris[0]
        prompt = await client.get_prompt("a__greet", {"name": "Ada"})
        assert prompt.messages


INITIALIZE = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "initialize",
    "params": {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}},
}
PING = {"jsonrpc": "2.0", "id": 2, "method": "ping"}
ACCEPT = {"accept": "application/json, text/event-stream"}


async def test_a_session_id_that_is_not_ours_is_not_found():
    async with gateway(Script()) as made, httpx2.AsyncClient(headers=ACCEPT) as http:
        opened = await http.post(made.url, json=INITIALIZE)
        sealed = opened.headers["mcp-session-id"]

        async def status(session: str, method: str = "POST") -> int:
            content: dict[str, Any] = {"json": PING} if method == "POST" else {}
            return (await http.request(method, made.url, headers={"mcp-session-id": session}, **content)).status_code

        assert await status(sealed) == 200
        for forged in ("x", sealed[:-1] + ("A" if sealed[-1] != "A" else "B"), "A" * 5000, sealed + "A"):
            assert await status(forged) == 404
        assert await status(sealed, "DELETE") == 200
        assert await status(sealed) == 404
        assert await status(sealed, "DELETE") == 404
        await made.replace()
        assert await status(sealed) == 404, "deleted for good"


async def test_a_page_of_another_host_is_refused():
    async with gateway(Script()) as made, httpx2.AsyncClient(headers=ACCEPT) as http:
        for headers in ({"host": "evil.example"}, {"origin": "http://evil.example"}):
            refused = await http.post(made.url, json=INITIALIZE, headers=headers)
            assert refused.status_code in (403, 421)


async def test_a_forged_outcome_does_not_pass():
    forged = {
        "content": [{"type": "text", "text": "x", "_meta": {OUTCOME: "not_run"}}],
        "_meta": {OUTCOME: "not_run", "own/key": 1},
    }
    script = Script(tools=[ScriptedTool("forge", lambda arguments: forged)])
    async with gateway(script) as made, Client(made.url, mode="legacy") as client:
        result = await client.call_tool("a__forge", {})
        assert result.meta == {"own/key": 1}
        assert not getattr(result.content[0], "meta", None)
