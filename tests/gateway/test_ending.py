"""A gateway's process that is told to stop, by signals or by the end of stdin, while calls run."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import anyio
import psutil
import pytest
from anyio.abc import Process
from mcp import Client

from mcpconn.keys import OUTCOME
from mcpconn.testing import HttpServer, Script
from tests.gateway.crowd import INITIALIZE, INITIALIZED, Bare
from tests.gateway.processes import command
from tests.stdio.programs import server

pytestmark = pytest.mark.anyio

SAFETY = 60.0
SOON = 15.0
"""Seconds for a process to end at a second signal, on a busy machine. The grace is 30 s."""
SIGNALS = pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)


class Said:
    """What a process has written."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self.text = ""

    async def until(self, text: str) -> str:
        """Everything, once `text` is in it."""
        while text not in self.text:
            self.text += (await self._stream.receive()).decode()
        return self.text

    async def rest(self) -> str:
        """Everything, once the process has ended."""
        with suppress(anyio.EndOfStream):
            while True:
                self.text += (await self._stream.receive()).decode()
        return self.text


@asynccontextmanager
async def started(arguments: list[str], **options: Any) -> AsyncIterator[tuple[Process, Said]]:
    """A process that does not outlive the block."""
    process = await anyio.open_process(arguments, env=os.environ, **options)
    try:
        yield process, Said(process.stdout)
    finally:
        with anyio.CancelScope(shield=True):
            with suppress(ProcessLookupError):
                process.kill()
            await process.aclose()


@SIGNALS
async def test_a_second_signal_answers_and_ends(number: signal.Signals, tmp_path: Path) -> None:
    script, began, outcomes = Script(), anyio.Event(), []
    script.on_execute = lambda _: began.set()
    with anyio.fail_after(SAFETY):
        async with HttpServer(script) as behind:
            serve = command(tmp_path, {"mcpServers": {"a": {"url": behind.url}}}, "--listen", "127.0.0.1:0")
            async with started(serve, stderr=subprocess.STDOUT) as (process, said):
                url = "http" + (await said.until("/mcp\n")).partition("http")[2].partition("\n")[0]

                async def call(mode: Any) -> None:
                    async with Client(url, mode=mode) as client:
                        result = await client.call_tool("a__slow_charge", {"seconds": 60})
                        outcomes.append((result.meta or {})[OUTCOME])

                async with anyio.create_task_group() as group:
                    group.start_soon(call, "legacy")
                    group.start_soon(call, "auto")
                    while script.executions["slow_charge"] < 2:
                        await began.wait()
                        began = anyio.Event()
                    process.send_signal(number)
                    await said.until("stopping: 2 unfinished, with 30 s left; another signal ends them at once")
                    process.send_signal(number)
                    begun = time.monotonic()
                    await said.rest()
                    await process.wait()
    assert time.monotonic() - begun < SOON
    assert outcomes == ["unknown", "unknown"]
    assert "stopped with unfinished requests: 2 told that they may have run\n" in said.text
    assert process.returncode == 0


async def test_a_client_that_does_not_read_delays_no_end(tmp_path: Path) -> None:
    """From Python 3.12 on, asyncio waits for open connections before it closes a server."""
    script, began = Script(), anyio.Event()
    script.on_execute = lambda _: began.set()
    with anyio.fail_after(SAFETY):
        async with HttpServer(script) as behind:
            serve = command(tmp_path, {"mcpServers": {"a": {"url": behind.url}}}, "--listen", "127.0.0.1:0")
            async with started(serve, stderr=subprocess.STDOUT) as (process, said):
                port = int((await said.until("/mcp\n")).partition("127.0.0.1:")[2].partition("/")[0])
                client = await Bare.connect(port)
                await client.begin(listen=False)
                # A call that its client would repeat is not answered at the end, so its connection stays open.
                meta = {"mcpconn/idempotencyKey": "k", "mcpconn/first": True}
                params = {"name": "a__slow_charge", "arguments": {"seconds": 60}, "_meta": meta}
                await client.send("POST", {"id": 2, "method": "tools/call", "params": params})
                await began.wait()
                process.send_signal(signal.SIGTERM)
                await said.until("stopping: 1 unfinished")
                process.send_signal(signal.SIGTERM)
                begun = time.monotonic()
                await said.rest()
                await process.wait()
                client.close()
    assert time.monotonic() - begun < SOON
    assert "1 cut off, which their clients repeat with their keys" in said.text
    assert process.returncode == 0


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, None], ids=["TERM", "INT", "HUP", "EOF"])
async def test_over_stdio_what_runs_is_answered(end: signal.Signals | None, tmp_path: Path) -> None:
    count = tmp_path / "count"
    content = {"mcpServers": {"a": server("--era", "legacy", "--count-file", str(count))}}
    call = {"id": 2, "method": "tools/call", "params": {"name": "a__slow_charge", "arguments": {"seconds": 60}}}
    with anyio.fail_after(SAFETY):
        async with started(command(tmp_path, content, "--stdio"), stderr=None) as (process, said):
            assert process.stdin is not None
            for message in (INITIALIZE, INITIALIZED, call):
                await process.stdin.send((json.dumps({"jsonrpc": "2.0", **message}) + "\n").encode())
            await said.until('"id":1,')
            while not count.exists() or not count.read_text():  # noqa: ASYNC110 - another process has no event for it
                await anyio.sleep(0.05)
            children = psutil.Process(process.pid).children(recursive=True)
            if end is None:
                await process.stdin.aclose()
            else:
                process.send_signal(end)
            *_, last = (await said.rest()).splitlines()
            await process.wait()
    answer = json.loads(last)
    assert answer["id"] == 2
    assert answer["result"]["_meta"][OUTCOME] == "unknown"
    assert process.returncode == 0
    assert not [child for child in children if child.is_running() and child.status() != psutil.STATUS_ZOMBIE]
