"""The task in which a manager, or a connection without a manager, runs.

A task group has to be exited by the task that entered it. Hosts often cannot do that: pytest-asyncio sets a fixture up
in one task and tears it down in another, `gather` enters contexts in its own tasks, and web frameworks run their
shutdown in any task. So on asyncio the owner enters the group in its own task, and callers that start or end it only
communicate with that task. trio has no tasks outside a nursery: there the group is entered in a child of the task that
enters the `async with` block, or in a nursery that the host passes to `serve`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from contextvars import Context, ContextVar, copy_context
from types import TracebackType
from typing import Any, Protocol

import anyio
from anyio.abc import TaskGroup
from typing_extensions import Self

from mcpconn.errors import NotRunning
from mcpconn.flag import Flag
from mcpconn.runtime.native import Home, create_task

_inside: ContextVar[tuple[Owner, ...]] = ContextVar("mcpconn_owner", default=())
"""The owners in whose tasks the current code runs."""


class Nursery(Protocol):
    """An object that can run a task: a `trio.Nursery` or an `anyio.abc.TaskGroup`."""

    def start_soon(self, func: Callable[..., Any], /, *args: Any) -> object:
        """Start a task."""


class Owner:
    """Runs tasks from `start` to `end`, which may be called in different tasks."""

    def __init__(self, what: str, *, begin: Callable[[], None], finish: Callable[[], None]) -> None:
        """
        Args:
            what: Name of the owned object, for errors: `manager` or `connection NAME`.
            begin: Starts the tasks with `start_soon`. It is called in the task that starts the owner. None of the tasks
                has run when it returns, so the caller can still subscribe to all events.
            finish: Tells everything that was started to end. Called once, without waiting.
        """
        self._what = what
        self._begin = begin
        self._finish = finish
        self._entered = False
        self._ending = False
        self._open = Flag()
        """Set when the group was entered."""
        self._wanted = Flag()
        """Set when the owner should end."""
        self._ended = Flag()
        self._task: object = None
        """Kept because asyncio has only a weak reference to a task."""
        self._scope: anyio.CancelScope | None = None
        self._nursery: TaskGroup | None = None
        """Entered by `enter` on trio, and exited by `leave` in the same task."""
        self._group: TaskGroup | None = None
        """The task group of everything; None before `start` and after the end was requested."""
        self._context: Context
        """The context of everything that runs: that of the task that started the owner, plus a note that identifies the
        owner."""
        self.home: Home | None = None
        """The event loop; None before `start`."""

    @property
    def running(self) -> bool:
        """Whether it was started and its end was not requested."""
        return self._group is not None

    @property
    def entered(self) -> bool:
        """Whether it was ever started."""
        return self._entered

    def wrong_loop(self) -> str | None:
        """Why the owned object cannot be used in the current event loop; None if it can."""
        return None if self.home is None else self.home.wrong_loop()

    def start_soon(self, func: Callable[..., Any], /, *args: Any) -> None:
        """Run `func` in a task of the owner, while it is running."""
        assert self._group is not None
        self._context.run(self._group.start_soon, func, *args)

    # -- start

    async def start(self) -> None:
        """Start, in a new task.

        Raises:
            NotRunning: on trio, or if it was started before.
        """
        self._enter_once()
        self._task = create_task(self._live, f"mcpconn {self._what}")
        if self._task is None:
            self._entered, self.home = False, None
            raise NotRunning(self._no_task("start()"))
        await self._until_open()

    async def serve(self, nursery: Nursery) -> None:
        """Start, in a task of the host's nursery.

        Raises:
            NotRunning: it was started before.
        """
        self._enter_once()
        nursery.start_soon(self._live)
        await self._until_open()

    async def enter(self) -> None:
        """Start for an `async with` block, which `leave` exits.

        Raises:
            NotRunning: it was started before.
        """
        self._enter_once()
        self._task = create_task(self._live, f"mcpconn {self._what}")
        if self._task is None:
            self._nursery = anyio.create_task_group()
            await self._nursery.__aenter__()
            self._nursery.start_soon(self._live)
        await self._until_open()

    def _enter_once(self) -> None:
        if self._entered:
            raise NotRunning(f"the {self._what} was entered or started before; cannot reenter it: make another")
        self._entered = True
        self.home = Home()
        self._context = copy_context()
        self._context.run(_inside.set, (*_inside.get(), self))

    async def _until_open(self) -> None:
        try:
            await self._open.wait()
            if self._group is not None:
                # Called in the caller's task after the group is open, so that listeners can subscribe before anything
                # happens.
                self._begin()
        except BaseException:
            await self.leave()
            raise

    # -- end

    async def end(self) -> None:
        """End everything, and return when it has ended. Any task may call this, more than once.

        If one of the owner's own tasks calls it, for example a callback, it returns at once, because a task cannot wait
        for itself.

        Raises:
            NotRunning: on trio, unless it was started by `serve`; or in an event loop other than the owner's.
        """
        if self.home is None:
            if Home().is_trio:
                raise NotRunning(self._no_task("aclose()"))
            return
        if not self._ended.is_set() and (where := self.home.wrong_loop()) is not None:
            raise NotRunning(f"the {self._what} cannot be closed here: {where}")
        if self._nursery is not None:
            raise NotRunning(self._no_task("aclose()"))
        await self._end()

    async def leave(self) -> None:
        """End the block that `enter` started."""
        nursery, self._nursery = self._nursery, None
        if nursery is None:
            await self._end()
            return
        self.ask()
        # The exception that ended the block is not passed to the group, which would wrap it in an exception group.
        await nursery.__aexit__(None, None, None)

    def ask(self) -> None:
        """Start to end."""
        if self._ending:
            return
        self._ending = True
        self._group = None
        self._finish()
        self._wanted.set()

    async def _end(self) -> None:
        self.ask()
        # The caller runs inside the tasks to be ended, so waiting here would be waiting for itself.
        if self in _inside.get():
            return
        try:
            await self._ended.wait()
        except BaseException:
            # The waiting caller was cancelled. Nothing may be left behind, so everything in progress is cancelled,
            # which takes at most the drain timeout and the time to end the children.
            if self._scope is not None:
                # Cancelled and then awaited, because cancelled tasks still close their sockets and children.
                self._scope.cancel()
            with anyio.CancelScope(shield=True):
                await self._ended.wait()
            raise

    # -- the task

    async def _live(self) -> None:
        try:
            with anyio.CancelScope() as self._scope:
                async with anyio.create_task_group() as group:
                    if not self._ending:
                        self._group = group
                        self._open.set()
                        try:
                            await self._wanted.wait()
                        finally:
                            # This also happens without a request: a loop that ends cancels all tasks, and so does the
                            # host's nursery.
                            self.ask()
        finally:
            self._ended.set()
            self._open.set()

    def _no_task(self, what: str) -> str:
        return (
            f"{what} needs a task of the {self._what}'s own, and trio has no task outside of a nursery: use "
            f"`async with`, or `await serve(nursery)` with a nursery of yours"
        )


class Owned(ABC):
    """An object with an owner: use `async with`, or `start` and `aclose`, or `serve` in a nursery of the host."""

    _owner: Owner

    @abstractmethod
    async def _opened(self) -> None:
        """Wait until `start` may return. If this raises, everything that was started is closed."""

    async def start(self) -> Self:
        """Start like `async with`, for hosts that start in one task and stop in another. See `aclose`.

        A `Manager` does not wait for its servers. A `Connection` waits until it is ready, unless it is lazy.

        Raises:
            ConnectionFailed: the `Connection` could not be opened. It is closed again.
            NotRunning: it was started before; or the event loop is trio's: use `async with` or `serve` instead.
        """
        await self._owner.start()
        return await self._open()

    async def serve(self, nursery: Nursery) -> Self:
        """Like `start`, but in a nursery of the host: for trio, or to have all tasks in one place.

        Args:
            nursery: A `trio.Nursery` or an `anyio.abc.TaskGroup`. If it is cancelled, this is closed too.

        Raises:
            ConnectionFailed, NotRunning: as `start`.
        """
        await self._owner.serve(nursery)
        return await self._open()

    async def aclose(self) -> None:
        """Close, and return when no task, socket or child process is left.

        Waiting calls fail at once; calls in flight get the drain timeout. Any task of the same event loop may call
        this, more than once. If a callback of the host, which runs in one of the tasks to be ended, calls it, it
        returns at once.

        Raises:
            NotRunning: on trio, unless it was started by `serve`; or called in another event loop.
        """
        await self._owner.end()

    async def __aenter__(self) -> Self:
        await self._owner.enter()
        return await self._open()

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        await self._owner.leave()

    async def _open(self) -> Self:
        try:
            await self._opened()
        except BaseException:
            await self._owner.leave()
            raise
        return self
