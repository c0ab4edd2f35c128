"""SIGTERM under load, with the listening socket handed on to a second process: no call is lost and none runs twice."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from mcp import Client

from mcpconn.testing import HttpServer, Script
from tests.support import text_of

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend():
    return "asyncio"


async def start(folder: Path, listening: socket.socket) -> anyio.abc.Process:
    """`mcpconn serve` with a listening socket that is passed to it as systemd does."""
    serve = [sys.executable, "-m", "mcpconn", "serve", str(folder / "mcp.json"), "--state", str(folder / "state")]
    passing = f'exec 3<&{listening.fileno()}; export LISTEN_PID=$$ LISTEN_FDS=1; exec "$@"'
    process = await anyio.open_process(
        ["bash", "-c", passing, "bash", *serve],
        pass_fds=[listening.fileno()],
        stderr=subprocess.STDOUT,
        env=os.environ,
    )
    assert process.stdout is not None
    said = b""
    while b"serving" not in said:
        said += await process.stdout.receive()
    return process


@pytest.mark.parametrize("mode", ["legacy", "auto"], ids=["legacy client", "modern client"])
async def test_sigterm_under_load_loses_no_call(tmp_path, mode: Any):
    script = Script()
    with anyio.fail_after(90), socket.create_server(("127.0.0.1", 0)) as listening:
        url = f"http://127.0.0.1:{listening.getsockname()[1]}/mcp"
        async with HttpServer(script) as server:
            (tmp_path / "mcp.json").write_text(json.dumps({"mcpServers": {"a": {"url": server.url}}}))
            first = await start(tmp_path, listening)
            answered: list[str] = []
            failed: list[BaseException] = []
            over = anyio.Event()

            async def calling(number: int) -> None:
                try:
                    async with Client(url, mode=mode) as client:
                        while not over.is_set():
                            answered.append(text_of(await client.call_tool("a__charge", {"amount": 1})))
                except Exception as error:
                    failed.append(error)

            async with anyio.create_task_group() as group:
                for number in range(8):
                    group.start_soon(calling, number)
                while len(answered) < 40:
                    await anyio.lowlevel.checkpoint()
                second = await start(tmp_path, listening)
                first.send_signal(signal.SIGTERM)
                await first.wait()
                sofar = len(answered)
                while len(answered) < sofar + 40 and not failed:
                    await anyio.lowlevel.checkpoint()
                over.set()
            second.terminate()
            await second.wait()
            assert second.stdout is not None
            await second.aclose()
            await first.aclose()
    assert not failed
    assert set(answered) == {"charged 1"}
    assert script.executions["charge"] == len(answered)
