"""Tasks beside a connection: none outlives it, and no exception of theirs ends it."""

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
        """The connection's: sessions, probes and errands run in it. None before it is started and once it has ended."""

    def spawn(self, task: Callable[[], Coroutine[Any, Any, None]]) -> bool:
        """Run `task`, for no longer than the connection lives. False if it does not live. What it raises is logged."""
        if self.group is None or self._closed:
            return False
        self.group.start_soon(self._run, task)
        return True

    def close(self) -> None:
        """Start no more. Those under way go on."""
        self._closed = True

    def cancel(self) -> None:
        """End those under way."""
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
