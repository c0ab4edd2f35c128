"""The same with sockets and children: cancelled anywhere, no file descriptor and no process is left behind."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import psutil
import pytest

from mcpconn import Connection, Policy
from mcpconn.core.backoff import Backoff
from mcpconn.testing import STDIO_SERVER, HttpServer, Script
from tests.cancellation.sweep import Cut, every_checkpoint
from tests.support import SAFETY, UNFINISHED_STREAMS, warmed

pytestmark = [pytest.mark.anyio, UNFINISHED_STREAMS]

# A session that is forgotten young repeatedly is dialled more slowly each time, and taken for one of several
# replicas; here none is young.
POLICY = Policy(drain_timeout=1, proven_after=1e-6, backoff=Backoff(initial=0.001, maximum=0.001))
PROCESS = psutil.Process()


def open_files() -> int:
    return PROCESS.num_fds()


async def until(condition: Callable[[], bool]) -> None:
    """Give the other side the turns that it needs to notice."""
    with anyio.fail_after(SAFETY):
        while not condition():
            await anyio.lowlevel.checkpoint()


def entered(entry: dict[str, Any]) -> Callable[[Cut], Awaitable[None]]:
    """Enter a connection, make a call, leave."""

    async def make(cut: Cut) -> None:
        connection = Connection(entry, name="srv", policy=POLICY)
        await cut.through(connection.__aenter__())
        try:
            await cut.through(connection.call_tool("charge", {"amount": 1}))
        finally:
            await cut.through(connection.__aexit__(None, None, None))

    return make


async def untouched(make: Callable[[Cut], Awaitable[None]]) -> None:
    """Do it once, to its end: what an event loop opens with the first socket or child, it keeps."""
    await make(Cut(0, anyio.CancelScope()))


@asynccontextmanager
async def served() -> AsyncIterator[tuple[Script, HttpServer]]:
    script = Script()
    with anyio.fail_after(SAFETY):
        async with HttpServer(script) as server:
            yield script, server


async def test_no_socket_is_left_behind_by_entering_calling_and_leaving() -> None:
    async with served() as (script, server):
        make = entered({"url": server.url})
        await untouched(make)
        await until(lambda: server.open_connections == 0)
        before = open_files()

        async def clean(at: int) -> None:
            await until(lambda: server.open_connections == 0)
            assert open_files() == before, f"cancelled at {at}"

        assert await every_checkpoint(make, after=clean) > 3
        assert script.executions["charge"] >= 1


@pytest.mark.parametrize("forgotten", [False, True])
async def test_a_cancelled_call_disturbs_no_neighbour_on_sockets(forgotten: bool) -> None:
    async with served() as (script, server), Connection({"url": server.url}, name="srv", policy=POLICY) as connection:
        await warmed(connection)

        async def begin() -> None:
            if forgotten:
                script.forget_sessions()

        async def make(cut: Cut) -> None:
            await cut.through(connection.call_tool("charge", {"amount": 1}))

        async def clean(at: int) -> None:
            # The courtesy of a cancelled call, and an old session's end, are their own connections' business.
            await warmed(connection)
            assert connection._lifecycle.gate.in_flight == 0

        assert await every_checkpoint(make, before=begin, after=clean) >= 1


async def test_no_child_and_no_pipe_is_left_behind_by_entering_calling_and_leaving(tmp_path: Path) -> None:
    count = tmp_path / "count"
    entry = {"command": sys.executable, "args": [str(STDIO_SERVER), "--count-file", str(count)]}
    make = entered(entry)

    async def clean(at: int) -> None:
        children = PROCESS.children(recursive=True)
        assert not [child for child in children if str(STDIO_SERVER) in child.cmdline()], f"cancelled at {at}"
        assert open_files() == before, f"cancelled at {at}"

    with anyio.fail_after(SAFETY):
        await untouched(make)
        before = open_files()
        assert await every_checkpoint(make, after=clean) > 3
    assert count.read_text().split().count("charge") >= 1
