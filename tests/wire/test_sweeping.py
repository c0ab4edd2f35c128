"""The sweeper of idle sockets runs while there are some, in the task group of a session that is open."""

from __future__ import annotations

import anyio
import pytest

from mcpconn.testing import clock
from mcpconn.wire.sweeping import Sweeping
from tests.test_budgets import tasks

BACKENDS = pytest.mark.parametrize("backend", ["asyncio", "trio"])


class Idle:
    """So many sweeps are needed until nothing is idle."""

    def __init__(self, sweeps: int) -> None:
        self.left = sweeps
        self.ended = 0
        self.sweeping = Sweeping(self._sweep, over=self._over)

    async def _sweep(self) -> float | None:
        self.left = max(0, self.left - 1)
        return 1.0 if self.left else None

    def _over(self) -> None:
        self.ended += 1


@BACKENDS
def test_no_task_waits_for_idle_sockets(backend: str) -> None:
    async def main() -> None:
        idle = Idle(0)
        async with idle.sweeping.within():
            before = tasks()
            await anyio.wait_all_tasks_blocked()
            idle.left = 3
            idle.sweeping.soon()
            # A second socket that becomes idle needs no second sweeper.
            idle.sweeping.soon()
            await anyio.sleep(0.5)
            assert tasks() == before
            await anyio.sleep(5)
            assert (idle.left, tasks()) == (0, before - 1)

    clock.run(main, backend=backend)


@BACKENDS
def test_sockets_left_by_an_earlier_session_are_swept(backend: str) -> None:
    async def main() -> None:
        idle = Idle(3)
        # There is no session, so there is no group for the task.
        idle.sweeping.soon()
        await anyio.sleep(5)
        assert idle.left == 3
        async with idle.sweeping.within():
            await anyio.sleep(5)
        assert (idle.left, idle.ended) == (0, 1)

    clock.run(main, backend=backend)


@BACKENDS
@pytest.mark.parametrize("leaver", ["first", "second"])
def test_the_sweeper_outlives_the_session_that_ran_it(backend: str, leaver: str) -> None:
    async def main() -> None:
        idle = Idle(10)
        ends = {"first": anyio.Event(), "second": anyio.Event()}

        async def session(name: str) -> None:
            async with idle.sweeping.within():
                await ends[name].wait()

        async with anyio.create_task_group() as group:
            for name in ends:
                group.start_soon(session, name)
            await anyio.sleep(2.5)
            ends.pop(leaver).set()
            await anyio.sleep(20)
            assert (idle.left, idle.ended) == (0, 0)
            ends.popitem()[1].set()
        assert idle.ended == 1

    clock.run(main, backend=backend)
