"""langchain and langgraph: structured tools of a `Manager`, or of a `SyncManager`.

    agent = create_agent(model, tools=await tools(manager))

langchain-mcp-adapters requires mcp below 2, and is not needed: a `StructuredTool` accepts the server's own JSON Schema.
The server's unchanged result is the message's `artifact`.
"""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any, overload

from langchain_core.tools import StructuredTool

from mcpconn import handlers
from mcpconn.handlers.tool_results import TIMEOUT, Tool
from mcpconn.integrations.each import each
from mcpconn.manager import Manager
from mcpconn.sync import SyncManager


@overload
def tools(manager: Manager, *, timeout: float = TIMEOUT) -> Coroutine[Any, Any, list[StructuredTool]]: ...
@overload
def tools(manager: SyncManager, *, timeout: float = TIMEOUT) -> list[StructuredTool]: ...
def tools(manager: Any, *, timeout: float = TIMEOUT) -> Any:
    """Every tool of every server of a manager, called `SERVER__TOOL`. For a `Manager`, await it.

    Args:
        manager: Must run for as long as the agent does.
        timeout: Seconds for a tool call, including waiting and reconnecting.
    """
    return each(manager, plain=_plain, awaited=_awaited, timeout=timeout)


def _awaited(tool: Tool) -> StructuredTool:
    async def call(**arguments: Any) -> tuple[str, Any]:
        result = await tool.function(**arguments)
        return handlers.text_of(result), result

    return _made(tool, coroutine=call)


def _plain(tool: Tool) -> StructuredTool:
    def call(**arguments: Any) -> tuple[str, Any]:
        result = tool.function(**arguments)
        return handlers.text_of(result), result

    return _made(tool, func=call)


def _made(tool: Tool, **function: Any) -> StructuredTool:
    return StructuredTool(
        name=tool.name,
        description=tool.description or tool.name,
        args_schema=tool.schema,
        response_format="content_and_artifact",
        **function,
    )
