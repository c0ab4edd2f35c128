"""Virtual time and seeded chance: waiting costs nothing, and a run can be repeated from its seed.

trio brings a virtual clock (`trio.testing.MockClock`); `VirtualLoop` is the same for asyncio. Both move the
clock to the next timer whenever nobody has anything else to do, so an hour in which one call is made takes as
long as the call. They know nothing of the world outside: with sockets, children or threads, time would run
ahead of them. Servers have to be in the process, behind a `ScriptTransport`.
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
"""Rounds of the event loop in which no time passes, before somebody is said to spin."""
MIDNIGHT = 1_767_225_600.0
"""2026-01-01 00:00 UTC: what the wall clock of `virtual_clock` says at the beginning."""


class Spinning(AssertionError):
    """Something is done repeatedly without any wait, so that no time can ever pass.

    In real time it would occupy the processor and flood the server.
    """


class _VirtualSelector(selectors.DefaultSelector):
    """Never waits where a timer is next: it moves the clock there instead."""

    def __init__(self, rounds: int) -> None:
        super().__init__()
        self.now = 0.0
        self.settling: list[asyncio.Future[None]] = []
        self._limit = rounds
        self._rounds = 0

    def select(self, timeout: float | None = None) -> Any:
        events = super().select(0)
        if events or timeout == 0:
            self._rounds += 1
            if self._rounds > self._limit:
                self._rounds = 0
                raise Spinning(f"{self._limit:,} rounds of the event loop, and no time passes: something never waits")
            return events
        self._rounds = 0
        # Nobody can run: everything waits for a timer, or for something outside.
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
            rounds: After so many rounds of the loop in which no time passes, `Spinning` is raised.
        """
        self._virtual = _VirtualSelector(rounds)
        super().__init__(self._virtual)

    def time(self) -> float:
        """Virtual seconds since the loop was made."""
        return self._virtual.now

    async def settle(self) -> None:
        """Return when every task waits for a timer, or for something outside the loop."""
        future = self.create_future()
        self._virtual.settling.append(future)
        await future


async def settle() -> None:
    """Return when every other task waits: for time to pass, or for somebody else. No time passes meanwhile.

    Raises:
        RuntimeError: this is asyncio, and the loop is no `VirtualLoop`.
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
    """A `Clock` for a manager in virtual time, whose jitter and wall clock are the same in every run.

    Args:
        seed: What the jitter comes from.
    """
    return Clock(wall=lambda: MIDNIGHT + anyio.current_time(), rng=random.Random(seed))


def run(main: Callable[..., Awaitable[T]], *args: Any, backend: str = "asyncio", seed: int = 0) -> T:
    """Run an async function in virtual time, and so that it can be repeated.

    Args:
        main: The function.
        args: Its arguments.
        backend: `asyncio`, where tasks run in the order in which they were woken; or `trio`, which shuffles them.
        seed: What trio shuffles them by.
    """
    name, options = virtual_backend(backend)
    with _repeatable(seed) if name == "trio" else _nothing():
        return anyio.run(main, *args, backend=name, backend_options=options)


@contextmanager
def _repeatable(seed: int) -> Iterator[None]:
    """Have trio's scheduler take its chances from `seed`. There is no public way; pytest-trio does the same."""
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
    """Which event loop runs. trio is not imported for the answer."""
    trio = sys.modules.get("trio")
    if trio is not None:
        try:
            trio.lowlevel.current_task()
        except RuntimeError:
            return "asyncio"
        return "trio"
    return "asyncio"
