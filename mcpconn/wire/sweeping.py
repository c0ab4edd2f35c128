"""Sweeps the idle sockets of one transport, in a task that exists only while there are some.

Most connections are idle most of the time, and their sockets are closed after seconds. A task for each of ten thousand
idle connections would hold some 4 KiB to wait for nothing.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from types import TracebackType

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

    def within(self) -> AbstractAsyncContextManager[None]:
        """A session uses the transport in this block: idle sockets are swept."""
        return _Within(self)

    def begin(self, group: TaskGroup) -> None:
        """A session uses the transport, and this is its task group."""
        self._groups.append(group)
        # Sockets may be idle since an earlier session.
        self.soon()

    def end(self, group: TaskGroup) -> None:
        """That session has ended."""
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


class _Within(AbstractAsyncContextManager[None]):
    """The time of a session. A class, because a generator that is suspended as long takes 600 bytes more."""

    __slots__ = ("_group", "_sweeping")

    def __init__(self, sweeping: Sweeping) -> None:
        self._sweeping = sweeping
        self._group = anyio.create_task_group()

    async def __aenter__(self) -> None:
        await self._group.__aenter__()
        self._sweeping.begin(self._group)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        try:
            self._sweeping.end(self._group)
        finally:
            # `end` has cancelled the group, and its exit must not be skipped for an error of `over`.
            suppressed = await self._group.__aexit__(kind, error, trace)
        return bool(suppressed)
