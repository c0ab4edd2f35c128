"""Commands to be servers of tests: scripted ones, what starts them, and what goes wrong with them."""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any

import anyio
import psutil

from mcpconn import Connection, Policy
from mcpconn.testing import STDIO_SERVER
from tests.support import SAFETY, text_of

SCRIPT = str(STDIO_SERVER)
IMPATIENT = Policy(patience=1e-6, min_attempts=1)
"""Gives up at the first dial that fails."""


def server(*arguments: str) -> dict[str, Any]:
    """A scripted server."""
    return {"command": sys.executable, "args": [SCRIPT, *arguments]}


def shell(script: str) -> dict[str, Any]:
    """What a shell makes of `script`, in which $SERVER is the command line of a scripted server."""
    return {"command": "/bin/sh", "args": ["-c", script.replace("$SERVER", f"'{sys.executable}' '{SCRIPT}'")]}


def python(before: str = "", *, after: str = "", arguments: Iterable[str] = ()) -> dict[str, Any]:
    """A scripted server with Python code before it and after its stdin has ended."""
    code = f"""
import os, runpy, signal, subprocess, sys, time
{before}
sys.argv = {[SCRIPT, *arguments]!r}
try:
    runpy.run_path({SCRIPT!r}, run_name="__main__")
finally:
    pass
    {after}
"""
    return {"command": sys.executable, "args": ["-c", code]}


@asynccontextmanager
async def connected(config: dict[str, Any], **options: Any) -> AsyncIterator[Connection]:
    """A connection to it that has made a call."""
    with anyio.fail_after(SAFETY * 2):
        async with Connection(config, name="child", **options) as connection:
            assert text_of(await connection.call_tool("add", {"a": 1, "b": 1})) == "2"
            yield connection


def lives(pid: int) -> bool:
    """Whether a process runs; one that is dead and not collected does not."""
    with suppress(psutil.NoSuchProcess):
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    return False


async def gone(pids: Iterable[int]) -> None:
    """Wait until none of them runs."""
    # Nothing tells of the end of a process that is not a child of this one.
    while any(lives(pid) for pid in pids):  # noqa: ASYNC110 - see above
        await anyio.sleep(0.01)


class Told:
    """Lines that other processes write into a pipe of the file system, as they come."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "told"
        os.mkfifo(self.path)
        self._reader = os.open(self.path, os.O_RDONLY | os.O_NONBLOCK)
        # Held open, so that the pipe does not end when a writer does.
        self._writer = os.open(self.path, os.O_WRONLY | os.O_NONBLOCK)
        self._text = ""

    @property
    def lines(self) -> list[str]:
        """All so far."""
        with suppress(BlockingIOError):
            self._text += os.read(self._reader, 65536).decode()
        return self._text.splitlines()

    async def until(self, count: int) -> list[str]:
        """So many of them, once they are there."""
        while len(self.lines) < count:
            await anyio.wait_readable(self._reader)
        return self.lines

    def close(self) -> None:
        """No more of it."""
        os.close(self._reader)
        os.close(self._writer)


@contextmanager
def telling(folder: Path) -> Iterator[Told]:
    """Such a pipe."""
    told = Told(folder)
    try:
        yield told
    finally:
        told.close()
