"""Functionality that anyio does not offer. This is the only module of the package that uses asyncio or trio directly.

It is needed for five purposes: a task outside every task group, so that any task may close what runs in it (only
asyncio has such tasks); the identity of the running event loop, so that a call from another loop is refused instead of
waiting indefinitely; whether a CancelledError is a cancellation; starting a task from a callback of the loop; and a
wait with a timer that cancels nothing.
"""

from __future__ import annotations

import asyncio
import math
import socket
import threading
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, closing, contextmanager
from contextvars import Context
from functools import partial
from typing import Any, Protocol, TypeVar

import anyio

try:
    import sniffio
except ImportError:
    # anyio asks it which loop runs if it is installed, and asyncio otherwise. Trio brings it.
    sniffio = None  # type: ignore[assignment]

T = TypeVar("T")


def asyncio_loop() -> asyncio.AbstractEventLoop | None:
    """The asyncio loop of the current task; None on trio."""
    try:
        # `get_running_loop` cannot be used, because it also succeeds if trio runs as a guest of asyncio.
        task = asyncio.current_task()
    except RuntimeError:
        return None
    # While trio runs as a guest of an asyncio loop, that loop is running, but none of its tasks is.
    return None if task is None else task.get_loop()


def create_task(main: Callable[[], Coroutine[Any, Any, None]], name: str) -> asyncio.Task[None] | None:
    """Run `main` in a task outside every task group. None on trio, which has no such tasks.

    The caller must keep a reference to the task, because asyncio has only a weak one.
    """
    loop = asyncio_loop()
    return None if loop is None else loop.create_task(main(), name=name)


class Home:
    """The event loop in which an object was started, and the only one in which it can be used.

    If a task waits for an `anyio.Event` in one loop and the event is set from another, the task is not woken and hangs.
    """

    __slots__ = ("_loop", "_thread", "_token")

    def __init__(self) -> None:
        """Use the running loop as the home."""
        self._thread = threading.get_ident()
        self._loop = asyncio_loop()
        self._token: object = None if self._loop is not None else _trio_token()

    def wrong_loop(self) -> str | None:
        """Why the object cannot be used in the current loop; None if it can."""
        if self._loop is not None:
            try:
                if asyncio.get_running_loop() is self._loop:
                    return None
            except RuntimeError:
                pass
        elif self._thread == threading.get_ident() and self._token is _trio_token():
            return None
        if self._thread != threading.get_ident():
            return "its event loop runs in another thread; use a SyncManager for calls from threads"
        # Distinguished from another running loop, because the remedy differs.
        if self._loop is not None and self._loop.is_closed():
            return "its event loop has ended; make a new one in this loop"
        return "it was started in another event loop than this one; make one for each loop"

    @property
    def is_trio(self) -> bool:
        """Whether the loop is trio's."""
        return self._loop is None

    def other_thread(self) -> bool:
        """Whether the current thread is not the loop's."""
        return self._thread != threading.get_ident()


def _trio_token() -> object:
    import trio

    try:
        return trio.lowlevel.current_trio_token()
    except RuntimeError:
        return None


def being_cancelled() -> bool:
    """Whether the current task has been cancelled, by a scope or natively.

    Used when the host's code raised a CancelledError: it may have awaited a cancelled future, although this task was
    not cancelled.
    """
    if anyio.current_effective_deadline() == -math.inf:
        return True
    loop = asyncio_loop()
    if loop is None:
        return True  # only trio itself can create its Cancelled
    cancelling = getattr(asyncio.current_task(), "cancelling", None)
    # Before 3.11 a task cannot know. Swallowing a real cancellation is worse than accepting a false one.
    return cancelling is None or cancelling() > 0


async def awaited(callback: Callable[..., Awaitable[T]], *args: Any) -> T:
    """Await the host's code in a task of the connection, or in one that waits for an answer.

    Raises:
        RuntimeError: it raised a cancellation although this task was not cancelled, because it waited for a cancelled
            object of the host. If the cancellation were passed on, it would end the task: a call, or a session with all
            its calls.
    """
    try:
        return await callback(*args)
    except anyio.get_cancelled_exc_class() as error:
        if being_cancelled():
            raise
        raise RuntimeError("the callback raised a cancellation although it was not cancelled") from error


class Nap(Protocol):
    """One wait of one task, until a time or until `end`."""

    def end(self) -> None:
        """End it, if it has not ended."""

    async def wait(self, deadline: float) -> None:
        """Return when it was ended, and at `deadline` on the loop's clock at the latest."""


def nap() -> Nap:
    """A `Nap` of the current task."""
    loop = asyncio_loop()
    return _AnyNap() if loop is None else _AsyncioNap(loop)


class _AnyNap:
    __slots__ = ("_event",)

    def __init__(self) -> None:
        self._event = anyio.Event()

    def end(self) -> None:
        self._event.set()

    async def wait(self, deadline: float) -> None:
        with anyio.CancelScope(deadline=deadline):
            await self._event.wait()


class _AsyncioNap:
    """A timer that ends a future. A scope with a deadline would cancel the task instead, which takes another turn of
    the loop and five times as long: a thousand connections to a server that is away wait like this all the time.
    """

    __slots__ = ("_future", "_loop", "_timer")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._future: asyncio.Future[None] = loop.create_future()
        self._timer: asyncio.TimerHandle | None = None

    def end(self) -> None:
        if not self._future.done():
            self._future.set_result(None)

    async def wait(self, deadline: float) -> None:
        if deadline != math.inf:
            self._due(deadline)
        try:
            await self._future
        finally:
            if self._timer is not None:
                self._timer.cancel()

    def _due(self, deadline: float) -> None:
        # Loops call a timer up to the resolution of their clock too early.
        if self._loop.time() >= deadline:
            self._timer = None
            self.end()
        else:
            self._timer = self._loop.call_at(deadline, self._due, deadline)


Starting = Callable[[Context, Callable[[], Coroutine[Any, Any, None]], Callable[[], object]], object]
"""From a callback of the loop, starts a task in a context, and calls the second function when it has ended."""


@asynccontextmanager
async def starting() -> AsyncIterator[Starting]:
    """A `Starting` for the block. The block ends when all tasks have; it does not cancel them."""
    loop = asyncio_loop()
    async with anyio.create_task_group() as group:
        if loop is None:
            yield lambda context, func, ended: context.run(_start, "trio", group.start_soon, _run, func, ended)
            return
        tasks = _Tasks(loop, group.cancel_scope)
        try:
            yield tasks
        finally:
            with anyio.CancelScope(shield=True):
                await tasks.wait()


def _start(library: str, start: Callable[..., T], *args: Any) -> T:
    """Start a task, from a callback: anyio does not know the loop there, nor does the context of another thread."""
    if sniffio is not None:
        sniffio.current_async_library_cvar.set(library)
    return start(*args)


async def _run(func: Callable[[], Awaitable[None]], ended: Callable[[], object]) -> None:
    try:
        await func()
    finally:
        ended()


class _Tasks:
    """The `Starting` of asyncio: tasks outside every group, which cost a fifth of a group's to start."""

    def __init__(self, loop: asyncio.AbstractEventLoop, scope: anyio.CancelScope) -> None:
        """
        Args:
            loop: Runs the tasks.
            scope: Cancelled when a task fails.
        """
        self._create = loop.create_task
        self._scope = scope
        self._running: set[asyncio.Task[None]] = set()
        self._failure: BaseException | None = None

    def __call__(
        self, context: Context, func: Callable[[], Coroutine[Any, Any, None]], ended: Callable[[], object]
    ) -> None:
        task = context.run(_start, "asyncio", self._create, func())
        self._running.add(task)
        task.add_done_callback(partial(self._ended, ended))

    def _ended(self, ended: Callable[[], object], task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._failure = self._failure or error
            self._scope.cancel()
        ended()

    async def wait(self) -> None:
        """Wait until all tasks have ended.

        Raises:
            BaseException: what one of them raised.
        """
        while self._running:
            await asyncio.wait(self._running)
        if self._failure is not None:
            raise self._failure


Post = Callable[[Callable[[], object]], None]
"""Has the loop call a function, from any thread, without waiting for it. RuntimeError: it accepts no more."""


@contextmanager
def poster() -> Iterator[Post]:
    """The running loop's `Post`, for the block."""
    loop, box = asyncio_loop(), _Letterbox()
    if loop is None:
        import trio

        box.wake = partial(trio.lowlevel.current_trio_token().run_sync_soon, box.empty)
        yield box
        return
    with closing(_Doorbell(loop, box.empty)) as bell:
        box.wake = bell
        yield box


class _Letterbox:
    """A `Post` that wakes the loop once for all functions that are posted before the loop gets to them.

    A wake-up is a system call, during which Python passes the GIL on. The thread would have to get it back before it
    could wait for its answer.
    """

    wake: Callable[[], object]
    """Has the loop call `empty`, from any thread."""

    def __init__(self) -> None:
        self._calls: deque[Callable[[], object]] = deque()
        self._woken = False
        """Whether `empty` will be called, so that a function added now needs no other wake-up."""

    def __call__(self, func: Callable[[], object]) -> None:
        self._calls.append(func)
        if threading.get_ident() == threading.main_thread().ident:
            # Always, and without the flag: a signal handler may raise between any two lines of the main thread. If it
            # did between setting the flag and the wake-up, no thread would wake the loop again.
            self.wake()
        elif not self._woken:
            try:
                self._woken = True
                self.wake()
            except BaseException:
                self._woken = False
                raise

    def empty(self) -> None:
        """Call the functions, in the loop. An error of one is raised, and does not keep the next from being called."""
        # Reset before the functions are taken; a thread does the reverse, so none is missed.
        self._woken = False
        try:
            while self._calls:
                self._calls.popleft()()
        finally:
            if self._calls:
                self.wake()


class _Doorbell:
    """Has a loop of asyncio call one function, from any thread.

    `call_soon_threadsafe` ignores an OSError while it wakes the loop (CPython 3.11, selector_events.py,
    `_write_to_self`). Python runs signal handlers between two lines of the main thread, and an InterruptedError that a
    handler raises there is an OSError: it would be lost, and the wake-up with it, and the caller would wait forever.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, func: Callable[[], object]) -> None:
        self._loop = loop
        self._func = func
        self._closed = False
        self._read, self._write = socket.socketpair()
        self._read.setblocking(False)
        self._write.setblocking(False)
        self._watched = True
        try:
            loop.add_reader(self._read, self._answer)
        except NotImplementedError:
            # The proactor loop of Windows watches no sockets. The loss above remains possible there.
            self._watched = False

    def __call__(self) -> None:
        if self._closed:
            raise RuntimeError("the loop accepts no more calls")
        if not self._watched:
            self._loop.call_soon_threadsafe(self._func)
            return
        try:
            self._write.send(b"\0")
        except BlockingIOError:
            # So many bytes are unread that the loop is awake, or will be.
            pass
        except OSError:
            if not self._closed:
                raise
            raise RuntimeError("the loop accepts no more calls") from None

    def _answer(self) -> None:
        try:
            self._read.recv(4096)
        except BlockingIOError:
            return
        # Called here and not a turn of the loop later.
        self._func()

    def close(self) -> None:
        """Take no more calls. Must be called in the loop."""
        self._closed = True
        if self._watched:
            self._loop.remove_reader(self._read)
        self._read.close()
        self._write.close()
