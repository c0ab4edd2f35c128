"""A host without an event loop: one plain function a tool, from a dict to JSON."""

from collections.abc import Callable, Mapping
from typing import Any

from mcpconn import handlers
from mcpconn.sync import SyncManager

Registry = dict[str, Callable[[dict[str, Any]], str]]


def register(manager: SyncManager) -> Registry:
    """A handler for every tool of every server."""
    registry: Registry = {}
    for server in manager:
        for tool in manager.list_tools(server, timeout=10).tools:
            registry[f"{server}.{tool.name}"] = handlers.call_tool(
                manager, server, tool.name, timeout=30
            )
    return registry


def main(servers: Mapping[str, Any]) -> str:
    with SyncManager(servers) as manager:
        tools = register(manager)
        # From any thread, and never an exception: an answer, or an error in words.
        return tools["shop.add"]({"a": 1, "b": 2})
