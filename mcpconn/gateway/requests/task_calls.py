"""Tools that run as tasks (2025-11-25), from a legacy client to a legacy server. For the other era see `modern_tasks`.

A task's id goes out sealed (see `task_ids`): another's id is as if it had never been, and the gateway keeps nothing.
What is asked about a task goes to the connection that the client's calls to that server use.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence

from mcpconn.connection import Connection
from mcpconn.errors import McpConnError
from mcpconn.gateway.clients.downstream import Call, Downstream
from mcpconn.gateway.requests.task_ids import TaskIds
from mcpconn.gateway.rewrite import RELATED_TASK, Json

PAGES = 100
"""Pages read of one server's tasks."""


class TaskCalls:
    """The task methods of one view."""

    def __init__(
        self,
        ids: TaskIds,
        *,
        lister: Callable[[str, Downstream], Connection],
        forward: Callable[[Call, str, str, Json], Awaitable[Json]],
        servers: Callable[[], Sequence[str]],
    ) -> None:
        """
        Args:
            ids: Seals and opens the ids of tasks.
            lister: The connection whose lists a client sees.
            forward: Sends a request to a server, and returns its result as the client may see it.
            servers: Names of the view's servers.
        """
        self._ids = ids
        self._lister = lister
        self._forward = forward
        self._servers = servers
        self.handlers: dict[str, Callable[[Call, Json], Awaitable[Json]]] = {
            "tasks/get": self._get,
            "tasks/result": self._result,
            "tasks/cancel": self._cancel,
            "tasks/list": self._list,
        }

    def receipt(self, call: Call, sent: Json, answer: Json) -> Json:
        """The answer to a call, with the id by which its client knows the task, if it has become one."""
        task = answer.get("task") if "task" in sent else None
        return {**answer, "task": self._ids.public(call, call.server, task)} if isinstance(task, Mapping) else answer

    async def _get(self, call: Call, params: Json) -> Json:
        server, own = self._ids.opened(call, params)
        return self._ids.public(call, server, await self._forward(call, server, "tasks/get", {"taskId": own}))

    async def _cancel(self, call: Call, params: Json) -> Json:
        server, own = self._ids.opened(call, params)
        return self._ids.public(call, server, await self._forward(call, server, "tasks/cancel", {"taskId": own}))

    async def _result(self, call: Call, params: Json) -> Json:
        server, own = self._ids.opened(call, params)
        # What the server asks while its result is waited for belongs to the task as well.
        call.task = str(params["taskId"])
        answer = await self._forward(call, server, "tasks/result", {"taskId": own})
        return {**answer, "_meta": {**(answer.get("_meta") or {}), RELATED_TASK: {"taskId": call.task}}}

    async def _list(self, call: Call, params: Json) -> Json:
        """All tasks, in one page."""
        found: list[Json] = []
        for server in self._servers():
            if not call.client.rights.server(server):
                continue
            try:
                tasks = self._lister(server, call.client).server_capabilities.tasks
            except McpConnError:
                # The server is unreachable, and its tasks are unknown.
                continue
            if tasks is not None and tasks.list is not None:
                found += await self._listed(call, server)
        return {"tasks": found}

    async def _listed(self, call: Call, server: str) -> list[Json]:
        found: list[Json] = []
        sent: Json = {}
        for _ in range(PAGES):
            page = await self._forward(call, server, "tasks/list", sent)
            found += [self._ids.public(call, server, task) for task in page.get("tasks", ())]
            if not page.get("nextCursor"):
                break
            sent = {"cursor": page["nextCursor"]}
        return found
