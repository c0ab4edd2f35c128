"""Background tasks of a connection: none outlives it, and their exceptions do not end it."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

import anyio
from anyio.abc import TaskGroup

from mcpconn.runtime.journal import Journal


class Errands:
    """Runs tasks in the connection's task group, from its start until it is closed."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._scopes: set[anyio.CancelScope] = set()
        self._closed = False
        self.group: TaskGroup | None = None
        """The connection's task group, which runs sessions, probes and errands. None before the connection is started
        and after it has ended."""

    def spawn(self, task: Callable[[], Coroutine[Any, Any, None]]) -> bool:
        """Run `task` in the background, at most until the connection ends. False if the connection is not running.
        Exceptions are logged."""
        if self.group is None or self._closed:
            return False
        self.group.start_soon(self._run, task)
        return True

    def close(self) -> None:
        """Start no more tasks. Running tasks continue."""
        self._closed = True

    def cancel(self) -> None:
        """Cancel running tasks."""
        for scope in tuple(self._scopes):
            scope.cancel()

    async def _run(self, task: Callable[[], Coroutine[Any, Any, None]]) -> None:
        with anyio.CancelScope() as scope:
            self._scopes.add(scope)
            try:
                await task()
            except Exception as error:
                self._journal.report("errand", error)
            finally:
                self._scopes.discard(scope)
