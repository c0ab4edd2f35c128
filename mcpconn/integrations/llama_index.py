"""llama-index: function tools of a `Manager`.

    agent = FunctionAgent(tools=await function_tools(manager), llm=...)

`McpToolSpec(client=Session(connection))` works as well, but it shows the model a Python repr of the result, and does
not describe a failed call.
"""

from __future__ import annotations

from typing import Any

from llama_index.core.tools import FunctionTool, ToolMetadata

from mcpconn import handlers
from mcpconn.handlers.tool_results import TIMEOUT, Tool
from mcpconn.manager import Manager


async def function_tools(manager: Manager, *, timeout: float = TIMEOUT) -> list[FunctionTool]:
    """Every tool of every server of a manager, called `SERVER__TOOL`.

    Args:
        manager: Must run for as long as the agent does.
        timeout: Seconds for a tool call, including waiting and reconnecting.
    """
    return [_made(tool) for tool in await handlers.tools(manager, timeout=timeout)]


class _Metadata(ToolMetadata):
    """The server's own schema, in place of the pydantic model that the framework expects."""

    schema: dict[str, Any]

    def get_parameters_dict(self) -> dict[str, Any]:
        return self.schema


def _made(tool: Tool) -> FunctionTool:
    async def call(**arguments: Any) -> str:
        return handlers.text_of(await tool.function(**arguments))

    metadata = _Metadata(description=tool.description or tool.name, name=tool.name, fn_schema=None)
    metadata.schema = tool.schema
    return FunctionTool(async_fn=call, metadata=metadata)
