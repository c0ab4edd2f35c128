"""Wakes the task of a connection when there is work to do."""

from __future__ import annotations

import anyio.lowlevel

from mcpconn.runtime.native import Nap, nap


class Wake:
    """The only wait of an idle connection. `set` ends it early; nothing is polled."""

    __slots__ = ("_nap", "_set")

    def __init__(self) -> None:
        self._set = False
        # There only during a wait: most calls of `set` are the task's own, and end none.
        self._nap: Nap | None = None

    def set(self) -> None:
        """Wake the task, now or at its next wait."""
        self._set = True
        if self._nap is not None:
            self._nap.end()

    def clear(self) -> None:
        """Forget earlier calls of `set`: the task is about to check all that it waits for, and then to wait.

        Nothing may be awaited between this and `wait`. Most transitions are the task's own, and each of them calls
        `set`: without this, the next wait would return at once, and everything would be checked twice.
        """
        self._set = False

    async def wait(self, deadline: float) -> None:
        """Return when woken, and at `deadline` on the event loop's clock at the latest."""
        if self._set:
            # No timer for a wait that is over.
            await anyio.lowlevel.checkpoint()
        else:
            self._nap = nap()
            try:
                await self._nap.wait(deadline)
            finally:
                self._nap = None
        self.clear()
