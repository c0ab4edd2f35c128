"""The gate in front of a connection: decides which calls are issued, wait, or are refused.

While it is open, it passes at most `max_in_flight` calls, first come, first served, and wakes exactly those that may
proceed, without polling and without a lock around a call. Everything except the waiting itself is synchronous, so a
caller that is cancelled at any point leaves neither a place in the queue nor a permit behind.
"""

from __future__ import annotations

from collections.abc import Callable

import anyio


class _Waiter:
    __slots__ = ("error", "woken")

    def __init__(self) -> None:
        self.woken = anyio.Event()
        self.error: Exception | None = None


class Gate:
    """A gate, which is initially closed."""

    __slots__ = (
        "_granted",
        "_max_in_flight",
        "_max_waiting",
        "_on_waiting",
        "_overloaded",
        "_queue",
        "_refusal",
        "_returned",
        "in_flight",
        "is_open",
    )

    def __init__(
        self,
        *,
        max_in_flight: int,
        max_waiting: int,
        overloaded: Callable[[], Exception],
        on_waiting: Callable[[], None] = lambda: None,
    ) -> None:
        """
        Args:
            max_in_flight: Maximum number of calls that have passed and are not yet released.
            max_waiting: Maximum number of calls in the queue; further calls are refused.
            overloaded: Creates the error for those.
            on_waiting: Called when a call starts to wait.
        """
        self._max_in_flight = max_in_flight
        self._max_waiting = max_waiting
        self._overloaded = overloaded
        self._on_waiting = on_waiting
        self._refusal: Callable[[], Exception] | None = None
        # Lists, because an empty deque takes 600 bytes, and the queue of an idle connection is empty.
        self._queue: list[_Waiter] = []
        # Calls that have passed before and failed, in the order in which they came back. They go first.
        self._returned: list[_Waiter] = []
        # Waiters that were woken but have not yet run, in the order in which their permits were granted.
        self._granted: dict[_Waiter, None] = {}
        self.in_flight = 0
        """Calls that have passed and are not yet released."""
        self.is_open = False
        """Whether calls can pass."""

    @property
    def waiting(self) -> int:
        """Calls in the queue."""
        return len(self._queue) + len(self._returned)

    def open(self) -> None:
        """Let calls pass, waiting ones first."""
        self.is_open = True
        self._refusal = None
        self._grant()

    def close(self) -> None:
        """Make calls wait."""
        self.is_open = False
        self._refusal = None
        self._revoke()

    def refuse(self, error: Callable[[], Exception]) -> None:
        """Refuse all calls, including waiting ones, each with its own error."""
        self.is_open = False
        self._refusal = error
        self._revoke()
        while self.waiting:
            waiter = self._next()
            waiter.error = error()
            waiter.woken.set()

    def try_acquire(self) -> bool:
        """Whether a call may be issued at once; if so, it must be followed by one `release`."""
        # A call does not overtake waiting ones, even if a permit is free: first come, first served.
        free = self.is_open and self.in_flight < self._max_in_flight and not self.waiting
        if free:
            self.in_flight += 1
        return free

    async def acquire(self, *, again: bool = False) -> None:
        """Return when a call may be issued. Every return must be followed by one `release`.

        Args:
            again: The call has passed before and failed. It goes ahead of calls that have not passed, after those that
                came back earlier, and is not refused if the queue is full.

        Raises:
            Exception: the error created by `refuse` or `overloaded`.
        """
        # Created for each caller, because an exception that is raised twice has the wrong traceback.
        if self._refusal is not None:
            raise self._refusal()
        if self.try_acquire():
            return
        if self.waiting >= self._max_waiting and not again:
            raise self._overloaded()
        # Nothing is awaited between here and the wait, so a cancelled caller is either in the queue or has left no
        # trace.
        waiter = _Waiter()
        queue = self._returned if again else self._queue
        queue.append(waiter)
        self._on_waiting()
        try:
            # A loop, because a permit that was granted and revoked (`_revoke`) leaves its waiter in the queue with a
            # new event.
            while waiter not in self._granted and waiter.error is None:
                await waiter.woken.wait()
        except BaseException:
            # The caller was cancelled after it got a permit and before it ran, so the permit goes to the next waiter.
            if waiter in self._granted:
                del self._granted[waiter]
                self.release()
            elif waiter.error is None:
                # A revoked permit may have moved it.
                (self._returned if waiter in self._returned else self._queue).remove(waiter)
            raise
        if waiter.error is not None:
            raise waiter.error
        del self._granted[waiter]

    def release(self) -> None:
        """Release the permit of a call that has ended."""
        self.in_flight -= 1
        if self.waiting:
            self._grant()

    def _next(self) -> _Waiter:
        return (self._returned or self._queue).pop(0)

    def _grant(self) -> None:
        while self.is_open and self.waiting and self.in_flight < self._max_in_flight:
            waiter = self._next()
            self.in_flight += 1
            self._granted[waiter] = None
            waiter.woken.set()

    def _revoke(self) -> None:
        """Revoke permits of callers that have not run since, because they would find the gate closed."""
        # Reversed, so that the waiter whose permit was granted first is first in the queue again.
        for waiter in reversed(self._granted):
            waiter.woken = anyio.Event()
            self._returned.insert(0, waiter)
        self.in_flight -= len(self._granted)
        self._granted.clear()
