"""Tools that run as tasks, through the gateway: from a legacy client to a legacy server, and in no other pair."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import httpx2
import mcp_types as types
import pytest
from mcp import Client, MCPError
from mcp.client.streamable_http import streamable_http_client

from mcpconn import Connection
from mcpconn.gateway import Settings
from mcpconn.gateway.access.config import AccessSettings
from mcpconn.gateway.access.keys import KeyFile
from mcpconn.gateway.access.rights import Rights
from mcpconn.sdk.client import send_unchecked
from mcpconn.testing import Script, faults
from mcpconn.testing.scripted.records import SessionState
from mcpconn.testing.scripted.steps import Message, result_message
from mcpconn.testing.scripted.streams import Item
from mcpconn.testing.scripted.tools import RpcError
from tests.gateway.conftest import Gateway, gateway
from tests.support import text_of
from tests.test_mcp_tasks import TaskService, scripted

pytestmark = pytest.mark.anyio

RELATED = "io.modelcontextprotocol/related-task"


class Cancellable(TaskService):
    """Also lists its tasks, in pages of one, and cancels them."""

    def begin(self) -> None:
        super().begin()
        self.cancelled: list[str] = []

    def items(self, message: Message, state: SessionState) -> Iterator[Item]:
        request_id, method, params = message["id"], message["method"], message.get("params") or {}
        if method == "tasks/list":
            names = list(self.left)
            at = int(params.get("cursor", 0))
            more = {"nextCursor": str(at + 1)} if at + 1 < len(names) else {}
            page = [self.described(name) for name in names[at : at + 1]]
            return iter([result_message(request_id, {"tasks": page, **more})])
        if method == "tasks/cancel":
            task = str(params["taskId"])
            if task not in self.left:
                raise RpcError(-32602, "Task not found")
            self.cancelled.append(task)
            return iter([result_message(request_id, {**self.described(task), "status": "cancelled"})])
        return super().items(message, state)

    def told(self, items: Iterator[Item]) -> Iterator[Item]:
        for item in super().told(items):
            if isinstance(item, dict) and "capabilities" in (item.get("result") or {}):
                item["result"]["capabilities"]["tasks"].update(list={}, cancel={})
            yield item


def cancellable() -> tuple[Script, Cancellable]:
    script, _ = scripted()
    service = Cancellable(script.service.catalog, script.service.newest_version)
    service.begin()
    script.service = service
    return script, service


async def ask(client: Client, method: str, **params: Any) -> dict[str, Any]:
    return await send_unchecked(client.session, method, params)


async def begun(client: Client) -> str:
    receipt = await ask(client, "tools/call", name="a__research", arguments={}, task={})
    return str(receipt["task"]["taskId"])


async def test_a_connection_calls_a_tool_that_needs_a_task():
    script, service = scripted()
    async with gateway(script) as made, Connection({"url": made.url, "mode": "legacy"}) as connection:
        await connection.list_tools()
        assert text_of(await connection.call_tool("a__research", {"topic": "tea"})) == "found"
    assert service.executions["research"] == 1


async def test_a_task_can_be_asked_about_and_cancelled():
    script, service = cancellable()
    async with gateway(script) as made, Client(made.url, mode="legacy") as client:
        await client.list_tools()
        task, other = await begun(client), await begun(client)
        assert "task-1" not in task
        assert (await ask(client, "tasks/get", taskId=task))["taskId"] != "task-1"
        result = await ask(client, "tasks/result", taskId=task)
        assert result["content"][0]["text"] == "found"
        assert result["_meta"][RELATED] == {"taskId": task}
        listed = (await ask(client, "tasks/list"))["tasks"]
        assert len(listed) == 2
        assert (await ask(client, "tasks/result", taskId=listed[1]["taskId"]))["content"][0]["text"] == "found"
        assert (await ask(client, "tasks/cancel", taskId=other))["status"] == "cancelled"
        assert service.cancelled == ["task-2"]


async def test_a_task_outlives_the_upstream_session():
    script, service = scripted()
    async with gateway(script) as made, Client(made.url, mode="legacy") as client:
        await client.list_tools()
        task = await begun(client)
        script.inject(faults.expired_404(), times=1)
        assert (await ask(client, "tasks/result", taskId=task))["content"][0]["text"] == "found"
    assert service.executions["research"] == 1


@asynccontextmanager
async def two_people(tmp_path: Any, script: Script) -> AsyncIterator[tuple[Gateway, Client, Client]]:
    keys = KeyFile(tmp_path / "clients.json")
    settings = Settings(access=AccessSettings(keys, (), (Rights(),)))
    async with AsyncExitStack() as stack:
        made = await stack.enter_async_context(gateway(script, settings=settings))
        people = []
        for name in ("ann", "bob"):
            http = httpx2.AsyncClient(headers={"authorization": f"Bearer {keys.add(name)}"}, timeout=30)
            await stack.enter_async_context(http)
            transport = streamable_http_client(made.url, http_client=http)
            people.append(await stack.enter_async_context(Client(transport, mode="legacy")))
        yield made, people[0], people[1]


async def test_anothers_task_is_as_if_it_had_never_been(tmp_path):
    script, service = cancellable()
    async with two_people(tmp_path, script) as (_, ann, bob):
        await ann.list_tools()
        task = await begun(ann)
        before = len(script.requests)
        for method in ("tasks/get", "tasks/result", "tasks/cancel"):
            for name in (task, "task-1", "x" * 10_000):
                with pytest.raises(MCPError, match="Task not found"):
                    await ask(bob, method, taskId=name)
        assert len(script.requests) == before
        assert service.cancelled == []


async def test_across_eras_a_tool_that_needs_a_task_is_not_listed():
    script, service = scripted()
    async with gateway(script) as made, Client(made.url) as modern, Client(made.url, mode="legacy") as legacy:
        listed = {tool.name: tool for tool in (await legacy.list_tools()).tools}
        assert listed["a__research"].execution == types.ToolExecution(task_support="required")
        names = [tool.name for tool in (await modern.list_tools()).tools]
        assert "a__research" not in names
        assert "a__add" in names
        with pytest.raises(MCPError, match="does not declare"):
            await ask(modern, "tasks/get", taskId="x")
        # A wish for a task that no modern client can have is not passed on.
        result = await ask(modern, "tools/call", name="a__add", arguments={"a": 1, "b": 1}, task={})
        assert result["content"][0]["text"] == "2"
    assert not service.executions["research"]


@pytest.mark.parametrize("mode", ["legacy", "auto"])
async def test_a_modern_server_is_asked_for_no_task(mode):
    script = Script(era="modern")
    async with gateway(script) as made, Client(made.url, mode=mode) as client:
        await client.list_tools()
        result = await ask(client, "tools/call", name="a__add", arguments={"a": 1, "b": 1}, task={})
        assert result["content"][0]["text"] == "2"
        assert "tasks" not in [seen.rpc_method for seen in script.requests]
