"""haystack: tools of a `Manager`, for `Agent.run_async`, or of a `SyncManager`, for `Agent.run`.

agent = Agent(chat_generator=..., tools=await tools(manager))
"""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any, overload

from haystack.tools import Tool

from mcpconn import handlers
from mcpconn.handlers import tool_results
from mcpconn.handlers.tool_results import TIMEOUT
from mcpconn.integrations.each import each
from mcpconn.manager import Manager
from mcpconn.sync import SyncManager


@overload
def tools(manager: Manager, *, timeout: float = TIMEOUT) -> Coroutine[Any, Any, list[Tool]]: ...
@overload
def tools(manager: SyncManager, *, timeout: float = TIMEOUT) -> list[Tool]: ...
def tools(manager: Any, *, timeout: float = TIMEOUT) -> Any:
    """Every tool of every server of a manager, called `SERVER__TOOL`. For a `Manager`, await it.

    Args:
        manager: Must run for as long as the agent does.
        timeout: Seconds for a tool call, including waiting and reconnecting.
    """
    return each(manager, plain=_plain, awaited=_awaited, timeout=timeout)


def _awaited(tool: tool_results.Tool) -> Tool:
    async def call(**arguments: Any) -> str:
        return handlers.text_of(await tool.function(**arguments))

    return Tool(name=tool.name, description=tool.description or tool.name, parameters=tool.schema, async_function=call)


def _plain(tool: tool_results.Tool) -> Tool:
    def call(**arguments: Any) -> str:
        return handlers.text_of(tool.function(**arguments))

    return Tool(name=tool.name, description=tool.description or tool.name, parameters=tool.schema, function=call)
