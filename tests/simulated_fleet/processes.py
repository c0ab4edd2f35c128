"""Processes that are tasks of one event loop in virtual time: each can be paused, woken and killed.

`Process.run` starts a task whose context names the process; whatever that task starts inherits the name. The loop looks
at the name before it runs anything. A paused process is therefore stopped between any two steps, as by SIGSTOP: its
callbacks and timers are held back and run, in order, when it is woken, and its clocks have gone on. A killed process
never runs again. Each process has clocks of its own: a monotonic one that can drift, and a wall clock that can be
wrong.

asyncio only, because trio has no place at which a task's steps can be held back.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from asyncio.events import Handle, TimerHandle
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from contextvars import Context, ContextVar, copy_context
from random import Random
from typing import Any

import anyio

from mcpconn.gateway.access.gate import Gate
from mcpconn.gateway.clients.session_ids import SessionIds
from mcpconn.gateway.clients.sessions import Sessions
from mcpconn.gateway.fleet.signing import Signer
from mcpconn.testing.clock import MIDNIGHT, VirtualLoop

PROCESS: ContextVar[Process | None] = ContextVar("process", default=None)


class Process:
    """One process."""

    def __init__(self, name: str, *, drift: float = 0.0, wall: float = 0.0) -> None:
        """
        Args:
            name: For people.
            drift: By how much its monotonic clock is fast, as a part of the time that passes.
            wall: Seconds by which its wall clock is ahead.
        """
        self.name = name
        self.paused = False
        self.dead = False
        self._drift = drift
        self._wall = wall
        self._held: list[Handle] = []

    def run(self, main: Callable[..., Coroutine[Any, Any, None]], *args: Any) -> asyncio.Task[None]:
        """Start a task of this process."""
        context = copy_context()
        context.run(PROCESS.set, self)
        return asyncio.get_running_loop().create_task(main(*args), context=context)

    def monotonic(self) -> float:
        """Its monotonic clock."""
        return anyio.current_time() * (1 + self._drift)

    def wall(self) -> float:
        """Its wall clock."""
        return MIDNIGHT + anyio.current_time() + self._wall

    def pause(self) -> None:
        """Stop it between two steps."""
        if not self.paused:
            self.paused = True
            loop = asyncio.get_running_loop()
            ready = loop._ready  # type: ignore[attr-defined]
            mine = [handle for handle in ready if handle._context.get(PROCESS) is self]
            for handle in mine:
                ready.remove(handle)
            self._held = mine

    def wake(self) -> None:
        """Let it go on with what it was about to do."""
        if self.paused:
            self.paused = False
            held, self._held = self._held, []
            asyncio.get_running_loop()._ready.extend(held)  # type: ignore[attr-defined]

    def kill(self) -> None:
        """Stop it for good. Its tasks stay where they are until `bury`."""
        self.pause()
        self.dead = True

    def hold(self, handle: Handle) -> Handle:
        """Keep something back until it is woken."""
        self._held.append(handle)
        return handle

    def __repr__(self) -> str:
        return f"<{self.name}>"


class ProcessLoop(VirtualLoop):
    """A loop in virtual time that runs nothing of a process that is paused."""

    def call_soon(  # type: ignore[override]
        self, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> Handle:
        context = context if context is not None else copy_context()
        process = context.get(PROCESS)
        if process is not None and process.paused:
            return process.hold(Handle(callback, args, self, context))
        return super().call_soon(callback, *args, context=context)

    def call_at(  # type: ignore[override]
        self, when: float, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> TimerHandle:
        context = context if context is not None else copy_context()
        process = context.get(PROCESS)
        if process is None:
            return super().call_at(when, callback, *args, context=context)
        timer: TimerHandle

        def run() -> None:
            # It may have been cancelled while it was held back.
            if not timer.cancelled():
                callback(*args)

        def due() -> None:
            if process.paused:
                process.hold(Handle(run, (), self, context))
            else:
                callback(*args)

        timer = super().call_at(when, due, context=context)
        return timer


@contextmanager
def clocks_of_processes(seed: int) -> Iterator[None]:
    """Have everything that asks for the time inside a process get the process's. Random names come from the seed."""
    random = Random(f"names {seed}")
    real_wall = time.time

    def of(ask: Callable[[Process], float], otherwise: Callable[[], float]) -> Callable[..., float]:
        def now(*_: Any) -> float:
            process = PROCESS.get()
            return otherwise() if process is None else ask(process)

        return now

    wall = of(Process.wall, real_wall)
    patches: list[tuple[Any, str, Any]] = [
        (time, "monotonic", of(Process.monotonic, time.monotonic)),
        (time, "clock_gettime", of(Process.monotonic, time.monotonic)),
        (time, "time", wall),
        (time, "time_ns", lambda: int(time.time() * 1e9)),
        (secrets, "token_hex", lambda size=16: random.randbytes(size).hex()),
        (secrets, "token_bytes", lambda size=32: random.randbytes(size)),
        (secrets, "token_urlsafe", lambda size=32: random.randbytes(size).hex()),
    ]
    before = [(owner, name, getattr(owner, name)) for owner, name, _ in patches]
    # Defaults of arguments were looked up when the functions were made.
    makers: tuple[Any, ...] = (Signer, SessionIds, Sessions, Gate)
    defaults: list[dict[str, Any]] = [made.__init__.__kwdefaults__ for made in makers]
    for owner, name, value in patches:
        setattr(owner, name, value)
    for each in defaults:
        each["wall"] = wall
    try:
        yield
    finally:
        for owner, name, value in before:
            setattr(owner, name, value)
        for each in defaults:
            each["wall"] = real_wall
