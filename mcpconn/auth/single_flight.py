"""Two ways to run work that must not be run twice, nor be broken off half way."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

import anyio

T = TypeVar("T")


class _Outcome(Generic[T]):
    """What came of some work: a value, an error, or nothing if it was cancelled."""

    def __init__(self) -> None:
        self.known = anyio.Event()
        self.values: list[T] = []
        self.error: Exception | None = None

    async def of(self, work: Callable[[], Awaitable[T]]) -> None:
        try:
            self.values.append(await work())
        except Exception as error:
            self.error = error

    def get(self) -> T:
        if self.error is not None:
            raise self.error
        return self.values[0]


class SingleFlight(Generic[T]):
    """Runs one piece of work at a time; who asks for it meanwhile gets the outcome of that one."""

    def __init__(self) -> None:
        self._flying: _Outcome[T] | None = None

    async def run(self, work: Callable[[], Awaitable[T]]) -> T:
        """The outcome of `work`, or of the one that is running already."""
        while (flying := self._flying) is not None:
            await flying.known.wait()
            if flying.values or flying.error is not None:
                return flying.get()
            # The task that ran it was cancelled, so another has to run it.
        self._flying = mine = _Outcome[T]()
        try:
            await mine.of(work)
        finally:
            self._flying = None
            mine.known.set()
        return mine.get()


async def finished(work: Callable[[], Awaitable[T]], grace: float) -> T:
    """The outcome of `work`, which a cancellation breaks off only after `grace` seconds."""
    outcome = _Outcome[T]()
    scope = anyio.CancelScope(shield=True)

    async def watch() -> None:
        try:
            await anyio.sleep_forever()
        finally:
            scope.deadline = anyio.current_time() + grace

    async with anyio.create_task_group() as group:
        group.start_soon(watch)
        # The work runs in this task, not in one of its own: locks belong to tasks.
        with scope:
            await outcome.of(work)
        group.cancel_scope.cancel()
    return outcome.get()
