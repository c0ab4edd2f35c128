"""The gate before a connection: who may issue a call now, who waits, who is turned away.

It lets at most `max_in_flight` calls through while it is open, first come first served, and wakes exactly
those that may go: no polling, and no lock around a call. Everything but the waiting itself is synchronous,
so a caller that is cancelled anywhere leaves neither a place in the queue nor a permit behind.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import anyio


class _Waiter:
    __slots__ = ("error", "woken")

    def __init__(self) -> None:
        self.woken = anyio.Event()
        self.error: Exception | None = None


class Gate:
    """A gate, at first closed."""

    __slots__ = (
        "_granted",
        "_max_in_flight",
        "_max_waiting",
        "_on_waiting",
        "_overloaded",
        "_queue",
        "_refusal",
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
            max_in_flight: Calls let through and not yet released.
            max_waiting: Calls in the queue; one more is turned away.
            overloaded: Makes the error for that one.
            on_waiting: Called when somebody starts to wait.
        """
        self._max_in_flight = max_in_flight
        self._max_waiting = max_waiting
        self._overloaded = overloaded
        self._on_waiting = on_waiting
        self._refusal: Callable[[], Exception] | None = None
        self._queue: deque[_Waiter] = deque()
        # Woken, and not yet run: in the order in which they were let through.
        self._granted: dict[_Waiter, None] = {}
        self.in_flight = 0
        """Calls let through and not yet released."""
        self.is_open = False
        """Whether calls are let through."""

    @property
    def waiting(self) -> int:
        """Calls in the queue."""
        return len(self._queue)

    def open(self) -> None:
        """Let calls through, those that wait first."""
        self.is_open = True
        self._refusal = None
        self._grant()

    def close(self) -> None:
        """Let calls wait."""
        self.is_open = False
        self._refusal = None
        self._revoke()

    def refuse(self, error: Callable[[], Exception]) -> None:
        """Turn everybody away, those that wait included, each with an error of its own."""
        self.is_open = False
        self._refusal = error
        self._revoke()
        while self._queue:
            waiter = self._queue.popleft()
            waiter.error = error()
            waiter.woken.set()

    def try_acquire(self) -> bool:
        """Whether a call may be issued at once; if so, it is paid back by one `release`."""
        # Not past those who wait: first come, first served, even if there is room.
        free = self.is_open and self.in_flight < self._max_in_flight and not self._queue
        if free:
            self.in_flight += 1
        return free

    async def acquire(self, *, again: bool = False) -> None:
        """Return when a call may be issued. Every return is paid back by one `release`.

        Args:
            again: The call was let through before and failed: it goes to the front of the queue, and is
                not turned away for its length.

        Raises:
            Exception: the one that `refuse` or `overloaded` made.
        """
        # Made anew for each caller: an exception that is raised twice carries the wrong traceback.
        if self._refusal is not None:
            raise self._refusal()
        if self.try_acquire():
            return
        if len(self._queue) >= self._max_waiting and not again:
            raise self._overloaded()
        # From here to the wait nothing is awaited: either the caller is in the queue, or it was never here.
        waiter = _Waiter()
        (self._queue.appendleft if again else self._queue.append)(waiter)
        self._on_waiting()
        try:
            # A loop: a permit that was granted and taken back (`_revoke`) leaves its waiter in the queue with a new
            # event.
            while waiter not in self._granted and waiter.error is None:
                await waiter.woken.wait()
        except BaseException:
            # Cancelled after it was let through and before it ran: the permit goes to the next.
            if waiter in self._granted:
                del self._granted[waiter]
                self.release()
            elif waiter.error is None:
                self._queue.remove(waiter)
            raise
        if waiter.error is not None:
            raise waiter.error
        del self._granted[waiter]

    def release(self) -> None:
        """A call that was let through is over."""
        self.in_flight -= 1
        if self._queue:
            self._grant()

    def _grant(self) -> None:
        while self.is_open and self._queue and self.in_flight < self._max_in_flight:
            waiter = self._queue.popleft()
            self.in_flight += 1
            self._granted[waiter] = None
            waiter.woken.set()

    def _revoke(self) -> None:
        """Take back what was granted to callers that have not run since: they would find the gate closed."""
        # Reversed, so that the first one granted is the first in the queue again.
        for waiter in reversed(self._granted):
            waiter.woken = anyio.Event()
            self._queue.appendleft(waiter)
        self.in_flight -= len(self._granted)
        self._granted.clear()
