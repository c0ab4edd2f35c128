"""google-adk: the tools of a `Manager` as a toolset.

    agent = LlmAgent(model=..., name="clerk", tools=[ManagedToolset(manager)])

The framework lists the toolset at each step, so it sees changes at once.
"""

from __future__ import annotations

from typing import Any

from google.adk.agents.readonly_context import ReadonlyContext
from google.adk.tools.base_tool import BaseTool
from google.adk.tools.base_toolset import BaseToolset, ToolPredicate
from google.adk.tools.tool_context import ToolContext
from google.genai import types

from mcpconn import handlers
from mcpconn.handlers.tool_results import TIMEOUT, Tool
from mcpconn.keys import OUTCOME
from mcpconn.manager import Manager


class _ManagedTool(BaseTool):
    def __init__(self, tool: Tool) -> None:
        super().__init__(name=tool.name, description=tool.description)
        self._tool = tool

    def _get_declaration(self) -> types.FunctionDeclaration:
        return types.FunctionDeclaration(
            name=self.name, description=self.description, parameters_json_schema=self._tool.schema
        )

    async def run_async(self, *, args: dict[str, Any], tool_context: ToolContext) -> object:
        result = await self._tool.function(**args)
        if result.is_error:
            return {"error": handlers.text_of(result), "outcome": (result.meta or {}).get(OUTCOME)}
        return result.structured_content or {"result": handlers.text_of(result)}


class ManagedToolset(BaseToolset):
    """Every tool of every server of a manager, called `SERVER__TOOL`."""

    def __init__(
        self,
        manager: Manager,
        *,
        timeout: float = TIMEOUT,
        tool_filter: ToolPredicate | list[str] | None = None,
        tool_name_prefix: str | None = None,
    ) -> None:
        """
        Args:
            manager: Must run for as long as the agent does.
            timeout: Seconds for a tool call, including waiting and reconnecting.
            tool_filter: The only tools that the agent gets: their names, `SERVER__TOOL`, or a function that decides.
            tool_name_prefix: Put before each name, with an underscore.
        """
        super().__init__(tool_filter=tool_filter, tool_name_prefix=tool_name_prefix)
        self._manager = manager
        self._timeout = timeout

    async def get_tools(self, readonly_context: ReadonlyContext | None = None) -> list[BaseTool]:
        """The current tools. A server that is unreachable and was never listed has none."""
        tools = [_ManagedTool(tool) for tool in await handlers.tools(self._manager, timeout=self._timeout)]
        return [tool for tool in tools if self._is_tool_selected(tool, readonly_context)]

    async def close(self) -> None:
        """Does nothing, because the host closes its connections."""
