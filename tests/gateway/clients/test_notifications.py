"""Notifications that a server sends faster than its client reads them."""

from __future__ import annotations

from typing import Any

import anyio
import pytest
from mcp import Client

from mcpconn.gateway.clients import downstream
from tests.gateway.conftest import gateway
from tests.stdio.programs import python
from tests.support import text_of

pytestmark = pytest.mark.anyio

LOGS = 300
CHILD = f"""
import json
for line in sys.stdin:
    message = json.loads(line)
    if "id" not in message:
        continue
    answer = {{"jsonrpc": "2.0", "id": message["id"], "result": {{}}}}
    if message["method"] == "initialize":
        answer["result"] = {{"protocolVersion": "2025-11-25", "capabilities": {{"tools": {{}}, "logging": {{}}}}}}
        answer["result"]["serverInfo"] = {{"name": "logs", "version": "1"}}
    elif message["method"] == "tools/list":
        answer["result"] = {{"tools": [{{"name": "log", "inputSchema": {{"type": "object"}}}}]}}
    elif message["method"] == "tools/call":
        for number in range(message["params"]["arguments"].get("lines", {LOGS})):
            params = {{"level": "info", "data": f"line {{number}}"}}
            print(json.dumps({{"jsonrpc": "2.0", "method": "notifications/message", "params": params}}))
        answer["result"] = {{"content": [{{"type": "text", "text": "done"}}]}}
    elif message["method"] != "ping":
        answer = {{"jsonrpc": "2.0", "id": message["id"], "error": {{"code": -32601, "message": "no"}}}}
    print(json.dumps(answer), flush=True)
raise SystemExit
"""


@pytest.mark.parametrize("mode", ["legacy", "auto"])
@pytest.mark.parametrize("room", [0, downstream.WAITING])
async def test_what_is_dropped_is_counted_and_said(
    room: int, mode: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(downstream, "WAITING", room)
    seen: list[Any] = []
    all_seen = anyio.Event()

    async def logged(params: Any) -> None:
        seen.append(params.data)
        if len(seen) == LOGS:
            all_seen.set()

    options: dict[str, Any] = {"logging_callback": logged, "mode": mode}
    if mode == "auto":
        options["log_level"] = "info"
    async with gateway(more={"a": python(CHILD)}) as made, Client(made.url, **options) as client:
        await client.list_tools()
        assert text_of(await client.call_tool("a__log", {})) == "done"
        if room:
            await all_seen.wait()
            assert sorted(seen) == sorted(f"line {number}" for number in range(LOGS))
    lines = [line for line in caplog.messages if "gateway.notifications_dropped" in line]
    if room:
        assert lines == []
    else:
        assert len(lines) == 1
        assert f"server=a method=tools/call dropped={LOGS} " in lines[0]


@pytest.mark.parametrize("lines", [1, 2, 20, downstream.WAITING - 1])
@pytest.mark.parametrize("mode", ["legacy", "auto"])
async def test_what_is_said_right_before_an_answer_comes_before_it(mode: Any, lines: int) -> None:
    seen: list[Any] = []
    all_seen = anyio.Event()

    async def logged(params: Any) -> None:
        seen.append(params.data)
        if len(seen) == lines:
            all_seen.set()

    options: dict[str, Any] = {"log_level": "info"} if mode == "auto" else {}
    options |= {"mode": mode, "logging_callback": logged}
    async with gateway(more={"a": python(CHILD)}) as made, Client(made.url, **options) as client:
        await client.list_tools()
        assert text_of(await client.call_tool("a__log", {"lines": lines})) == "done"
        await all_seen.wait()
