"""agent-framework: function tools of a `Manager`.

    agent = Agent(client=..., tools=await function_tools(manager))

`MCPTool(session=...)` is deprecated there, and raises for an error result: the model then reads that the function
failed, but not that it may have run.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

from agent_framework import Content, FunctionTool
from typing_extensions import TypedDict, Unpack

from mcpconn import handlers
from mcpconn.handlers.tool_results import TIMEOUT, Tool
from mcpconn.manager import Manager


class ToolOptions(TypedDict, total=False):
    """The arguments of `agent_framework.FunctionTool` that do not come from the server; they hold for every tool."""

    approval_mode: Literal["always_require", "never_require"] | None
    """Whether a person approves each call."""
    kind: str | None
    """The framework's classification of the tools."""
    max_invocations: int | None
    """How often a tool may be called in all."""
    max_invocation_exceptions: int | None
    """How often a tool may raise. mcpconn's raise nothing."""
    additional_properties: dict[str, object] | None
    """Kept with the tool, for the host."""
    result_parser: Callable[[object], str | list[Content]] | None
    """Makes what the model reads out of the text of a result."""


async def function_tools(
    manager: Manager, *, timeout: float = TIMEOUT, **options: Unpack[ToolOptions]
) -> list[FunctionTool]:
    """Every tool of every server of a manager, called `SERVER__TOOL`.

    Args:
        manager: Must run for as long as the agent does.
        timeout: Seconds for a tool call, including waiting and reconnecting.
        options: How the framework treats the tools: see `ToolOptions`.
    """
    return [_made(tool, options) for tool in await handlers.tools(manager, timeout=timeout)]


def _made(tool: Tool, options: ToolOptions) -> FunctionTool:
    async def call(**arguments: Any) -> str:
        return handlers.text_of(await tool.function(**arguments))

    return FunctionTool(name=tool.name, description=tool.description, func=call, input_model=tool.schema, **options)
