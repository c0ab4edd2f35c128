"""An event loop in a background thread, and calls into it from other threads.

anyio's blocking portal is not suitable. It enters the loop twice for each call, and a Ctrl-C between the two leaves an
abandoned call behind; a Ctrl-C during its start waits indefinitely for a thread that was never told to end.

Every waiting call is in `_waiting`, and the code that ends the loop answers all of them. A caller joins `_waiting`
before it checks `_ended`; shutdown does the reverse, so none is missed.
"""

from __future__ import annotations

import atexit
import math
import os
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager
from contextvars import copy_context
from functools import partial
from typing import Any, Generic, TypeVar

import anyio

from mcpconn.core.outcome import Outcome
from mcpconn.errors import NotRunning
from mcpconn.runtime.native import Post, Starting, poster, starting

T = TypeVar("T")

LAST_WORDS = 1.0
"""Seconds that calls have for their answer after the resource was exited."""


class _Call(Generic[T]):
    """One call from another thread. The caller waits for a plain lock that the loop releases; a Future has several."""

    __slots__ = ("_context", "_deadline", "_error", "_func", "_lock", "_made", "_result", "_running", "_scope", "done")

    def __init__(self, func: Callable[[], Awaitable[T]], running: set[_Call[Any]]) -> None:
        """
        Args:
            func: Makes the call.
            running: Has the call while it is made. For the loop only.
        """
        self.done = False
        """Whether the caller has its answer, or needs none any more."""
        self._lock = threading.Lock()
        self._lock.acquire()
        self._context = copy_context()
        self._deadline = math.inf
        self._func = func
        self._running = running
        self._scope: anyio.CancelScope | None = None
        self._made = False
        """Whether there is a result, or an error."""
        self._result: T
        self._error: BaseException | None = None

    # -- in the thread that calls

    def wait(self) -> T:
        """Wait for the answer."""
        self._lock.acquire()
        if self._error is None:
            return self._result
        try:
            raise self._error
        finally:
            # The exception's traceback refers to this frame, which would otherwise refer to the exception.
            del self

    # -- in the loop

    def start(self, starting: Starting) -> None:
        """Make the call in a task, in the context of its caller."""
        self._running.add(self)
        starting(self._context, self._run, self._ended)

    async def _run(self) -> None:
        if self._deadline == -math.inf:
            return
        try:
            with anyio.CancelScope(deadline=self._deadline) as self._scope:
                self._result = await self._func()
                self._made = True
        except Exception as error:
            self._error = error
            self._made = True

    def _ended(self) -> None:
        self._running.discard(self)
        self.answer("the manager was closed while the call was running")

    def end_by(self, deadline: float) -> None:
        """Cancel the call at `deadline`, by the loop's clock, if it has not been cancelled before."""
        self._deadline = min(self._deadline, deadline)
        if self._scope is not None:
            self._scope.deadline = self._deadline

    def cancel(self) -> None:
        """Cancel the call."""
        self.end_by(-math.inf)

    def abandon(self) -> None:
        """Cancel the call without answering its caller."""
        self.done = True
        self.cancel()

    def answer(self, why_not: str) -> None:
        """Answer the waiting caller, if it has no answer yet: with an error that says why, if the call was not made."""
        if self.done:
            return
        if not self._made:
            self._error = NotRunning(why_not)
            if self._scope is not None:
                self._error.outcome = Outcome.UNKNOWN
        self.done = True
        self._lock.release()


class Background:
    """A thread with an event loop, in which a resource is open from `start` to `close`."""

    def __init__(self, backend: str = "asyncio", backend_options: dict[str, Any] | None = None) -> None:
        """
        Args:
            backend: `asyncio` or `trio`.
            backend_options: Of `anyio.run`, such as `{"use_uvloop": True}`.
        """
        self._backend = backend
        self._options = backend_options
        self._process: int | None = None
        self._thread = threading.Thread(target=self._live, name="mcpconn", daemon=True)
        self._resource: AbstractAsyncContextManager[Any]
        self._post: Post | None = None
        """The loop's function for calls from other threads; None before there is a loop."""
        self._starting: Starting | None = None
        """Starts a task in the loop; None before the resource was entered, and once the loop ends."""
        self._ending: anyio.Event
        self._begun = threading.Event()
        """Set when the resource was entered, or entering failed."""
        self._done = threading.Event()
        self._failure: BaseException | None = None
        self._waiting: set[_Call[Any]] = set()
        self._running: set[_Call[Any]] = set()
        self._at_exit = False
        self._closing = False
        self._ended = False
        self._entered = False

    # -- from any thread

    @property
    def running(self) -> bool:
        """Whether calls can be made, from this process."""
        return self._entered and not self._closing and not self._ended and not self.forked

    @property
    def forked(self) -> bool:
        """Whether this is a child of the process that has the thread. Threads do not survive a fork."""
        return self._process is not None and self._process != os.getpid()

    def check(self) -> None:
        """Return if calls can be made.

        Raises:
            NotRunning: they cannot; the text says why.
        """
        if not self.running:
            raise NotRunning(self._why_not())
        if self._here:
            raise NotRunning(
                "this is the manager's own thread, in which a blocking call would deadlock: listeners and "
                "async callbacks run here. Make the call from another thread"
            )

    def start(self, resource: AbstractAsyncContextManager[Any]) -> None:
        """Start the thread, enter `resource` in it, and return.

        An exception in this thread in the meantime, such as KeyboardInterrupt, is raised at once, and the background
        thread ends; `close` waits for it.

        Raises:
            NotRunning: it was started before.
        """
        if self._process is not None:
            raise NotRunning("the manager has been started already; a SyncManager is started once")
        self._process = os.getpid()
        self._resource = resource
        # At exit and not earlier, because non-daemon threads may continue to call after the main thread has ended.
        atexit.register(self.close, at_exit=True)
        try:
            self._thread.start()
            self._begun.wait()
        except BaseException:
            self.end()
            raise
        if not self._entered:
            # Entering failed; the error is raised here, once.
            failure, self._failure = self._failure, None
            self.close()
            if failure is not None:
                raise failure

    def run(self, func: Callable[[], Awaitable[T]]) -> T:
        """Call `func` in the loop, in the context of this thread, and wait for it.

        An exception in this thread in the meantime, such as KeyboardInterrupt, cancels the call and is raised at once.

        Raises:
            NotRunning: there is no loop, or it has ended.
        """
        self.check()
        call = _Call(func, self._running)
        self._waiting.add(call)
        try:
            if self._ended:
                raise NotRunning(self._why_not())
            if not self._tell(partial(self._begin, call)):
                raise NotRunning(self._why_not())
            return call.wait()
        except BaseException:
            if not call.done:
                self._tell(call.cancel)
            raise
        finally:
            self._waiting.discard(call)
            # The exception's traceback refers to this frame, which would otherwise refer to the exception.
            del call

    def apply(self, func: Callable[[], T]) -> T:
        """Call a plain function that changes the resource: in the loop, or, before `start`, in a temporary one.

        Raises:
            NotRunning: there is no loop any more.
        """

        async def call() -> T:
            return func()

        if self._process is None:
            return run_in_thread(partial(anyio.run, call, backend=self._backend, backend_options=self._options))
        return self.run(call)

    def look(self, func: Callable[[], T]) -> T:
        """Call a plain function that only reads: in the loop if it is running, otherwise here.

        Raises:
            NotRunning: this process was forked, and its data is a stale copy of its parent's.
        """
        if self.forked:
            raise NotRunning(self._why_not())
        return self.apply(func) if self.running and not self._here else func()

    def end(self) -> None:
        """Start to close, and return at once. A thread that is still starting ends as soon as it has started."""
        if self._process is None or self.forked or self._closing:
            return
        self._closing = True
        self._tell(self._wake)

    def close(self, *, at_exit: bool = False) -> None:
        """Exit the resource, end the thread, and return when that is done. Does nothing in a forked child.

        Args:
            at_exit: Drop calls in progress, instead of leaving them to the resource. Their callers are daemon threads,
                which end with the process, so errors would be noise.

        Raises:
            Exception: the error that ended the loop early, if there was one.
        """
        if self._process is None or self.forked:
            return
        self._at_exit = at_exit or self._at_exit
        self.end()
        # The thread's id is set before it checks whether it should end. A thread without an id, because a Ctrl-C came
        # during its start, ends without having done anything.
        if self._here or self._thread.ident is None:
            return
        self._done.wait()
        atexit.unregister(self.close)
        self._thread.join()
        if self._failure is not None:
            raise self._failure

    @property
    def _here(self) -> bool:
        """Whether this is the thread of the loop."""
        return self._thread.ident == threading.get_ident()

    def _tell(self, func: Callable[[], object]) -> bool:
        """Call `func` in the loop. False if there is no loop, or it has ended."""
        if self._post is None:
            return False
        try:
            self._post(func)
        except RuntimeError:
            return False
        return True

    def _why_not(self) -> str:
        if self.forked:
            return "this process was forked from the one that started the manager; make a SyncManager of its own here"
        if self._process is None:
            return "the manager is not started: with SyncManager(...) as manager"
        return "the manager was closed" if self._closing else "the manager's event loop has ended"

    # -- in the thread

    def _live(self) -> None:
        try:
            if not self._closing:
                anyio.run(self._main, backend=self._backend, backend_options=self._options)
        except BaseException as error:
            self._failure = error
        finally:
            self._ended = True
            for call in tuple(self._waiting):
                call.answer(self._why_not())
            self._begun.set()
            self._done.set()

    async def _main(self) -> None:
        self._ending = anyio.Event()
        with poster() as self._post:
            # From here on other threads can reach the loop; before that, they have to set a flag to end it.
            await self._open()

    async def _open(self) -> None:
        async with starting() as start:
            if self._closing:
                return
            deadline = -math.inf
            try:
                async with self._resource:
                    await self._serve(start)
                # Running calls have been cancelled and may answer; no caller waits indefinitely.
                deadline = anyio.current_time() + LAST_WORDS
            finally:
                for call in tuple(self._running):
                    call.end_by(deadline)

    async def _serve(self, start: Starting) -> None:
        """Start the calls of other threads, until the end is requested."""
        self._starting = start
        self._entered = True
        self._begun.set()
        self._wake()
        try:
            await self._ending.wait()
        finally:
            self._starting = None
        if self._at_exit:
            for call in tuple(self._waiting):
                call.abandon()

    def _begin(self, call: _Call[Any]) -> None:
        """Start a call. Called in the loop; once that ends, the caller is answered by `_live`."""
        if self._starting is not None:
            call.start(self._starting)

    def _wake(self) -> None:
        """End, if that was requested. Called in the loop."""
        if self._closing:
            self._ending.set()


def run_in_thread(func: Callable[[], T]) -> T:
    """Call `func` in a separate thread, so that the objects it creates are not tied to a loop that runs in this one."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(func).result()
