"""smolagents: tools of a `SyncManager`, because its agents are synchronous.

    with SyncManager(servers) as manager:
        agent = ToolCallingAgent(tools=tools(manager), model=...)

The framework's `MCPClient` breaks on mcp 2; its `Tool` class does not.
"""

from __future__ import annotations

from typing import Any

from smolagents import Tool

from mcpconn import handlers
from mcpconn.handlers import tool_results
from mcpconn.handlers.tool_results import TIMEOUT
from mcpconn.sync import SyncManager

TYPES = frozenset({"string", "boolean", "integer", "number", "array", "object", "null"})
"""The JSON types that smolagents has under the same names; all others become `any`."""


def tools(manager: SyncManager, *, timeout: float = TIMEOUT) -> list[Tool]:
    """Every tool of every server of a manager, called `SERVER__TOOL`.

    A name that is not a Python identifier is converted with underscores, because this framework's agents write code.

    Args:
        manager: Must run for as long as the agent does.
        timeout: Seconds for a tool call, including waiting and reconnecting.
    """
    return [_ManagedTool(tool) for tool in handlers.tools(manager, timeout=timeout)]


class _ManagedTool(Tool):
    skip_forward_signature_validation = True
    output_type = "string"
    name = "managed_tool"
    description = "A tool of an MCP server."
    inputs: dict[str, Any] = {}  # noqa: RUF012 - the framework reads it from the class, and each object has its own

    def __init__(self, tool: tool_results.Tool) -> None:
        self.name = tool.name.replace("-", "_")
        self.description = tool.description or tool.name
        required = tool.schema.get("required") or ()
        self.inputs = {
            name: _input(schema, name in required) for name, schema in (tool.schema.get("properties") or {}).items()
        }
        self._function = tool.function
        super().__init__()

    def forward(self, **arguments: Any) -> str:
        """Call the tool; a failure is returned as a result with a text."""
        return handlers.text_of(self._function(**arguments))


def _input(schema: dict[str, Any], required: bool) -> dict[str, Any]:
    kind = schema.get("type")
    made = {
        "type": kind if isinstance(kind, str) and kind in TYPES else "any",
        "description": schema.get("description") or schema.get("title") or "",
    }
    return made if required else {**made, "nullable": True}
