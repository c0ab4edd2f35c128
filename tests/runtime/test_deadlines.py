"""Many deadlines on one timer: each call is ended at its own, and none is ended early."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest

from mcpconn.runtime.deadlines import ASK_AGAIN, Deadlines

pytestmark = pytest.mark.anyio


class Watched(Deadlines):
    """Deadlines that count the tasks made for them."""

    def __init__(self, start_soon: Callable[..., Any]) -> None:
        super().__init__(anyio.current_time)
        self.tasks = 0
        self.start_soon = start_soon

    def spawn(self, func: Callable[..., Any]) -> bool:
        self.tasks += 1
        self.start_soon(func)
        return True

    async def run(self, deadline: float, duration: float = math.inf) -> tuple[float, bool]:
        """A call. Returns when it ended, and whether its deadline ended it."""
        scope = self.open(deadline, self.spawn)
        try:
            with scope:
                await anyio.sleep(duration)
        finally:
            self.close(scope)
        return anyio.current_time(), scope.cancelled_caught


@asynccontextmanager
async def watched() -> AsyncIterator[tuple[Watched, float]]:
    async with anyio.create_task_group() as group:
        yield Watched(group.start_soon), anyio.current_time()
        group.cancel_scope.cancel()


async def test_each_call_ends_at_its_own_deadline_whatever_their_order() -> None:
    seconds = [60.0, 5.0, 0.5, 30.0, 0.5, 90.0]
    ended: dict[int, float] = {}
    async with watched() as (deadlines, began):

        async def call(number: int, limit: float) -> None:
            at, timed_out = await deadlines.run(began + limit)
            assert timed_out
            ended[number] = at - began

        async with anyio.create_task_group() as group:
            for number, limit in enumerate(seconds):
                group.start_soon(call, number, limit)
    assert [ended[number] for number in range(len(seconds))] == pytest.approx(seconds, abs=0.001)


async def test_a_call_that_ends_in_time_is_left_alone() -> None:
    async with watched() as (deadlines, began):
        assert await deadlines.run(began + 10, duration=4) == (pytest.approx(began + 4), False)
        # A later one neither inherits its deadline nor waits for it.
        assert await deadlines.run(anyio.current_time() + 10, duration=8) == (pytest.approx(began + 12), False)
        at, timed_out = await deadlines.run(anyio.current_time() + 10)
        assert (at, timed_out) == (pytest.approx(began + 22), True)


async def test_a_thousand_calls_take_one_task() -> None:
    async with watched() as (deadlines, _):
        for _ in range(1000):
            await deadlines.run(anyio.current_time() + 60, duration=0.05)
        assert deadlines.tasks == 1


async def test_the_task_ends_when_there_are_no_calls_left() -> None:
    async with watched() as (deadlines, _):
        await deadlines.run(anyio.current_time() + 60, duration=1)
        await anyio.sleep(100)
        await deadlines.run(anyio.current_time() + 60, duration=1)
        assert deadlines.tasks == 2


async def test_a_call_without_a_deadline_takes_no_task() -> None:
    async with watched() as (deadlines, _):
        _, timed_out = await deadlines.run(math.inf, duration=1000)
        assert not timed_out
        assert deadlines.tasks == 0


async def test_a_call_watches_over_itself_where_no_task_can_be_made() -> None:
    began = anyio.current_time()
    scope = Deadlines(anyio.current_time).open(began + 7, lambda func: False)
    with scope:
        await anyio.sleep_forever()
    assert scope.cancelled_caught
    assert anyio.current_time() == pytest.approx(began + 7)


async def test_a_call_watches_over_itself_once_the_task_was_ended() -> None:
    began = anyio.current_time()
    async with anyio.create_task_group() as outer:
        ended: list[float] = []
        async with anyio.create_task_group() as group:
            deadlines = Watched(group.start_soon)

            async def call() -> None:
                at, timed_out = await deadlines.run(began + 7)
                assert timed_out
                ended.append(at)

            outer.start_soon(call)
            await anyio.sleep(1)
            group.cancel_scope.cancel()
    assert ended == [pytest.approx(began + 7)]


async def test_a_task_that_never_began_is_asked_for_again() -> None:
    asked: list[Any] = []
    async with watched() as (deadlines, _):
        deadlines.start_soon, start_soon = asked.append, deadlines.start_soon
        for _ in range(ASK_AGAIN):
            await deadlines.run(anyio.current_time() + 10, duration=0.001)
        assert len(asked) == 1
        deadlines.start_soon = start_soon
        began = anyio.current_time()
        at, timed_out = await deadlines.run(began + 10)
        assert (at, timed_out) == (pytest.approx(began + 10), True)
        assert deadlines.tasks == 2


async def test_the_callers_own_cancellation_is_not_taken_for_a_deadline() -> None:
    async with watched() as (deadlines, began):
        scope = deadlines.open(began + 10, deadlines.spawn)
        with anyio.move_on_after(3) as outer:
            try:
                with scope:
                    await anyio.sleep_forever()
            finally:
                deadlines.close(scope)
        assert outer.cancelled_caught
        assert not scope.cancelled_caught
