"""How the task that owns a connection is woken when there is something to do."""

from __future__ import annotations

import anyio


class Wake:
    """The only wait of a connection that has nothing to do. It is ended early by `set`; nothing is polled."""

    def __init__(self) -> None:
        self._event = anyio.Event()

    def set(self) -> None:
        """Have the task look at what there is to do, now or when it waits the next time."""
        self._event.set()

    async def wait(self, deadline: float) -> None:
        """Return when woken, and at `deadline` on the event loop's clock at the latest."""
        with anyio.CancelScope(deadline=deadline):
            await self._event.wait()
        # Replaced, since an anyio event is set once. Whoever sets the old one meanwhile is seen by this turn.
        if self._event.is_set():
            self._event = anyio.Event()
