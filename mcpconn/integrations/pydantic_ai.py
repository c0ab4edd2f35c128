"""pydantic-ai: the tools of a `Manager` as a toolset.

    agent = Agent("openai:gpt-5", toolsets=[ManagedToolset(manager)])

The framework lists the toolset before each step of a run, so it sees changes at once. A failed call is a tool result
with a text: the framework's own toolset raises, which ends the run or makes the model call again.
"""

from __future__ import annotations

from typing import Any

from pydantic_ai import RunContext
from pydantic_ai.tools import ToolDefinition
from pydantic_ai.toolsets import AbstractToolset, ToolsetTool
from pydantic_core import SchemaValidator, core_schema

from mcpconn import handlers
from mcpconn.handlers.tool_results import TIMEOUT, Tool
from mcpconn.manager import Manager

# The server validates the arguments and reports errors in them.
_ANY = SchemaValidator(core_schema.any_schema())


class ManagedToolset(AbstractToolset[Any]):
    """Every tool of every server of a manager, called `SERVER__TOOL`."""

    def __init__(self, manager: Manager, *, timeout: float = TIMEOUT, id: str | None = None) -> None:  # noqa: A002
        """
        Args:
            manager: Must run for as long as the agent does.
            timeout: Seconds for a tool call, including waiting and reconnecting.
            id: The id of the toolset, if it needs one (durable execution does).
        """
        self._manager = manager
        self._timeout = timeout
        self._id = id
        self._known: dict[str, Tool] = {}

    @property
    def id(self) -> str | None:
        """The given id."""
        return self._id

    async def get_tools(self, ctx: RunContext[Any]) -> dict[str, ToolsetTool[Any]]:
        """The current tools. A server that is unreachable and was never listed has none."""
        self._known = {tool.name: tool for tool in await handlers.tools(self._manager, timeout=self._timeout)}
        return {
            name: ToolsetTool(
                toolset=self,
                tool_def=ToolDefinition(
                    name=name, description=tool.description, parameters_json_schema=dict(tool.schema)
                ),
                max_retries=0,
                args_validator=_ANY,
            )
            for name, tool in self._known.items()
        }

    async def call_tool(
        self, name: str, tool_args: dict[str, Any], ctx: RunContext[Any], tool: ToolsetTool[Any]
    ) -> Any:
        """Call a tool; a failure is returned as a result with a text."""
        result = await self._known[name].function(**tool_args)
        if result.is_error or result.structured_content is None:
            return handlers.text_of(result)
        return result.structured_content
