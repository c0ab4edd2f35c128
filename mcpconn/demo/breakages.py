"""The faults of the demo, and when they come."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import anyio

from mcpconn.demo.processes import HttpServer, kill_child

HTTP, STDIO = "http", "stdio"
DEFAULT_SECONDS = 15.0
WINDOW = 1.0
"""Seconds a server stays down or refuses, in a demo of the default length. A shorter demo has shorter outages, and each
fault only once."""

Say = Callable[[str], None]


@dataclass(frozen=True)
class Breakage:
    """One fault."""

    server: str
    cause: str
    """Its name in the summary."""
    at: float
    """When it comes, as a share of the demo's length; later if the previous fault is not over by then."""
    inflict: Callable[[Say], Awaitable[float | None]]
    """Announces the fault and causes it. Returns the seconds for which the server cannot answer; None if the server is
    back only when mcpconn restarts it."""


def schedule(http: HttpServer, pid_file: Path, seconds: float) -> list[Breakage]:
    """The faults of a demo with this length in seconds."""
    window = WINDOW * min(1.0, max(0.2, seconds / DEFAULT_SECONDS))

    async def forget(say: Say) -> float:
        say("the server forgets its sessions")
        await http.tell("forget")
        return 0.0

    async def kill_server(say: Say) -> float:
        say(f"SIGKILL to process {http.pid}, started again {window:.1f} s later")
        began = time.monotonic()
        await http.kill()
        await anyio.sleep(window)
        await http.start()
        say(f"process {http.pid} listens")
        return time.monotonic() - began

    async def kill_stdio(say: Say) -> None:
        say(f"SIGKILL to child {kill_child(pid_file)}")

    def refusing(status: int) -> Callable[[Say], Awaitable[float]]:
        async def refuse(say: Say) -> float:
            say(f"the server answers {status} for {window:.1f} s")
            await http.tell(f"refuse {status} {window}")
            await anyio.sleep(window)
            return window

        return refuse

    faults = [
        Breakage(HTTP, "session expired", 0.05, forget),
        Breakage(HTTP, "429 Too Many Requests", 0.15, refusing(429)),
        Breakage(HTTP, "server killed", 0.33, kill_server),
        Breakage(HTTP, "503 Service Unavailable", 0.66, refusing(503)),
        Breakage(HTTP, "session expired", 0.9, forget),
        Breakage(STDIO, "child killed", 0.1, kill_stdio),
        Breakage(STDIO, "child killed", 0.5, kill_stdio),
        Breakage(STDIO, "child killed", 0.8, kill_stdio),
    ]
    if seconds >= DEFAULT_SECONDS:
        return faults
    once: dict[str, Breakage] = {}
    for fault in faults:
        once.setdefault(fault.cause, fault)
    return list(once.values())
