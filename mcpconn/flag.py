"""An event that allocates nothing until a task waits for it."""

from __future__ import annotations

import anyio
import anyio.lowlevel


class Flag:
    """`anyio.Event`, for what is mostly never waited for.

    An event of asyncio holds a queue for its waiters, about 900 bytes with anyio's part. A connection has a dozen
    events for moments of its life, and of an idle one hardly any has a waiter. So the event is there only while there
    is one.
    """

    __slots__ = ("_event", "_set", "_waiters")

    def __init__(self) -> None:
        self._set = False
        self._event: anyio.Event | None = None
        self._waiters = 0

    def set(self) -> None:
        """Set it permanently, and wake the waiting tasks."""
        self._set = True
        if self._event is not None:
            self._event.set()

    def is_set(self) -> bool:
        """Whether it was set."""
        return self._set

    async def wait(self) -> None:
        """Return when it is set."""
        if self._set:
            await anyio.lowlevel.checkpoint()
            return
        event = self._event = self._event or anyio.Event()
        self._waiters += 1
        try:
            await event.wait()
        finally:
            self._waiters -= 1
            if not self._waiters:
                self._event = None
