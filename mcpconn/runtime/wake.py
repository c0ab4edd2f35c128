"""Wakes the task of a connection when there is work to do."""

from __future__ import annotations

import anyio


class Wake:
    """The only wait of an idle connection. `set` ends it early; nothing is polled."""

    def __init__(self) -> None:
        self._event = anyio.Event()

    def set(self) -> None:
        """Wake the task, now or at its next wait."""
        self._event.set()

    async def wait(self, deadline: float) -> None:
        """Return when woken, and at `deadline` on the event loop's clock at the latest."""
        with anyio.CancelScope(deadline=deadline):
            await self._event.wait()
        # Replaced because an anyio event can be set only once. If the old one is set in the meantime, this iteration
        # notices it.
        if self._event.is_set():
            self._event = anyio.Event()
