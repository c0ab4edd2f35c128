"""Nothing but the call is in a call: no request of the client's own can take away an answer that is there."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import anyio
import pytest
from mcp.shared.exceptions import MCPError
from mcp_types import HEADER_MISMATCH

from mcpconn import Connection, Manager
from mcpconn.testing import HttpServer, Script, ScriptedTool, default_tools
from mcpconn.testing.scripted import faults
from tests.support import SAFETY, UNFINISHED_STREAMS, quiet, served, text_of

pytestmark = [pytest.mark.anyio, UNFINISHED_STREAMS]

Era = Literal["legacy", "modern"]
LISTING_FAULTS = [
    faults.server_error(),
    faults.rate_limited(60),
    faults.drop_before(),
    faults.hang(),
    faults.rpc_error(-32601, "Method not found"),
    faults.rpc_error(-32603, "Internal error", ran=False),
    faults.not_found_html(),
    faults.accepted_202(),
]


@pytest.mark.parametrize("catalog", ["lazy", "eager"])
@pytest.mark.parametrize("engine", ["direct", "httpx"])
@pytest.mark.parametrize("answer", ["json", "sse"])
@pytest.mark.parametrize("era", ["legacy", "modern"])
@pytest.mark.parametrize("fault", LISTING_FAULTS, ids=lambda fault: fault.name)
async def test_a_listing_does_not_stop_an_answer(
    fault: faults.Fault, era: Era, answer: Literal["json", "sse"], engine: str, catalog: str
) -> None:
    script = Script(era=era, answer=answer)
    script.inject(fault, method="tools/list", times=None)
    async with served(script, warm=False, config={"engine": engine, "catalog": catalog}) as (connection, _):
        result = await connection.call_tool("charge", {"amount": 7}, idempotent=True)
        assert text_of(result) == "charged 7"
        assert script.executions["charge"] == 1
        assert script.count("tools/call") == 1
        if catalog == "lazy":
            assert script.count("tools/list") == 0


DIES_WHEN_LISTED = """
import json, os, sys
for line in sys.stdin:
    message = json.loads(line)
    method, number = message.get("method"), message.get("id")
    if method == "initialize":
        result = {"protocolVersion": "2025-06-18", "capabilities": {"tools": {}},
                  "serverInfo": {"name": "fragile", "version": "1"}}
    elif method == "tools/call":
        result = {"content": [{"type": "text", "text": "done"}]}
    elif method == "tools/list":
        os._exit(1)
    elif number is None:
        continue
    else:
        print(json.dumps({"jsonrpc": "2.0", "id": number, "error": {"code": -32601, "message": "no"}}), flush=True)
        continue
    print(json.dumps({"jsonrpc": "2.0", "id": number, "result": result}), flush=True)
"""


async def test_a_child_that_dies_when_its_tools_are_listed_answers_calls(tmp_path: Path) -> None:
    program = tmp_path / "fragile.py"
    program.write_text(DIES_WHEN_LISTED, encoding="utf-8")
    with anyio.fail_after(SAFETY):
        async with Connection({"command": sys.executable, "args": [str(program)]}) as connection:
            for _ in range(3):
                assert text_of(await connection.call_tool("anything")) == "done"
            assert connection.epoch == 1


# -- schemas


WRONG: Mapping[str, Any] = {"content": [], "structuredContent": {"total": "seven"}}
SCHEMA = {"type": "object", "properties": {"total": {"type": "integer"}}, "required": ["total"]}


def tool_with_wrong_results(*, schema: Mapping[str, Any] | None = SCHEMA, text: str = "seven") -> ScriptedTool:
    answer = {**WRONG, "structuredContent": {"total": text}}
    return ScriptedTool("sum", lambda arguments: dict(answer), output_schema=schema)


async def test_a_result_without_a_known_schema_is_returned_as_it_is() -> None:
    script = Script(tools=[*default_tools(), tool_with_wrong_results()])
    async with served(script) as (connection, _):
        assert (await connection.call_tool("sum")).structured_content == {"total": "seven"}


@pytest.mark.parametrize("idempotent", [None, True])
async def test_a_result_that_does_not_fit_its_listed_schema_is_refused_once(idempotent: bool | None) -> None:
    # Its text is a session refusal's: that changes nothing, because the tool has answered.
    script = Script(tools=[*default_tools(), tool_with_wrong_results(text="Session not found")])
    async with served(script) as (connection, _):
        await connection.list_tools()
        pings = script.count("ping")
        with pytest.raises(RuntimeError, match="Invalid structured content returned by tool sum"):
            await connection.call_tool("sum", idempotent=idempotent)
        await quiet(connection)
        assert script.executions["sum"] == 1
        assert (script.count("ping"), connection.epoch) == (pings, 1)


async def test_an_earlier_sessions_schema_refuses_nothing() -> None:
    script = Script(tools=[*default_tools(), tool_with_wrong_results()])
    async with served(script) as (connection, _):
        await connection.list_tools()
        # The next version of the server, which cannot list its tools yet.
        script.inject(faults.server_error(), method="tools/list", times=None)
        await connection.reconnect()
        assert (await connection.call_tool("sum")).structured_content == {"total": "seven"}


async def test_a_doubtful_schema_refuses_nothing() -> None:
    script = Script(tools=[*default_tools(), tool_with_wrong_results()])
    async with served(script) as (connection, _):
        await connection.list_tools()
        while not script.streams.count:
            await anyio.lowlevel.checkpoint()
        script.inject(faults.server_error(), method="tools/list", times=None)
        script.notify("notifications/tools/list_changed", {})
        while not connection.catalog.stale:
            await anyio.lowlevel.checkpoint()
        assert (await connection.call_tool("sum")).structured_content == {"total": "seven"}


# -- HEADER_MISMATCH: the one listing that belongs to a call


MISMATCH = faults.rpc_error(HEADER_MISMATCH, "Mcp-Param-Region is missing", http_status=400, ran=False)


async def test_a_call_refused_for_its_headers_is_sent_again_after_one_listing() -> None:
    script = Script(era="modern")
    async with served(script) as (connection, _):
        script.inject(MISMATCH, tool="charge")
        assert text_of(await connection.call_tool("charge")) == "charged 1"
        assert (script.executions["charge"], script.count("tools/list")) == (1, 1)


LISTING_FAULTS_IN_A_CALL = [
    faults.server_error(),
    faults.rate_limited(60),
    faults.drop_before(),
    faults.rpc_error(-32601, "Method not found"),
    faults.expired_404(),
]


@pytest.mark.parametrize("fault", LISTING_FAULTS_IN_A_CALL, ids=lambda fault: fault.name)
async def test_a_listing_that_fails_leaves_the_refusal_of_the_call(fault: faults.Fault) -> None:
    script = Script(era="modern")
    async with served(script) as (connection, _):
        script.inject(MISMATCH, tool="charge", times=None)
        script.inject(fault, method="tools/list", times=None)
        with pytest.raises(MCPError, match="Mcp-Param-Region is missing") as caught:
            await connection.call_tool("charge", idempotent=True)
        assert caught.value.code == HEADER_MISMATCH
        await quiet(connection)
        assert (script.executions["charge"], connection.epoch) == (0, 1)


async def test_a_tool_that_answers_with_that_code_is_not_called_twice() -> None:
    script = Script(era="modern")
    async with served(script) as (connection, _):
        script.inject(faults.rpc_error(HEADER_MISMATCH, "the tool's own"), tool="charge", times=None)
        with pytest.raises(MCPError, match="the tool's own"):
            await connection.call_tool("charge")
        assert (script.executions["charge"], script.count("tools/list")) == (1, 0)


# -- everywhere


async def test_a_manager_with_a_new_session_each_time_never_lists() -> None:
    script = Script()
    with anyio.fail_after(SAFETY):
        async with HttpServer(script) as server, Manager({"srv": server.url}) as manager:
            for number in range(3):
                assert text_of(await manager.call_tool("srv", "charge")) == "charged 1"
                script.forget_sessions()
                assert script.executions["charge"] == number + 1
    assert script.count("tools/list") == 0
