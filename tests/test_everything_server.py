"""The everything server of the TypeScript SDK, killed and restarted between calls: the next call answers.

Restarted, it refuses the sessions of its former life with a 400 and a JSON-RPC error that has no id.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import psutil
import pytest

from mcpconn import Connection, FailureKind, State
from mcpconn.testing import FaultProxy
from tests.support import Openings, Seen, quiet, text_of, until

pytestmark = pytest.mark.anyio

STARTING = 60.0
"""Seconds node may take to start, on a machine that is busy with other things."""


def node() -> str:
    found = shutil.which("node")
    assert found is not None
    return found


@asynccontextmanager
async def connected(config: dict[str, Any], **options: Any) -> AsyncIterator[Connection]:
    with anyio.fail_after(2 * STARTING):
        async with Connection(config, name="everything", **options) as connection:
            assert text_of(await connection.call_tool("echo", {"message": "one"})) == "Echo: one"
            await quiet(connection)
            yield connection


async def test_over_stdio_a_killed_server_is_running_again_before_the_next_call(everything_server_js: Path) -> None:
    config = {"command": node(), "args": [str(everything_server_js), "stdio"]}
    async with connected(config) as connection:
        seen = Seen(connection)
        for epoch in (2, 3):
            (child,) = (one for one in psutil.Process().children() if str(everything_server_js) in one.cmdline())
            child.kill()
            await until(connection, lambda epoch=epoch: connection.epoch == epoch)  # type: ignore[misc]
            result = await connection.call_tool("echo", {"message": "again"}, wait=False)
            assert text_of(result) == "Echo: again"
            await quiet(connection)
        assert seen.events == ["lost", "established"] * 2
        assert await connection.catalog.refresh()
        assert len(connection.catalog.tools) > 5


class HttpEverything:
    """The server over Streamable HTTP, on one port for all its lives."""

    def __init__(self, entry: Path) -> None:
        self._entry = entry
        self._process: subprocess.Popen[bytes] | None = None
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port: int = probe.getsockname()[1]

    async def up(self) -> None:
        """Start it, and wait until it says that it listens."""
        self._process = subprocess.Popen(
            [node(), str(self._entry), "streamableHttp"],
            env={**os.environ, "PORT": str(self.port)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        assert self._process.stderr is not None
        with anyio.fail_after(STARTING):
            while b"listening on port" not in (line := await anyio.to_thread.run_sync(self._process.stderr.readline)):
                assert line, "it ended"

    def kill(self) -> None:
        """End it without a word."""
        if self._process is not None:
            process, self._process = self._process, None
            with process:
                process.kill()


@pytest.fixture
def server(everything_server_js: Path) -> Iterator[HttpEverything]:
    everything = HttpEverything(everything_server_js)
    yield everything
    everything.kill()


async def test_over_http_a_killed_and_restarted_server_answers_the_next_call(server: HttpEverything) -> None:
    await server.up()
    async with connected({"url": f"http://127.0.0.1:{server.port}/mcp"}) as connection:
        seen = Seen(connection)
        server.kill()
        await server.up()
        assert text_of(await connection.call_tool("echo", {"message": "two"})) == "Echo: two"
        await quiet(connection)
        assert (connection.state, connection.epoch) == (State.READY, 2)
        assert seen.events.count("lost") == 1
        assert connection.last_failure is not None
        assert connection.last_failure.kind in (FailureKind.SESSION_EXPIRED, FailureKind.UNAVAILABLE)


async def test_a_call_during_an_outage_answers_when_it_ends(server: HttpEverything) -> None:
    await server.up()
    async with connected({"url": f"http://127.0.0.1:{server.port}/mcp"}) as connection:
        server.kill()
        async with anyio.create_task_group() as group:
            group.start_soon(server.up)
            assert text_of(await connection.call_tool("echo", {"message": "three"})) == "Echo: three"
        await quiet(connection)
        assert connection.epoch == 2


@pytest.mark.parametrize("engine", ["direct", "httpx"])
async def test_a_server_is_heard_after_many_cuts(server: HttpEverything, engine: str) -> None:
    await server.up()
    heard = anyio.Event()

    async def log(params: object) -> None:
        heard.set()

    async with FaultProxy(server) as proxy:
        entry = {"url": proxy.url, "engine": engine}
        async with connected(entry, logging_callback=log) as connection:
            opened = Openings(connection)
            # The SDK gives a stream up after the second one.
            for number in (1, 2):
                await opened.reach(number)
                proxy.reset()
            await opened.reach(3)
            await connection.call_tool("toggle-simulated-logging")
            await heard.wait()
            assert (connection.state, connection.epoch) == (State.READY, 1)
