"""Virtual time and seeded chance: waiting takes no real time, and a run can be repeated from its seed.

trio has a virtual clock (`trio.testing.MockClock`); `VirtualLoop` is the same for asyncio. Both move the clock to the
next timer whenever no task can run, so an hour in which one call is made takes as long as the call. They do not wait
for anything outside the loop: virtual time would run ahead of sockets, child processes and threads. So servers must be
in the process, behind a `ScriptTransport`.
"""

from __future__ import annotations

import asyncio
import random
import selectors
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import anyio

from mcpconn.runtime.clock import Clock

T = TypeVar("T")

ROUNDS = 10_000
"""Rounds of the event loop without passing time after which `Spinning` is raised."""
EVERY = 16
"""Rounds of the event loop, without passing time, for each question to the system what has come from outside."""
MIDNIGHT = 1_767_225_600.0
"""2026-01-01 00:00 UTC: the initial wall-clock time of `virtual_clock`."""


class Spinning(AssertionError):
    """A task repeats something without waiting, so virtual time never advances. In real time it would occupy the
    processor and flood the server.
    """


class _VirtualSelector(selectors.DefaultSelector):
    """A selector that does not wait for the next timer, and moves the clock to it instead."""

    def __init__(self, rounds: int) -> None:
        super().__init__()
        self.now = 0.0
        self.settling: list[asyncio.Future[None]] = []
        self._limit = rounds
        self._rounds = 0

    def select(self, timeout: float | None = None) -> Any:
        # While tasks can run, the system is not asked in every round, which takes as long as the rest of the round.
        busy = timeout == 0
        events = [] if busy and self._rounds % EVERY < EVERY - 1 else super().select(0)
        if events or busy:
            self._rounds += 1
            if self._rounds > self._limit:
                self._rounds = 0
                raise Spinning(f"{self._limit:,} rounds of the event loop, and no time passes: something never waits")
            return events
        self._rounds = 0
        # No task can run: all wait for a timer, or for something outside the loop.
        settling, self.settling = self.settling, []
        if settling:
            for future in settling:
                if not future.done():
                    future.set_result(None)
        elif timeout is None:
            return super().select(None)
        else:
            self.now += timeout
        return events


class VirtualLoop(asyncio.SelectorEventLoop):
    """An asyncio event loop in which waiting takes no time: the counterpart of trio's `MockClock`."""

    def __init__(self, rounds: int = ROUNDS) -> None:
        """
        Args:
            rounds: Number of rounds of the loop without passing time after which `Spinning` is raised.
        """
        self._virtual = _VirtualSelector(rounds)
        super().__init__(self._virtual)

    def time(self) -> float:
        """Virtual seconds since the loop was created."""
        return self._virtual.now

    async def settle(self) -> None:
        """Return when every task waits for a timer, or for something outside the loop."""
        future = self.create_future()
        self._virtual.settling.append(future)
        await future


async def settle() -> None:
    """Return when every other task waits, for a timer or for another task. No virtual time passes meanwhile.

    Raises:
        RuntimeError: the loop is an asyncio loop other than `VirtualLoop`.
    """
    if _library() == "trio":
        from trio.testing import wait_all_tasks_blocked

        await wait_all_tasks_blocked()
        return
    loop = asyncio.get_running_loop()
    if not isinstance(loop, VirtualLoop):
        raise RuntimeError("settle() needs virtual time; see mcpconn.testing.clock.virtual_backend")
    await loop.settle()


def virtual_backend(name: str) -> tuple[str, dict[str, Any]]:
    """The backend `name`, with a virtual clock, for anyio's pytest plugin: return it from an `anyio_backend` fixture.

    Args:
        name: `asyncio` or `trio`.
    """
    if name == "trio":
        from trio.testing import MockClock

        return "trio", {"clock": MockClock(autojump_threshold=0)}
    return "asyncio", {"loop_factory": VirtualLoop}


def virtual_clock(seed: int | None = None) -> Clock:
    """A `Clock` for a manager in virtual time, with the same jitter and wall clock in every run.

    Args:
        seed: Seed of the jitter.
    """
    return Clock(wall=lambda: MIDNIGHT + anyio.current_time(), rng=random.Random(seed))


def run(main: Callable[..., Awaitable[T]], *args: Any, backend: str = "asyncio", seed: int = 0) -> T:
    """Run an async function in virtual time, reproducibly.

    Args:
        main: The function.
        args: Its arguments.
        backend: `asyncio`, where tasks run in the order in which they were woken; or `trio`, which shuffles them.
        seed: Seed of trio's shuffling.
    """
    name, options = virtual_backend(backend)
    with _repeatable(seed) if name == "trio" else _nothing():
        return anyio.run(main, *args, backend=name, backend_options=options)


@contextmanager
def _repeatable(seed: int) -> Iterator[None]:
    """Seed the random order of trio's scheduler. There is no public function for this; pytest-trio does the same."""
    from trio._core import _run

    names = [name for name in ("_ALLOW_DETERMINISTIC_SCHEDULING", "_r") if hasattr(_run, name)]
    before = {name: getattr(_run, name) for name in names}
    values = {"_ALLOW_DETERMINISTIC_SCHEDULING": True, "_r": random.Random(seed)}
    try:
        for name in names:
            setattr(_run, name, values[name])
        yield
    finally:
        for name in names:
            setattr(_run, name, before[name])


@contextmanager
def _nothing() -> Iterator[None]:
    yield


def _library() -> str:
    """The name of the running event loop. Does not import trio."""
    trio = sys.modules.get("trio")
    if trio is not None:
        try:
            trio.lowlevel.current_task()
        except RuntimeError:
            return "asyncio"
        return "trio"
    return "asyncio"
