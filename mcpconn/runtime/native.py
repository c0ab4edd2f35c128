"""What anyio has no word for. The only module of the package that calls asyncio or trio by name.

Three things need it: a task that belongs to nobody's task group, so that any task may close what runs in it
(asyncio alone has such tasks); the identity of the running event loop, so that a call from another one is refused
and does not wait for ever; and whether a CancelledError is a cancellation.
"""

from __future__ import annotations

import asyncio
import math
import threading
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

import anyio

T = TypeVar("T")


def asyncio_loop() -> asyncio.AbstractEventLoop | None:
    """The asyncio loop that the current task runs in; None on trio."""
    try:
        # Not `get_running_loop`: that also succeeds where trio runs as a guest of asyncio.
        task = asyncio.current_task()
    except RuntimeError:
        return None
    # While trio is a guest of an asyncio loop, that loop runs, but none of its tasks does.
    return None if task is None else task.get_loop()


def create_task(main: Callable[[], Coroutine[Any, Any, None]], name: str) -> asyncio.Task[None] | None:
    """Run `main` in a task outside of every task group. None on trio, which has no such tasks.

    The caller keeps the task: asyncio itself only refers to it weakly.
    """
    loop = asyncio_loop()
    return None if loop is None else loop.create_task(main(), name=name)


class Home:
    """The event loop in which something was started, and in which alone it can be used.

    An `anyio.Event` that is waited for in one loop and set from another wakes nobody: the waiter hangs.
    """

    __slots__ = ("_loop", "_thread", "_token")

    def __init__(self) -> None:
        """The home is the loop that runs now."""
        self._thread = threading.get_ident()
        self._loop = asyncio_loop()
        self._token: object = None if self._loop is not None else _trio_token()

    def wrong_loop(self) -> str | None:
        """Why this is not the place to use what was started here; None if it is."""
        if self._loop is not None:
            try:
                if asyncio.get_running_loop() is self._loop:
                    return None
            except RuntimeError:
                pass
        elif self._thread == threading.get_ident() and self._token is _trio_token():
            return None
        if self._thread != threading.get_ident():
            return "its event loop runs in another thread; use a SyncManager where threads call"
        # Told apart from another running loop, because what to do about it differs.
        if self._loop is not None and self._loop.is_closed():
            return "its event loop has ended, and it with it; make a new one in this loop"
        return "it was started in another event loop than this one; make one for each loop"

    @property
    def is_trio(self) -> bool:
        """Whether it is trio's."""
        return self._loop is None

    def other_thread(self) -> bool:
        """Whether this is another thread than the loop's."""
        return self._thread != threading.get_ident()


def _trio_token() -> object:
    import trio

    try:
        return trio.lowlevel.current_trio_token()
    except RuntimeError:
        return None


def being_cancelled() -> bool:
    """Whether the current task has been cancelled, by a scope or natively.

    Asked where a CancelledError came out of host code: the code may have awaited a future that somebody cancelled,
    and no one has cancelled this task.
    """
    if anyio.current_effective_deadline() == -math.inf:
        return True
    loop = asyncio_loop()
    if loop is None:
        return True  # trio's Cancelled cannot be made by anybody else
    cancelling = getattr(asyncio.current_task(), "cancelling", None)
    # Before 3.11 a task does not know. A cancellation that is swallowed is worse than one that is believed.
    return cancelling is None or cancelling() > 0


async def awaited(callback: Callable[..., Awaitable[T]], *args: Any) -> T:
    """Await host code that runs in a task of the connection's, or in one that waits for an answer.

    Raises:
        RuntimeError: it raised a cancellation, though nobody cancelled this task. It waited for something of the
            host's that was cancelled. Passed on, this would end the task: a call, or a session with all its calls.
    """
    try:
        return await callback(*args)
    except anyio.get_cancelled_exc_class() as error:
        if being_cancelled():
            raise
        raise RuntimeError("the callback raised a cancellation, though nobody cancelled it") from error


def poster() -> Callable[..., object]:
    """The running loop's way to have a function called from another thread, without waiting for it.

    It raises RuntimeError once the loop has ended.
    """
    loop = asyncio_loop()
    if loop is not None:
        return loop.call_soon_threadsafe
    import trio

    return trio.lowlevel.current_trio_token().run_sync_soon
