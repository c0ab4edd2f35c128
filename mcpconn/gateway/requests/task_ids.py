"""The ids by which clients know tasks: the server's own, sealed to their principal, their view and their era."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from mcp import MCPError
from mcp_types import INVALID_PARAMS

from mcpconn.gateway.clients.downstream import Call, is_modern
from mcpconn.gateway.rewrite import Json
from mcpconn.seal import NotSealedHere, Sealer

LONGEST = 4096
"""Characters of an id that is looked at. A server's own ids are shorter; the length is checked before any crypto."""


class TaskIds:
    """Seals and opens the ids of one view's tasks."""

    def __init__(self, sealer: Sealer, servers: Callable[[], Sequence[str]]) -> None:
        """
        Args:
            sealer: Seals ids.
            servers: Names of the view's servers.
        """
        self._sealer = sealer
        self._servers = servers

    def public(self, call: Call, server: str, task: Mapping[str, Any]) -> Json:
        """A task as its client may see it."""
        content = json.dumps([server, task.get("taskId"), _era(call)]).encode()
        return {**task, "taskId": self._sealer.seal(content, call.client.principal.digest)}

    def opened(self, call: Call, params: Json) -> tuple[str, str]:
        """The server and its own id of the task that a request names.

        Raises:
            MCPError: there is no such task for this client.
        """
        text = str(params.get("taskId", ""))
        try:
            if len(text) > LONGEST:
                raise NotSealedHere
            server, own, era = json.loads(self._sealer.open(text, call.client.principal.digest))
        except (NotSealedHere, ValueError):
            server = own = era = ""
        if era != _era(call) or server not in self._servers() or not call.client.rights.server(server):
            raise MCPError(INVALID_PARAMS, "Failed to retrieve task: Task not found")
        return server, own


def _era(call: Call) -> str:
    return "modern" if is_modern(call.ctx) else "legacy"
