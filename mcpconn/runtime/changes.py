"""`changes()`: the transitions of a manager's connections, in order, for one reader."""

from __future__ import annotations

import weakref
from collections import deque
from collections.abc import AsyncIterator, Callable
from weakref import WeakSet

import anyio
from typing_extensions import Self

from mcpconn.errors import NotRunning
from mcpconn.runtime.journal import Change

KEPT = 10_000
"""Maximum number of changes kept for a slow reader; beyond it, the oldest are dropped."""


class Changes(AsyncIterator[Change]):
    """Every transition since this object was created, until the manager is closed. An object without references is
    dropped."""

    def __init__(
        self,
        subscribe: Callable[[Callable[[Change], None]], Callable[[], None]],
        wrong_loop: Callable[[], str | None],
        readers: WeakSet[Changes],
    ) -> None:
        """
        Args:
            subscribe: `Manager.subscribe`.
            wrong_loop: Says why the current event loop is not the manager's; None if it is.
            readers: The set of readers that have not ended.
        """
        self._items: deque[Change] = deque(maxlen=KEPT)
        self._more = anyio.Event()
        self._wrong_loop = wrong_loop
        self._readers = readers
        readers.add(self)
        self._closed = False
        # The manager has a reference to its listener, which must not keep an abandoned reader alive.
        reader = weakref.ref(self)

        def put(change: Change) -> None:
            if (present := reader()) is not None:
                present._items.append(change)
                present._more.set()

        self._unsubscribe = subscribe(put)
        weakref.finalize(self, self._unsubscribe).atexit = False

    def end(self) -> None:
        """No more changes will follow; unread ones can still be read."""
        self._closed = True
        self._unsubscribe()
        self._readers.discard(self)
        self._more.set()

    async def aclose(self) -> None:
        """Stop reading, like `aclose` of an async generator."""
        self._items.clear()
        self.end()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Change:
        while not self._items:
            if self._closed:
                raise StopAsyncIteration
            if (where := self._wrong_loop()) is not None:
                raise NotRunning(f"changes() cannot be read here: {where}")
            self._more = anyio.Event()
            await self._more.wait()
        return self._items.popleft()
