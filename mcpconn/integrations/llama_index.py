"""llama-index: function tools of a `Manager`.

    agent = FunctionAgent(tools=await function_tools(manager), llm=...)

`McpToolSpec(client=Session(connection))` works, too; it shows the model a Python repr of the result, and gives a
failed call no words of its own.
"""

from __future__ import annotations

from typing import Any

from llama_index.core.tools import FunctionTool, ToolMetadata

from mcpconn import handlers
from mcpconn.handlers.tool_results import TIMEOUT, Tool
from mcpconn.manager import Manager


async def function_tools(manager: Manager, *, timeout: float = TIMEOUT) -> list[FunctionTool]:
    """Every tool of every server of a manager, called `SERVER__TOOL`, as it is now.

    Args:
        manager: Must run for as long as the agent does.
        timeout: Seconds for a tool call, waiting and reconnecting included.
    """
    return [_made(tool) for tool in await handlers.tools(manager, timeout=timeout)]


class _Metadata(ToolMetadata):
    """A schema as the server wrote it, where the framework would want a pydantic model."""

    schema: dict[str, Any]

    def get_parameters_dict(self) -> dict[str, Any]:
        return self.schema


def _made(tool: Tool) -> FunctionTool:
    async def call(**arguments: Any) -> str:
        return handlers.text_of(await tool.function(**arguments))

    metadata = _Metadata(description=tool.description or tool.name, name=tool.name, fn_schema=None)
    metadata.schema = tool.schema
    return FunctionTool(async_fn=call, metadata=metadata)
