"""Wakes the task of a connection when there is work to do."""

from __future__ import annotations

import anyio
import anyio.lowlevel


class Wake:
    """The only wait of an idle connection. `set` ends it early; nothing is polled."""

    def __init__(self) -> None:
        self._event = anyio.Event()

    def set(self) -> None:
        """Wake the task, now or at its next wait."""
        self._event.set()

    def clear(self) -> None:
        """Forget earlier calls of `set`: the task is about to check all that it waits for, and then to wait.

        Nothing may be awaited between this and `wait`. Most transitions are the task's own, and each of them calls
        `set`: without this, the next wait would return at once, and everything would be checked twice.
        """
        # Replaced because an anyio event can be set only once.
        if self._event.is_set():
            self._event = anyio.Event()

    async def wait(self, deadline: float) -> None:
        """Return when woken, and at `deadline` on the event loop's clock at the latest."""
        if self._event.is_set():
            # No timer for a wait that is over.
            await anyio.lowlevel.checkpoint()
        else:
            with anyio.CancelScope(deadline=deadline):
                await self._event.wait()
        self.clear()
