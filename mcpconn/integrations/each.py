"""The tools of a manager of either kind, made into the tools of a framework that knows both kinds of function."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from mcpconn import handlers
from mcpconn.handlers.tool_results import Tool
from mcpconn.manager import Manager
from mcpconn.sync import SyncManager

T = TypeVar("T")


def each(
    manager: Manager | SyncManager, *, plain: Callable[[Tool], T], awaited: Callable[[Tool], T], timeout: float
) -> Any:
    """A list of what is made of each tool; for a `Manager`, a coroutine of it.

    Args:
        manager: Whose tools.
        plain: Makes one of a tool whose function returns its result.
        awaited: Makes one of a tool whose function has to be awaited.
        timeout: Seconds for a tool call.
    """
    if isinstance(manager, SyncManager):
        return [plain(tool) for tool in handlers.tools(manager, timeout=timeout)]

    async def gathered() -> list[T]:
        return [awaited(tool) for tool in await handlers.tools(manager, timeout=timeout)]

    return gathered()
