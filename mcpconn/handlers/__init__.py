"""Handlers for tool registries: one callable per tool, which takes a dict of arguments and returns a JSON string.

    handler = handlers.call_tool(manager, "shop", "charge", timeout=30)
    await handler({"amount": 5})        # '{"result": "charged 5"}'

They are async for a `Manager` and plain for a `SyncManager`. They wait for ready, issue and replay as every call does,
always return within `timeout`, and never raise: `handlers.results` describes the result of a successful call,
`handlers.wording` that of a failed one. A cancellation and a KeyboardInterrupt are not failures, and are raised; an
InterruptedError is reported with the kind `cancelled`.
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
