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
from tests.gateway.test_idle import INITIALIZE, INITIALIZED, ask
from tests.gateway.test_killed import SAFETY
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
    with anyio.fail_after(SAFETY), socket.create_server(("127.0.0.1", 0)) as listening:
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


@pytest.mark.parametrize("mode", ["legacy", "auto"], ids=["legacy client", "modern client"])
async def test_open_requests_end_after_sigterm(tmp_path, mode: Any):
    script, began = Script(), anyio.Event()
    script.on_execute = lambda _: began.set()
    with anyio.fail_after(SAFETY), socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        async with HttpServer(script) as server:
            (tmp_path / "mcp.json").write_text(json.dumps({"mcpServers": {"a": {"url": server.url}}}))
            first = await start(tmp_path, listening)
            streaming, used, unused = [await anyio.connect_tcp("127.0.0.1", port) for _ in range(3)]
            # A stream of events, a socket on which a request comes after SIGTERM, and one on which none comes in time.
            session = (await ask(streaming, "POST", INITIALIZE)).partition("mcp-session-id: ")[2].partition("\r\n")[0]
            await ask(streaming, "POST", INITIALIZED, session)
            await ask(streaming, "GET", session=session)
            await ask(used, "POST", INITIALIZE)
            await ask(unused, "POST", INITIALIZE)
            results: list[str] = []

            async def in_flight() -> None:
                async with Client(f"http://127.0.0.1:{port}/mcp", mode=mode) as client:
                    results.append(text_of(await client.call_tool("a__slow_charge", {"seconds": 2})))
                    results.append(text_of(await client.call_tool("a__add", {"a": 1, "b": 2})))

            async def too_late() -> None:
                with pytest.raises(anyio.EndOfStream):
                    await unused.receive()
                await unused.send(b"POST /mcp HTTP/1.1\r\n")

            async with anyio.create_task_group() as group:
                group.start_soon(in_flight)
                await began.wait()
                first.send_signal(signal.SIGTERM)
                group.start_soon(too_late)
                # Before the process has seen the signal, an answer does not say so.
                while "connection: close" not in (await ask(used, "POST", INITIALIZE)).lower():
                    pass
                ended = b""
                while not ended.endswith(b"0\r\n\r\n"):
                    ended += await streaming.receive()
                second = await start(tmp_path, listening)
            assert results == ["slept 2", "3"]
            assert first.stdout is not None
            said = b"".join([piece async for piece in first.stdout])
            assert b"1 requests came after their connection had been closed; they did not run" in said
            assert await first.wait() == 0
            second.terminate()
            await second.wait()
            for each in (streaming, used, unused, first, second):
                await each.aclose()
    assert script.executions["slow_charge"] == 1
