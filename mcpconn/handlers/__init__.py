"""Handlers for tool registries: one callable a tool, from a dict of arguments to a JSON string.

    handler = handlers.call_tool(manager, "shop", "charge", timeout=30)
    await handler({"amount": 5})        # '{"result": "charged 5"}'

They are async for a `Manager` and plain for a `SyncManager`. They wait for ready, issue and replay as every
call does, always answer within `timeout`, and never raise: `handlers.results` says what success looks like,
`handlers.errors` what failure does. A cancellation and a KeyboardInterrupt are no failures, and pass;
an InterruptedError is answered with the kind `cancelled`.
"""

from mcpconn.handlers.make import (
    AsyncHandler,
    SyncHandler,
    call_tool,
    complete,
    get_prompt,
    list_prompts,
    list_resource_templates,
    list_resources,
    list_tools,
    read_resource,
)
from mcpconn.handlers.tool_results import Tool, Tools, call_tool_result, text_of, tools

__all__ = [
    "AsyncHandler",
    "SyncHandler",
    "Tool",
    "Tools",
    "call_tool",
    "call_tool_result",
    "complete",
    "get_prompt",
    "list_prompts",
    "list_resource_templates",
    "list_resources",
    "list_tools",
    "read_resource",
    "text_of",
    "tools",
]
