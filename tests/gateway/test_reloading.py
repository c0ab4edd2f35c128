"""A changed file touches the servers that it changes, and no others; servers come up late and are seen."""

from __future__ import annotations

import json
import socket
from contextlib import AsyncExitStack
from typing import Any

import anyio
import mcp_types as types
import pytest
from mcp import Client

from mcpconn.gateway.http.draining import Drain
from mcpconn.gateway.requests import lists
from mcpconn.testing import HttpServer, Script
from tests.gateway.conftest import Gateway
from tests.support import BUSY, text_of

pytestmark = pytest.mark.anyio


async def test_one_of_ten_changes_nine_keep_their_sessions(tmp_path):
    file = tmp_path / "mcp.json"
    async with AsyncExitStack() as stack:
        scripts = {f"s{number}": Script() for number in range(10)}
        servers: dict[str, Any] = {}
        for name, script in scripts.items():
            servers[name] = {"url": (await stack.enter_async_context(HttpServer(script))).url}
        file.write_text(json.dumps({"mcpServers": servers}))
        group = await stack.enter_async_context(anyio.create_task_group())
        made = Gateway(servers, None, group)
        await group.start(made.serve)
        with anyio.fail_after(60):
            async with Client(made.url, mode="legacy") as client:
                for name in scripts:
                    await client.call_tool(f"{name}__add", {"a": 1, "b": 1})
                before = {name: set(script.sessions) for name, script in scripts.items()}
                servers["s3"] = {**servers["s3"], "headers": {"x-changed": "1"}}
                file.write_text(json.dumps({"mcpServers": servers}))
                assert made.app.reload(file)["changed"] == ["s3"]
                for name in scripts:
                    assert text_of(await client.call_tool(f"{name}__add", {"a": 1, "b": 2})) == "3"
                after = {name: set(script.sessions) for name, script in scripts.items()}
                assert {name for name in scripts if before[name] != after[name]} == {"s3"}
                # A server that is gone is said to be unknown, and one that is new can be called.
                servers["new"] = servers.pop("s4")
                file.write_text(json.dumps({"mcpServers": servers}))
                made.app.reload(file)
                assert text_of(await client.call_tool("new__add", {"a": 1, "b": 3})) == "4"
                tools = {tool.name for tool in (await client.list_tools()).tools}
                assert "new__add" in tools
                assert "s4__add" not in tools
        await made.aclose()
        made.close()


async def test_a_server_that_comes_up_late_is_seen(monkeypatch: pytest.MonkeyPatch):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    heard = anyio.Event()

    async def note(message: object) -> None:
        if isinstance(message, types.ToolListChangedNotification):
            heard.set()

    async with AsyncExitStack() as stack:
        good = await stack.enter_async_context(HttpServer(Script()))
        hanging = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        hole = f"http://127.0.0.1:{hanging.getsockname()[1]}/mcp"
        servers = {"good": {"url": good.url}, "hangs": {"url": hole}, "late": {"url": f"http://127.0.0.1:{port}/mcp"}}
        group = await stack.enter_async_context(anyio.create_task_group())
        made = Gateway(servers, None, group)
        await group.start(made.serve)
        with anyio.fail_after(60):
            async with Client(made.url, mode="legacy", message_handler=note) as client:
                listed = await client.list_tools()
                assert {tool.name.partition("__")[0] for tool in listed.tools} == {"good"}
                assert set((listed.meta or {})["mcpconn/servers"]) == {"hangs", "late"}
                monkeypatch.setattr(lists, "FIRST_LOOK", 2 * BUSY)
                with anyio.fail_after(BUSY):
                    await client.list_tools()
                assert text_of(await client.call_tool("good__add", {"a": 1, "b": 1})) == "2"
                async with HttpServer(Script(), port=port):
                    while not any(tool.name.startswith("late__") for tool in (await client.list_tools()).tools):
                        await heard.wait()
                        heard = anyio.Event()
        await made.aclose()
        made.close()


async def test_answers_say_close_near_the_end():
    drain = Drain()
    sent = []

    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": [(b"connection", b"keep-alive")]})

    async def send(message):
        sent.append(message)

    async def receive():
        raise AssertionError("nobody reads")

    for _ in range(2):
        await drain.says_close(app)({"type": "http"}, receive, send)
        drain.begin()
    assert [message["headers"] for message in sent] == [[(b"connection", b"keep-alive")], [(b"connection", b"close")]]
    assert drain.served == 1
