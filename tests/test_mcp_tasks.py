"""Tools that run as tasks (2025-11-25): called so, awaited by asking, and not lost with a connection. Real sockets."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import anyio
import pytest
from mcp import MCPError

from mcpconn import CallTimeout, Connection, FailureKind, OutcomeUnknown, State
from mcpconn.testing import HttpServer, Script, ScriptedTool, default_tools, faults
from mcpconn.testing.scripted.records import SessionState
from mcpconn.testing.scripted.service import Service
from mcpconn.testing.scripted.steps import Message, result_message
from mcpconn.testing.scripted.streams import Item
from mcpconn.testing.scripted.tools import RpcError
from tests.support import SAFETY, UNFINISHED_STREAMS, text_of

pytestmark = [pytest.mark.anyio, UNFINISHED_STREAMS]


class TaskService(Service):
    """Has a tool `research` that runs as a task only, for so many questions."""

    questions = 2
    fails: str | None = None
    declared = True

    def begin(self) -> None:
        self.left: dict[str, int] = {}

    def items(self, message: Message, state: SessionState) -> Iterator[Item]:
        request_id, method, params = message["id"], message["method"], message.get("params") or {}
        if method == "tools/call" and params.get("name") == "research":
            if "task" not in params:
                raise RpcError(-32601, "Method not found: research runs as a task only")
            self.executions["research"] += 1
            task = f"task-{self.executions['research']}"
            self.left[task] = self.questions
            return iter([result_message(request_id, {"task": self.described(task)})])
        if method in ("tasks/get", "tasks/result"):
            task = str(params["taskId"])
            if task not in self.left:
                raise RpcError(-32602, "Failed to retrieve task: Task not found")
            if method == "tasks/get":
                self.left[task] -= 1
                return iter([result_message(request_id, self.described(task))])
            if self.fails is not None:
                raise RpcError(-32050, self.fails)
            return iter([result_message(request_id, {"content": [{"type": "text", "text": "found"}]})])
        return self.told(super().items(message, state))

    def told(self, items: Iterator[Item]) -> Iterator[Item]:
        for item in items:
            if isinstance(item, dict):
                result = item.get("result") or {}
                for tool in result.get("tools", ()):
                    if tool["name"] == "research":
                        tool["execution"] = {"taskSupport": "required"}
                if self.declared and "capabilities" in result:
                    result["capabilities"]["tasks"] = {"requests": {"tools": {"call": {}}}}
            yield item

    def described(self, task: str) -> Message:
        over = "failed" if self.fails is not None else "completed"
        return {
            "taskId": task,
            "status": "working" if self.left[task] > 0 else over,
            "createdAt": "2026-11-28T00:00:00Z",
            "lastUpdatedAt": "2026-11-28T00:00:00Z",
            "ttl": 60000,
            "pollInterval": 50,
        }


def scripted() -> tuple[Script, TaskService]:
    research = ScriptedTool("research", lambda arguments: "never", {}, "Not idempotent; takes long.")
    script = Script(tools=(*default_tools(), research), get_stream="405")
    service = TaskService(script.service.catalog, script.service.newest_version)
    service.begin()
    script.service = service
    return script, service


@pytest.fixture(params=["direct", "httpx"])
def engine(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.mark.parametrize("listed", [True, False])
async def test_a_tool_that_needs_a_task_gets_one(listed: bool, engine: str) -> None:
    script, service = scripted()
    with anyio.fail_after(SAFETY):
        async with HttpServer(script) as server, Connection({"url": server.url, "engine": engine}) as connection:
            if listed:
                await connection.list_tools()
            assert text_of(await connection.call_tool("research", {"topic": "tea"})) == "found"
            assert text_of(await connection.call_tool("add", {"a": 1, "b": 1})) == "2"
            # Refused once, if nothing was known of it: before anything ran.
            assert service.executions["research"] == 1
            assert script.count("tools/call") == (2 if listed else 3)


@pytest.mark.parametrize("trouble", ["cut", "forgotten", "both"])
async def test_the_outcome_outlives_the_session_that_the_task_was_made_on(trouble: str, engine: str) -> None:
    script, service = scripted()
    service.questions = 4
    with anyio.fail_after(SAFETY):
        async with HttpServer(script) as server, Connection({"url": server.url, "engine": engine}) as connection:
            await connection.list_tools()
            asked = 0

            def at_the_second_question(received: Any) -> None:
                nonlocal asked
                asked += received.rpc_method == "tasks/get"
                if asked == 2 and received.rpc_method == "tasks/get":
                    if trouble in ("forgotten", "both"):
                        script.forget_sessions()
                    if trouble in ("cut", "both"):
                        script.inject(faults.drop_before(), method="tasks/get", times=2)

            script.on_request = at_the_second_question
            assert text_of(await connection.call_tool("research")) == "found"
            assert service.executions["research"] == 1


async def test_a_server_that_is_restarted_in_the_meantime_is_asked_again() -> None:
    script, service = scripted()
    service.questions = 3
    with anyio.fail_after(SAFETY):
        async with HttpServer(script) as server, Connection(server.url) as connection:
            await connection.list_tools()
            async with anyio.create_task_group() as group:
                began = anyio.Event()
                script.on_request = lambda received: began.set() if received.rpc_method == "tasks/get" else None

                async def restart() -> None:
                    await began.wait()
                    await server.stop()
                    script.forget_sessions()
                    await server.start()

                group.start_soon(restart)
                assert text_of(await connection.call_tool("research")) == "found"
            assert service.executions["research"] == 1
            assert connection.epoch == 2


async def test_a_server_that_has_forgotten_the_task_leaves_the_outcome_unknown() -> None:
    script, service = scripted()
    service.questions = 5
    with anyio.fail_after(SAFETY):
        async with HttpServer(script) as server, Connection(server.url) as connection:
            await connection.list_tools()

            def forget(received: Any) -> None:
                if received.rpc_method == "tasks/get":
                    service.left.clear()
                    script.forget_sessions()

            script.on_request = forget
            with pytest.raises(OutcomeUnknown, match="does not know the task any more") as caught:
                await connection.call_tool("research")
            assert caught.value.outcome == "unknown"
            assert service.executions["research"] == 1
            script.on_request = None
            assert text_of(await connection.call_tool("add", {"a": 1, "b": 1})) == "2"
            assert connection.state is State.READY


async def test_a_failed_task_is_its_tools_error() -> None:
    script, service = scripted()
    service.fails = "no tea"
    with anyio.fail_after(SAFETY):
        async with HttpServer(script) as server, Connection(server.url) as connection:
            await connection.list_tools()
            with pytest.raises(MCPError, match="no tea") as caught:
                await connection.call_tool("research")
            assert caught.value.code == -32050
            assert type(caught.value) is MCPError


async def test_a_task_out_of_time_may_be_running() -> None:
    script, service = scripted()
    service.questions = 1000
    with anyio.fail_after(SAFETY):
        async with HttpServer(script) as server, Connection(server.url) as connection:
            await connection.list_tools()
            with pytest.raises(CallTimeout) as caught:
                await connection.call_tool("research", timeout=0.3)
            assert caught.value.outcome == "unknown"
            assert caught.value.failure.kind is FailureKind.TIMEOUT


async def test_a_cut_creation_is_not_repeated() -> None:
    script, service = scripted()
    with anyio.fail_after(SAFETY):
        async with HttpServer(script) as server, Connection(server.url) as connection:
            await connection.list_tools()
            script.inject(faults.drop_after())
            with pytest.raises(OutcomeUnknown):
                await connection.call_tool("research")
            assert service.executions["research"] == 1


async def test_a_server_without_tasks_is_sent_none() -> None:
    script, service = scripted()
    service.declared = False
    with anyio.fail_after(SAFETY):
        async with HttpServer(script) as server, Connection(server.url) as connection:
            with pytest.raises(MCPError, match="runs as a task only"):
                await connection.call_tool("research")
            assert service.executions["research"] == 0


@pytest.mark.parametrize("limit", [{"timeout": 0.3}, {"max_total_timeout": 0.3}], ids=["timeout", "total"])
async def test_the_search_for_a_task_has_the_calls_deadline(limit: Any) -> None:
    script, service = scripted()
    with anyio.fail_after(SAFETY):
        async with HttpServer(script) as server, Connection(server.url) as connection:
            # Whether the refusal means that a task is needed is listed; this server does not list.
            script.inject(faults.hang(), method="tools/list", times=None)
            began = anyio.current_time()
            with pytest.raises(MCPError, match="runs as a task only"):
                await connection.call_tool("research", **limit)
            assert anyio.current_time() - began < 5.0
            assert service.executions["research"] == 0
