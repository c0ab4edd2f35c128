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
from tests.stdio.programs import python
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


async def test_tasks_can_be_asked_and_cancelled():
    script, service = cancellable()
    async with gateway(script) as made, Client(made.url, mode="legacy") as client:
        await client.list_tools()
        task, other = await begun(client), await begun(client)
        assert "task-1" not in task
        assert (await ask(client, "tasks/get", taskId=task))["taskId"] != "task-1"
        result = await ask(client, "tasks/result", taskId=task)
        assert result["content"][0]["text"] == "found"
        assert result["_meta"][RELATED] == {"taskId": task}
        names = await listed(client)
        assert len(names) == 2
        assert (await ask(client, "tasks/result", taskId=names[1]))["content"][0]["text"] == "found"
        assert (await ask(client, "tasks/cancel", taskId=other))["status"] == "cancelled"
        assert service.cancelled == ["task-2"]


async def test_a_task_outlives_its_session():
    script, service = scripted()
    async with gateway(script) as made, Client(made.url, mode="legacy") as client:
        await client.list_tools()
        task = await begun(client)
        script.inject(faults.expired_404(), times=1)
        assert (await ask(client, "tasks/result", taskId=task))["content"][0]["text"] == "found"
    assert service.executions["research"] == 1


@asynccontextmanager
async def two_people(
    tmp_path: Any, *scripts: Script, scopes: dict[str, Any] | None = None, more: dict[str, Any] | None = None
) -> AsyncIterator[tuple[Gateway, Client, Client]]:
    keys = KeyFile(tmp_path / "clients.json")
    settings = Settings(access=AccessSettings(keys, (), (Rights(),)), scopes=scopes or {})
    async with AsyncExitStack() as stack:
        made = await stack.enter_async_context(gateway(*scripts, settings=settings, more=more))
        people = []
        for name in ("ann", "bob"):
            http = httpx2.AsyncClient(headers={"authorization": f"Bearer {keys.add(name)}"}, timeout=30)
            await stack.enter_async_context(http)
            transport = streamable_http_client(made.url, http_client=http)
            people.append(await stack.enter_async_context(Client(transport, mode="legacy")))
        yield made, people[0], people[1]


async def test_anothers_task_does_not_exist(tmp_path):
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


async def listed(client: Client) -> list[str]:
    return [task["taskId"] for task in (await ask(client, "tasks/list"))["tasks"]]


@pytest.mark.parametrize("scope", ["client", "user", "shared"])
async def test_a_list_has_the_users_own_tasks_alone(tmp_path, scope):
    # The server tells no sessions apart, as one does that sees the same credentials in all of them.
    script, _ = cancellable()
    async with two_people(tmp_path, script, scopes={"a": scope}) as (made, ann, bob):
        await ann.list_tools()
        for client in (ann, bob, ann):
            await begun(client)
        assert [len(await listed(client)) for client in (ann, bob)] == [2, 1]
        (task,) = await listed(bob)
        assert (await ask(bob, "tasks/cancel", taskId=task))["status"] == "cancelled"
        await made.replace()
        # Another process knows only what it is asked about.
        assert await listed(ann) == []
        assert (await ask(bob, "tasks/get", taskId=task))["taskId"]
        assert [len(await listed(client)) for client in (ann, bob)] == [0, 1]


CHILD = """
import json
tasks, heard = {}, []
for line in sys.stdin:
    message = json.loads(line)
    if "id" not in message:
        continue
    method, params = message["method"], message.get("params") or {}
    answer = {"jsonrpc": "2.0", "id": message["id"]}
    if method == "initialize":
        able = {"tools": {}, "tasks": {"list": {}, "cancel": {}, "requests": {"tools": {"call": {}}}}}
        answer["result"] = {"protocolVersion": "2025-11-25", "capabilities": able}
        answer["result"]["serverInfo"] = {"name": "tasks", "version": "1"}
    elif method == "tools/list":
        tool = {"name": "research", "inputSchema": {"type": "object"}, "execution": {"taskSupport": "required"}}
        answer["result"] = {"tools": [tool]}
    elif method == "tools/call":
        name = f"task-{len(tasks)}"
        tasks[name] = {"taskId": name, "status": "working", "createdAt": "2026-11-28T00:00:00Z", "ttl": 60000}
        tasks[name]["lastUpdatedAt"] = tasks[name]["createdAt"]
        answer["result"] = {"task": tasks[name]}
        print(json.dumps({"jsonrpc": "2.0", "method": "notifications/tasks/status", "params": tasks[name]}), flush=True)
    elif method == "tasks/list":
        answer["result"] = {"tasks": list(tasks.values())}
    elif method in ("tasks/get", "tasks/cancel"):
        if method == "tasks/cancel":
            tasks[params["taskId"]]["status"] = "cancelled"
        answer["result"] = tasks[params["taskId"]]
    elif method == "ping":
        answer["result"] = {}
    else:
        answer["error"] = {"code": -32601, "message": "no"}
    print(json.dumps(answer), flush=True)
raise SystemExit
"""


async def test_tasks_in_a_shared_child_are_their_users(tmp_path):
    more = {"a": python(CHILD)}
    async with two_people(tmp_path, scopes={"a": "shared"}, more=more) as (made, ann, bob):
        for client in (ann, bob):
            await client.list_tools()
        anns, bobs = await begun(ann), await begun(bob)
        assert len(await listed(ann)) == len(await listed(bob)) == 1
        for method in ("tasks/get", "tasks/result", "tasks/cancel"):
            with pytest.raises(MCPError, match="Task not found"):
                await ask(bob, method, taskId=anns)
        assert (await ask(ann, "tasks/get", taskId=anns))["status"] == "working"
        assert (await ask(bob, "tasks/cancel", taskId=bobs))["status"] == "cancelled"
        assert [name for name in made.app.manager if name != "a"] == []


async def test_anonymous_clients_of_a_child_list_their_own_tasks():
    settings = Settings(scopes={"a": "shared"})
    async with AsyncExitStack() as stack:
        made = await stack.enter_async_context(gateway(settings=settings, more={"a": python(CHILD)}))
        one, other = [await stack.enter_async_context(Client(made.url, mode="legacy")) for _ in range(2)]
        await one.list_tools()
        await begun(one)
        assert [len(await listed(client)) for client in (one, other)] == [1, 0]


async def test_across_eras_a_tool_that_needs_a_task_is_not_listed():
    script, service = scripted()
    async with gateway(script) as made, Client(made.url) as modern, Client(made.url, mode="legacy") as legacy:
        tools = {tool.name: tool for tool in (await legacy.list_tools()).tools}
        assert tools["a__research"].execution == types.ToolExecution(task_support="required")
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
async def test_modern_servers_are_asked_no_task(mode):
    script = Script(era="modern")
    async with gateway(script) as made, Client(made.url, mode=mode) as client:
        await client.list_tools()
        result = await ask(client, "tools/call", name="a__add", arguments={"a": 1, "b": 1}, task={})
        assert result["content"][0]["text"] == "2"
        assert "tasks" not in [seen.rpc_method for seen in script.requests]
