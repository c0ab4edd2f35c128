"""Tools that run as tasks of the 2026-07-28 protocol, from a modern client to a modern server.

They are an extension (`io.modelcontextprotocol/tasks`, SEP-2663). A client declares it with each request, and then the
server may answer a call with a task, whose state and result the client asks for. The gateway keeps no state: a task's
id is sealed (see `task_ids`), so it stays valid after a restart, and is invalid for another user.

What is declared to the server is what the client has declared. The SDK says it with every request of a connection, so
clients that take tasks use another connection than those that do not; a modern server keeps no session that could be
told apart by that. A child that all clients share is one connection, and is told that tasks are not supported.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

from mcp import MCPError
from mcp_types import INVALID_PARAMS, MISSING_REQUIRED_CLIENT_CAPABILITY

from mcpconn.gateway.clients.downstream import TASKS, Call
from mcpconn.gateway.requests.task_ids import TaskIds
from mcpconn.gateway.rewrite import Json, to_server


class ModernTasks:
    """The task methods of one view, for modern clients."""

    def __init__(self, ids: TaskIds, forward: Callable[[Call, str, str, Json], Awaitable[Json]]) -> None:
        """
        Args:
            ids: Seals and opens the ids of tasks.
            forward: Sends a request to a server, and returns its result as the client may see it.
        """
        self._ids = ids
        self._forward = forward
        self.handlers: dict[str, Callable[[Call, Json], Awaitable[Json]]] = {
            "tasks/get": self._get,
            "tasks/update": self._update,
            "tasks/cancel": self._cancel,
        }

    def receipt(self, call: Call, sent: Json, answer: Json) -> Json:
        """The answer to a call, with the id by which its client knows the task, if it has become one."""
        return self._ids.public(call, call.server, answer) if answer.get("resultType") == "task" else answer

    async def _get(self, call: Call, params: Json) -> Json:
        server, own = self._opened(call, params)
        return self._ids.public(call, server, await self._forward(call, server, "tasks/get", _sent(params, own)))

    async def _update(self, call: Call, params: Json) -> Json:
        server, own = self._opened(call, params)
        if not isinstance(params.get("inputResponses"), Mapping):
            raise MCPError(INVALID_PARAMS, "tasks/update needs inputResponses")
        return await self._forward(call, server, "tasks/update", _sent(params, own))

    async def _cancel(self, call: Call, params: Json) -> Json:
        server, own = self._opened(call, params)
        return await self._forward(call, server, "tasks/cancel", _sent(params, own))

    def _opened(self, call: Call, params: Json) -> tuple[str, str]:
        if not call.client.tasks:
            needed: Json = {"requiredCapabilities": {"extensions": {TASKS: {}}}}
            raise MCPError(MISSING_REQUIRED_CLIENT_CAPABILITY, f"The request does not declare {TASKS}", needed)
        return self._ids.opened(call, params)


def _sent(params: Json, own: str) -> Json:
    return {**to_server(params), "taskId": own}
