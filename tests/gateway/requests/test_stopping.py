"""The end of a gateway's process: what still runs after the grace is answered truthfully, and nothing is cut."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import anyio.abc
import anyio.lowlevel
import httpx2
import pytest
from mcp import Client, MCPError
from mcp_types import CallToolResult

from mcpconn import Connection
from mcpconn.keys import IDEMPOTENCY_KEY, OUTCOME
from mcpconn.testing import HttpServer, Script, faults
from tests.gateway.conftest import gateway
from tests.gateway.test_idle import INITIALIZE
from tests.support import text_of

pytestmark = pytest.mark.anyio

MODES = pytest.mark.parametrize("mode", ["legacy", "auto"], ids=["legacy client", "modern client"])


def outcome(result: CallToolResult) -> str:
    assert result.is_error
    return str((result.meta or {})[OUTCOME])


@MODES
async def test_a_running_call_is_told_as_unknown(mode: Any) -> None:
    script, began = Script(), anyio.Event()
    script.on_execute = lambda _: began.set()
    async with gateway(script) as made, Client(made.url, mode=mode) as client:
        results: list[CallToolResult] = []

        async def call(meta: Any) -> None:
            results.append(await client.call_tool("a__slow_charge", {"seconds": 60}, meta=meta))

        async with anyio.create_task_group() as group:
            group.start_soon(call, None)
            group.start_soon(call, {IDEMPOTENCY_KEY: "k"})
            while script.executions["slow_charge"] < 2:
                await began.wait()
                began = anyio.Event()
            made.app.drain(calls=True)
    assert [outcome(each) for each in results] == ["unknown", "unknown"]


@MODES
async def test_a_call_that_was_not_sent_is_answered_as_not_run(mode: Any) -> None:
    script = Script()
    async with gateway(script) as made, Client(made.url, mode=mode) as client:
        await client.list_tools()
        # Its server is away from now on: the call waits, and is handed to no session.
        script.inject(faults.unavailable(), times=None, method=None)
        for connection in tuple(made.app.manager):
            made.app.manager[connection]._lifecycle.reconnect()
        async with anyio.create_task_group() as group:

            async def call() -> None:
                assert outcome(await client.call_tool("a__charge", {"amount": 1})) == "not_run"

            async def read() -> None:
                with pytest.raises(MCPError, match="was stopped") as caught:
                    await client.get_prompt("a__greet", {"name": "ann"})
                assert caught.value.error.data == {OUTCOME: "not_run"}

            group.start_soon(call)
            group.start_soon(read)
            stopping = made.app.endpoint("")._stopping
            while len(stopping._running) < 2:
                await anyio.lowlevel.checkpoint()
            made.app.drain(calls=True)
    assert script.executions["charge"] == 0


async def test_new_requests_are_refused_with_a_time_to_come_back() -> None:
    async with gateway(Script()) as made, httpx2.AsyncClient() as http:
        made.app.drain(calls=True)
        answer = await http.post(made.url, json=json.loads(INITIALIZE))
        assert answer.status_code == 503
        assert int(answer.headers["retry-after"]) >= 1


async def test_a_connection_sends_its_call_to_the_next_process() -> None:
    """It repeats with its key, so a call that was not sent is left to the successor."""
    script = Script()
    async with gateway(script) as made, Connection(made.url) as connection:
        await connection.list_tools()
        script.inject(faults.unavailable(), times=None, method=None)
        for name in tuple(made.app.manager):
            made.app.manager[name]._lifecycle.reconnect()
        async with anyio.create_task_group() as group:
            answers: list[str] = []

            async def call() -> None:
                answers.append(text_of(await connection.call_tool("a__charge", {"amount": 1}, timeout=50)))

            group.start_soon(call)
            manager = made.app.manager
            while not any(manager[name]._lifecycle.gate.waiting for name in manager):
                await anyio.lowlevel.checkpoint()
            made.app.drain(calls=True)
            script.clear()
            await made.replace()
    assert answers == ["charged 1"]
    assert script.executions["charge"] == 1


SAFETY = 60.0
SERVE = "import mcpconn.gateway.serve as serve; serve.GRACE = 0.5; from mcpconn.cli import main; main()"


@asynccontextmanager
async def kept(process: anyio.abc.Process) -> AsyncIterator[None]:
    """A process that does not outlive the block."""
    try:
        yield
    finally:
        with anyio.CancelScope(shield=True):
            if process.returncode is None:
                process.kill()
            await process.aclose()


async def test_sigterm_answers_calls_after_grace(tmp_path: Any) -> None:
    script, began = Script(), anyio.Event()
    script.on_execute = lambda _: began.set()
    with anyio.fail_after(SAFETY), socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
        free.close()
        async with HttpServer(script) as server:
            file = tmp_path / "mcp.json"
            file.write_text(json.dumps({"mcpServers": {"a": {"url": server.url}}}))
            rest = ["serve", str(file), "--state", str(tmp_path / "state"), "--listen", f"127.0.0.1:{port}"]
            command = [sys.executable, "-c", SERVE, *rest]
            process = await anyio.open_process(command, stderr=subprocess.STDOUT, env=os.environ)
            assert process.stdout is not None
            said = b""
            while b"serving" not in said:
                said += await process.stdout.receive()
            results: list[str] = []

            async def call(mode: Any) -> None:
                async with Client(f"http://127.0.0.1:{port}/mcp", mode=mode) as client:
                    results.append(outcome(await client.call_tool("a__slow_charge", {"seconds": 60})))

            async with kept(process), anyio.create_task_group() as group:
                for mode in ("legacy", "auto"):
                    group.start_soon(call, mode)
                while script.executions["slow_charge"] < 2:
                    await began.wait()
                    began = anyio.Event()
                process.send_signal(signal.SIGTERM)
                await process.wait()
            assert results == ["unknown", "unknown"]
            assert process.returncode == 0
