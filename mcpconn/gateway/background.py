"""Background tasks of the gateway. An error in one must not end all clients' calls.

In a plain task group an exception of one task cancels all the others: the gateway would go on to accept requests and
answer each with an error. Here the exception is logged, and a task that has to run indefinitely is restarted.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import anyio
from anyio.abc import TaskGroup

from mcpconn.observe import log

AGAIN = 1.0
"""Seconds until a task that has to run indefinitely is started again."""


class Background:
    """Runs tasks beside the requests, for as long as the gateway runs."""

    def __init__(self, group: TaskGroup) -> None:
        """
        Args:
            group: The gateway's.
        """
        self._group = group

    def start_soon(self, task: Callable[..., Awaitable[Any]], *args: Any) -> None:
        """Run a task once. Its exceptions are logged."""
        self._group.start_soon(_contained, task, args)

    def keep(self, task: Callable[[], Awaitable[Any]]) -> None:
        """Run a task that goes on indefinitely. If it raises, it is started again."""
        self._group.start_soon(_kept, task)


async def _contained(task: Callable[..., Awaitable[Any]], args: tuple[Any, ...]) -> bool:
    """Whether the task came to its own end."""
    try:
        await task(*args)
    except Exception as error:
        log.error("gateway.task_failed", task=_name(task), error=type(error).__name__, exc_info=error)
        return False
    return True


async def _kept(task: Callable[[], Awaitable[Any]]) -> None:
    while not await _contained(task, ()):  # noqa: ASYNC110 - a wait between two tries, not for an event
        await anyio.sleep(AGAIN)


def _name(task: Callable[..., Any]) -> str:
    return str(getattr(task, "__qualname__", type(task).__name__))
