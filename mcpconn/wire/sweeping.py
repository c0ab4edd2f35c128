"""Sweeps the idle sockets of one transport, in a task that exists only while there are some.

Most connections are idle most of the time, and their sockets are closed after seconds. A task for each of ten thousand
idle connections would hold some 4 KiB to wait for nothing.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import anyio
from anyio.abc import TaskGroup


class Sweeping:
    """Starts and ends the sweeper of one transport."""

    def __init__(
        self, sweep: Callable[[], Awaitable[float | None]], *, over: Callable[[], None] = lambda: None
    ) -> None:
        """
        Args:
            sweep: Closes idle sockets that cannot be used any more. Returns the seconds until the next sweep, or None
                if no socket is idle.
            over: Called when the last session has ended.
        """
        self._sweep = sweep
        self._over = over
        self._groups: list[TaskGroup] = []
        """One for each session that uses the transport."""
        self._running = False

    def soon(self) -> None:
        """A socket has become idle: see that a sweeper runs, if there is a session."""
        if not self._running and self._groups:
            self._running = True
            self._groups[-1].start_soon(self._run)

    @asynccontextmanager
    async def within(self) -> AsyncIterator[None]:
        """A session uses the transport in this block: idle sockets are swept."""
        async with anyio.create_task_group() as group:
            self._groups.append(group)
            # Sockets may be idle since an earlier session.
            self.soon()
            try:
                yield
            finally:
                self._groups.remove(group)
                group.cancel_scope.cancel()
                if not self._groups:
                    self._over()

    async def _run(self) -> None:
        try:
            while (wait := await self._sweep()) is not None:  # noqa: ASYNC110 - no event tells that a socket was closed
                await anyio.sleep(wait)
            self._running = False
        except BaseException:
            # The session of this sweeper has ended. Another session's group continues.
            self._running = False
            self.soon()
            raise
