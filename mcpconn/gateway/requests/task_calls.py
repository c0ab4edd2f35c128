"""Tools that run as tasks (2025-11-25), from a legacy client to a legacy server. For the other era see `modern_tasks`.

A task's id goes out sealed (see `task_ids`): another's id is as if it had never been. What is asked about a task goes
to the connection that the client's calls to that server use.

A server lists the tasks of whom it takes for one user: all clients of a shared connection, and all users of the
gateway if it sees only the gateway's credentials. So a client's list has only the tasks that were given to this client,
as far as this process knows; asked about by its id, a task from before a restart is known again.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from mcpconn.connection import Connection
from mcpconn.errors import McpConnError
from mcpconn.gateway.clients.downstream import Call, Downstream
from mcpconn.gateway.principals import ANONYMOUS
from mcpconn.gateway.requests.task_ids import TaskIds
from mcpconn.gateway.rewrite import RELATED_TASK, Json

PAGES = 100
"""Pages read of one server's tasks."""
KNOWN = 10_000
"""Tasks whose owner is remembered, some 300 bytes each. What exceeds this is missing in lists, the oldest first."""


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
        # By server and its own id, whose task it is.
        self._owners: OrderedDict[tuple[str, str], str] = OrderedDict()
        self.handlers: dict[str, Callable[[Call, Json], Awaitable[Json]]] = {
            "tasks/get": self._get,
            "tasks/result": self._result,
            "tasks/cancel": self._cancel,
            "tasks/list": self._list,
        }

    def receipt(self, call: Call, sent: Json, answer: Json) -> Json:
        """The answer to a call, with the id by which its client knows the task, if it has become one."""
        task = answer.get("task") if "task" in sent else None
        if not isinstance(task, Mapping):
            return answer
        self._note(call, call.server, task.get("taskId"))
        return {**answer, "task": self._ids.public(call, call.server, task)}

    def _opened(self, call: Call, params: Json) -> tuple[str, str]:
        server, own = self._ids.opened(call, params)
        # Its id proves that it is this client's.
        self._note(call, server, own)
        return server, own

    def _note(self, call: Call, server: str, own: Any) -> None:
        key = server, str(own)
        self._owners[key] = _owner(call.client)
        self._owners.move_to_end(key)
        while len(self._owners) > KNOWN:
            self._owners.popitem(last=False)

    def _is_of(self, client: Downstream, server: str, task: Mapping[str, Any]) -> bool:
        return self._owners.get((server, str(task.get("taskId")))) == _owner(client)

    async def _get(self, call: Call, params: Json) -> Json:
        server, own = self._opened(call, params)
        return self._ids.public(call, server, await self._forward(call, server, "tasks/get", {"taskId": own}))

    async def _cancel(self, call: Call, params: Json) -> Json:
        server, own = self._opened(call, params)
        return self._ids.public(call, server, await self._forward(call, server, "tasks/cancel", {"taskId": own}))

    async def _result(self, call: Call, params: Json) -> Json:
        server, own = self._opened(call, params)
        # What the server asks while its result is waited for belongs to the task as well.
        call.task = str(params["taskId"])
        answer = await self._forward(call, server, "tasks/result", {"taskId": own})
        return {**answer, "_meta": {**(answer.get("_meta") or {}), RELATED_TASK: {"taskId": call.task}}}

    async def _list(self, call: Call, params: Json) -> Json:
        """All tasks of the client, in one page."""
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
            own = [task for task in page.get("tasks", ()) if self._is_of(call.client, server, task)]
            found += [self._ids.public(call, server, task) for task in own]
            if not page.get("nextCursor"):
                break
            sent = {"cursor": page["nextCursor"]}
        return found


def _owner(client: Downstream) -> str:
    """Whose tasks a client lists: its user's, or those of its session if no user is known."""
    return f"session {client.sid}" if client.principal == ANONYMOUS else f"principal {client.principal.digest}"
