"""Cancel a coroutine at its k-th checkpoint, for every k."""

from __future__ import annotations

import types
from collections.abc import Awaitable, Callable, Coroutine, Generator
from typing import Any, TypeVar

import anyio

T = TypeVar("T")


class Cut:
    """Cancels a scope when a coroutine suspends for the k-th time."""

    def __init__(self, at: int, scope: anyio.CancelScope) -> None:
        self.at = at
        self.scope = scope
        self.seen = 0

    @types.coroutine
    def through(self, coroutine: Coroutine[Any, Any, T]) -> Generator[Any, Any, T]:
        """Run `coroutine`, counting its suspensions. Several can be counted together."""
        act: Callable[[Any], Any] = coroutine.send
        value: Any = None
        while True:
            try:
                yielded = act(value)
            except StopIteration as stop:
                result: T = stop.value
                return result
            self.seen += 1
            if self.seen == self.at:
                self.scope.cancel()
            try:
                act, value = coroutine.send, (yield yielded)
            except BaseException as error:
                act, value = coroutine.throw, error


async def every_checkpoint(
    make: Callable[[Cut], Awaitable[Any]],
    *,
    before: Callable[[], Awaitable[None]] | None = None,
    after: Callable[[int], Awaitable[None]] | None = None,
    most: int = 1000,
) -> int:
    """Cancel what `make` does at its first checkpoint, then at its second, and so on until it completes.

    Args:
        make: Does it, with the parts to be counted run through the cut.
        before: Brings everything into the state to begin from, each time.
        after: Looks at what was left behind; told the number of the checkpoint.
        most: The number of checkpoints that it cannot have.

    Returns:
        How many checkpoints it has.
    """
    for at in range(1, most):
        if before is not None:
            await before()
        with anyio.CancelScope() as scope:
            cut = Cut(at, scope)
            await make(cut)
        if after is not None:
            await after(at)
        if cut.seen < at:
            return cut.seen
    raise AssertionError(f"no end after {most} checkpoints")


async def every_moment(
    make: Callable[[], Awaitable[Any]],
    *,
    before: Callable[[], Awaitable[None]] | None = None,
    after: Callable[[int], Awaitable[None]] | None = None,
    most: int = 3000,
) -> int:
    """As `every_checkpoint`, but cancelled from outside, after one turn of the event loop, then after two, and so on.

    One checkpoint of a caller, the wait for an answer, is hundreds of turns of everybody else.
    """
    for turns in range(most):
        if before is not None:
            await before()
        completed = False

        async def act() -> None:
            nonlocal completed
            await make()
            completed = True

        async with anyio.create_task_group() as group:
            group.start_soon(act)
            for _ in range(turns):
                await anyio.lowlevel.checkpoint()
            done = completed
            group.cancel_scope.cancel()
        if after is not None:
            await after(turns)
        if done:
            return turns
    raise AssertionError(f"no end after {most} turns")
