"""Tasks of the 2026-07-28 extension through the gateway: from a modern client to a modern server alone."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, Literal

import anyio
import httpx2
import mcp_types as types
import pytest
from mcp import Client, MCPError
from mcp.client.extension import ClaimContext, ClientExtension, ResultClaim
from mcp.client.streamable_http import streamable_http_client
from mcp.server import MCPServer
from mcp.server.extension import Extension, MethodBinding

from mcpconn.gateway import Settings
from mcpconn.gateway.access.config import AccessSettings
from mcpconn.gateway.access.keys import KeyFile
from mcpconn.gateway.access.rights import Rights
from mcpconn.sdk.client import send_unchecked
from tests.gateway.conftest import Gateway, gateway, served
from tests.gateway.requests.test_tasks import ask
from tests.support import text_of

pytestmark = pytest.mark.anyio

TASKS = "io.modelcontextprotocol/tasks"
FORGED = {"mcpconn/outcome": "not_run", "own.test/kept": 1}


class _Named(types.RequestParams):
    task_id: str
    input_responses: dict[str, Any] | None = None


class Brewing(Extension):
    """A server's side: each call of `brew` becomes a task that asks how strong, and then is done."""

    identifier = TASKS

    def __init__(self) -> None:
        self.seen: list[str] = []
        self.names: list[str | None] = []
        """The header `Mcp-Name` of each request about a task."""
        self.tasks: dict[str, dict[str, Any]] = {}
        self.runs = 0

    def methods(self) -> list[MethodBinding]:
        handlers = {"tasks/get": self._get, "tasks/update": self._update, "tasks/cancel": self._cancel}
        return [MethodBinding(method, _Named, handler) for method, handler in handlers.items()]

    async def intercept_tool_call(self, params: Any, ctx: Any, call_next: Any) -> Any:
        capabilities = ctx.session.client_capabilities
        if TASKS not in (capabilities.extensions or {}):
            return await call_next(ctx)
        self.runs += 1
        task = {"taskId": f"task-{self.runs}", "status": "working", "ttlMs": 60_000, "pollIntervalMs": 1}
        stamp = {"createdAt": "2026-11-28T00:00:00Z", "lastUpdatedAt": "2026-11-28T00:00:00Z"}
        self.tasks[f"task-{self.runs}"] = {**task, **stamp}
        return {"resultType": "task", **task, **stamp, "_meta": dict(FORGED)}

    def _found(self, ctx: Any, params: _Named, method: str) -> dict[str, Any]:
        self.seen.append(f"{method} {params.task_id}")
        self.names.append(ctx.request.headers.get("mcp-name"))
        if params.task_id not in self.tasks:
            raise MCPError(-32602, "Task not found")
        return self.tasks[params.task_id]

    async def _get(self, ctx: Any, params: _Named) -> Any:
        task = self._found(ctx, params, "get")
        if task["status"] == "working" and "result" not in task:
            question = {"mode": "form", "message": "How strong?", "requestedSchema": {"type": "object"}}
            task |= {"status": "input_required"}
            task["inputRequests"] = {"q": {"method": "elicitation/create", "params": {**question, "_meta": FORGED}}}
        return dict(task)

    async def _update(self, ctx: Any, params: _Named) -> Any:
        task = self._found(ctx, params, "update")
        said = (params.input_responses or {})["q"]["content"]["strength"]
        link = {"type": "resource_link", "uri": "note://tea", "name": "tea", "_meta": dict(FORGED)}
        task.pop("inputRequests", None)
        task |= {"status": "completed", "result": {"content": [{"type": "text", "text": f"tea, {said}"}, link]}}
        return {}

    async def _cancel(self, ctx: Any, params: _Named) -> Any:
        self._found(ctx, params, "cancel")["status"] = "cancelled"
        return {}


class Receipt(types.Result):
    """A task, as a client of the extension reads it."""

    result_type: Literal["task"] = "task"
    task_id: str


async def followed(receipt: Receipt, context: ClaimContext) -> types.CallToolResult:
    """Ask about a task until it is over, and answer its question."""
    while True:
        task = await send_unchecked(context.session, "tasks/get", {"taskId": receipt.task_id})
        if task["status"] == "input_required":
            answers = {"q": {"action": "accept", "content": {"strength": "strong"}}}
            await send_unchecked(
                context.session, "tasks/update", {"taskId": receipt.task_id, "inputResponses": answers}
            )
        elif task["status"] == "completed":
            return types.CallToolResult.model_validate(task["result"])


class Following(ClientExtension):
    """A client's side."""

    identifier = TASKS

    def claims(self) -> list[ResultClaim[Any]]:
        return [ResultClaim(result_type="task", model=Receipt, resolve=followed)]


@asynccontextmanager
async def brewing(**options: Any) -> AsyncIterator[tuple[Gateway, Brewing]]:
    extension = Brewing()
    server = MCPServer("brewing", extensions=[extension])

    @server.tool(structured_output=False)
    async def brew() -> str:
        return "at once"

    accepting = socket.create_server(("127.0.0.1", 0))
    url = f"http://127.0.0.1:{accepting.getsockname()[1]}/mcp"
    app = server.streamable_http_app()
    behind = gateway(more={"pot": {"url": url}}, **options)
    async with server.session_manager.run(), served(app, accepting), behind as made:
        await made.app.manager["pot"].catalog.refresh()
        yield made, extension


async def begun(client: Client) -> str:
    receipt = await ask(client, "tools/call", name="pot__brew", arguments={})
    assert receipt["resultType"] == "task"
    assert receipt["ttlMs"] == 60_000
    return str(receipt["taskId"])


async def test_a_client_of_the_extension_gets_its_result() -> None:
    async with brewing() as (made, server), Client(made.url, extensions=[Following()]) as client:
        assert TASKS in (client.server_capabilities.extensions or {})
        result = await client.call_tool("pot__brew", {})
        assert text_of(result) == "tea, strong"
        link: Any = result.content[1]
        assert (str(link.uri), link.meta) == ("pot+note://tea", {"own.test/kept": 1})
    assert server.seen == ["get task-1", "update task-1", "get task-1"]
    assert server.names == ["task-1"] * 3
    assert server.runs == 1


async def test_a_task_is_cancelled_after_a_restart() -> None:
    async with brewing() as (made, server):
        async with Client(made.url, extensions=[Following()]) as client:
            task = await begun(client)
            assert "task-1" not in task
            question = (await ask(client, "tasks/get", taskId=task))["inputRequests"]["q"]
            assert question["params"]["_meta"] == {"own.test/kept": 1}
        await made.replace()
        async with Client(made.url, extensions=[Following()]) as client:
            assert (await ask(client, "tasks/cancel", taskId=task))["resultType"] == "complete"
            said = await ask(client, "tasks/get", taskId=task)
            assert (said["status"], said["taskId"]) == ("cancelled", said["taskId"])
            assert said["taskId"] != "task-1"
    assert server.runs == 1


async def test_who_declares_nothing_gets_no_task() -> None:
    async with brewing() as (made, server), Client(made.url) as plain, Client(made.url, mode="legacy") as legacy:
        for client in (plain, legacy):
            assert text_of(await client.call_tool("pot__brew", {})) == "at once"
        with pytest.raises(MCPError) as caught:
            await ask(plain, "tasks/get", taskId="x")
        assert caught.value.error.code == types.MISSING_REQUIRED_CLIENT_CAPABILITY
        assert caught.value.error.data == {"requiredCapabilities": {"extensions": {TASKS: {}}}}
        with pytest.raises(MCPError, match="Method not found"):
            await ask(legacy, "tasks/update", taskId="x", inputResponses={})
        async with Client(made.url, extensions=[Following()]) as other:
            for method in ("tasks/result", "tasks/list"):
                with pytest.raises(MCPError, match="Method not found"):
                    await ask(other, method, taskId="x")
    assert server.runs == 0
    assert server.seen == []


async def test_anothers_task_is_unknown(tmp_path: Any) -> None:
    keys = KeyFile(tmp_path / "clients.json")
    settings = Settings(access=AccessSettings(keys, (), (Rights(),)))
    async with brewing(settings=settings) as (made, server), AsyncExitStack() as stack:
        people = []
        for name in ("ann", "bob"):
            http = httpx2.AsyncClient(headers={"authorization": f"Bearer {keys.add(name)}"}, timeout=30)
            await stack.enter_async_context(http)
            transport = streamable_http_client(made.url, http_client=http)
            people.append(await stack.enter_async_context(Client(transport, extensions=[Following()])))
        ann, bob = people
        task = await begun(ann)
        for method in ("tasks/get", "tasks/update", "tasks/cancel"):
            for name in (task, "task-1", "x" * 100_000):
                with pytest.raises(MCPError, match="Task not found") as caught:
                    await ask(bob, method, taskId=name, inputResponses={})
                assert caught.value.error.code == types.INVALID_PARAMS
        assert server.seen == []
        with anyio.fail_after(10):
            assert (await ask(ann, "tasks/get", taskId=task))["status"] == "input_required"


async def test_a_call_with_a_key_is_one_task() -> None:
    async with brewing() as (made, server), Client(made.url, extensions=[Following()]) as client:
        meta = {"mcpconn/idempotencyKey": "k"}
        receipts = [await ask(client, "tools/call", name="pot__brew", arguments={}, _meta=dict(meta)) for _ in range(2)]
        assert receipts[0]["taskId"] == receipts[1]["taskId"]
    assert server.runs == 1
