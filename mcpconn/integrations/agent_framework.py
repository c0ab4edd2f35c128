"""agent-framework: function tools of a `Manager`.

    agent = Agent(client=..., tools=await function_tools(manager))

`MCPTool(session=...)` is deprecated there, and raises for an error result: the model then reads that the function
failed, but not that it may have run.
"""

from __future__ import annotations

from typing import Any

from agent_framework import FunctionTool

from mcpconn import handlers
from mcpconn.handlers.tool_results import TIMEOUT, Tool
from mcpconn.manager import Manager


async def function_tools(manager: Manager, *, timeout: float = TIMEOUT, **options: Any) -> list[FunctionTool]:
    """Every tool of every server of a manager, called `SERVER__TOOL`.

    Args:
        manager: Must run for as long as the agent does.
        timeout: Seconds for a tool call, including waiting and reconnecting.
        options: Arguments of `agent_framework.FunctionTool`, such as `approval_mode`.
    """
    return [_made(tool, options) for tool in await handlers.tools(manager, timeout=timeout)]


def _made(tool: Tool, options: dict[str, Any]) -> FunctionTool:
    async def call(**arguments: Any) -> str:
        return handlers.text_of(await tool.function(**arguments))

    return FunctionTool(name=tool.name, description=tool.description, func=call, input_model=tool.schema, **options)
