"""The task in which a manager lives, or a connection that is used alone.

A task group has to be left by the task that entered it. Hosts often cannot do that: pytest-asyncio sets a fixture up
in one task and tears it down in another, `gather` enters contexts in tasks of its own, web frameworks run their
shutdown wherever they like. So on asyncio the group is entered in a task that belongs to the owner, and whoever
starts or ends it only talks to that task. trio has no task outside of a nursery: there the group is entered in a
child of the task that enters the `async with` block, or in a nursery that the host gives to `serve`.
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
from mcpconn.runtime.native import Home, create_task

_inside: ContextVar[tuple[Owner, ...]] = ContextVar("mcpconn_owner", default=())
"""The owners in whose tasks the current code runs."""


class Nursery(Protocol):
    """What can run a task: a `trio.Nursery`, an `anyio.abc.TaskGroup`."""

    def start_soon(self, func: Callable[..., Any], /, *args: Any) -> object:
        """Start a task."""


class Owner:
    """Runs tasks from `start` to `end`, which may be called in different tasks."""

    def __init__(self, what: str, *, begin: Callable[[], None], finish: Callable[[], None]) -> None:
        """
        Args:
            what: Name of the thing that is owned, for errors: `manager` or `connection NAME`.
            begin: Starts what is to run, by `start_soon`. Called in the task that starts the owner, and nothing has
                run when that goes on: it can still subscribe to everything that will happen.
            finish: Has all that was started come to its end. Called once, without waiting.
        """
        self._what = what
        self._begin = begin
        self._finish = finish
        self._entered = False
        self._ending = False
        self._open = anyio.Event()
        """Set when the group was entered."""
        self._wanted = anyio.Event()
        """Set when the end is wanted."""
        self._ended = anyio.Event()
        self._task: object = None
        """Kept, since asyncio itself refers to a task only weakly."""
        self._scope: anyio.CancelScope | None = None
        self._nursery: TaskGroup | None = None
        """Entered by `enter` on trio, and left by `leave` in the same task."""
        self._group: TaskGroup | None = None
        """What everything runs in; None before `start` and once the end was asked for."""
        self._context: Context
        """That of everything that runs: of the task that started the owner, and a note which owner it is."""
        self.home: Home | None = None
        """The event loop; None before `start`."""

    @property
    def running(self) -> bool:
        """Whether it was started, and its end was not asked for."""
        return self._group is not None

    @property
    def entered(self) -> bool:
        """Whether it was ever started."""
        return self._entered

    def wrong_loop(self) -> str | None:
        """Why what is owned cannot be used in the current event loop; None if it can."""
        return None if self.home is None else self.home.wrong_loop()

    def start_soon(self, func: Callable[..., Any], /, *args: Any) -> None:
        """Run `func` in a task of the owner's, while it is running."""
        assert self._group is not None
        self._context.run(self._group.start_soon, func, *args)

    # -- start

    async def start(self) -> None:
        """Start, in a task of its own.

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
        """Start for an `async with` block, which is left by `leave`.

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
                # In the task of whoever starts it, after the group is open: listeners can subscribe before anything
                # happens.
                self._begin()
        except BaseException:
            await self.leave()
            raise

    # -- end

    async def end(self) -> None:
        """Have everything come to its end, and return when it has. Any task may call this, more than once.

        Called by a task of the owner's own, a callback for example, it returns at once: it cannot wait for itself.

        Raises:
            NotRunning: on trio, unless it was started by `serve`; or in another event loop than the owner's.
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
        """End what `enter` started."""
        nursery, self._nursery = self._nursery, None
        if nursery is None:
            await self._end()
            return
        self.ask()
        # The group is not told of the exception that ended the block, which it would wrap in another.
        await nursery.__aexit__(None, None, None)

    def ask(self) -> None:
        """Begin to end."""
        if self._ending:
            return
        self._ending = True
        self._group = None
        self._finish()
        self._wanted.set()

    async def _end(self) -> None:
        self.ask()
        # The caller runs inside what is to end. Waiting here would be waiting for itself.
        if self in _inside.get():
            return
        try:
            await self._ended.wait()
        except BaseException:
            # Whoever waits was cancelled. It still leaves nothing behind: what is under way is cut short, which takes
            # no longer than the drain timeout and the end of the children.
            if self._scope is not None:
                # Cancelled and then awaited: what is cut short still closes its sockets and children.
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
                            # Not only when asked: a loop that ends cancels all tasks, and so does the host's nursery.
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
    """What has an owner: `async with`, or `start` and `aclose`, or `serve` in a nursery of the host's."""

    _owner: Owner

    @abstractmethod
    async def _opened(self) -> None:
        """Wait for what `start` has to wait for. If it raises, what was started is closed again."""

    async def start(self) -> Self:
        """Start, as entering `async with` does, for hosts that begin in one task and end in another. See `aclose`.

        A `Manager` does not wait for its servers. A `Connection` waits until it is ready, unless it is lazy.

        Raises:
            ConnectionFailed: the `Connection` could not be opened. It is closed again.
            NotRunning: it was started before; or this is trio, where `async with` and `serve` take its place.
        """
        await self._owner.start()
        return await self._open()

    async def serve(self, nursery: Nursery) -> Self:
        """As `start`, in a nursery of the host's: on trio, or to have all tasks in one place.

        Args:
            nursery: A `trio.Nursery` or an `anyio.abc.TaskGroup`. When it is cancelled, this is closed, too.

        Raises:
            ConnectionFailed, NotRunning: as `start`.
        """
        await self._owner.serve(nursery)
        return await self._open()

    async def aclose(self) -> None:
        """Close, and return when nothing is left: no task, no socket, no child process.

        Calls that wait fail at once, those in flight get the drain timeout. Any task of the same event loop may call
        this, more than once. A callback of the host's, which runs in one of the tasks to be ended, is not kept
        waiting for itself: it returns at once.

        Raises:
            NotRunning: on trio, unless it was started by `serve`; or in another event loop.
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
