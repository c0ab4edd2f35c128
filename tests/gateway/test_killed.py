"""The gateway as a process that is killed with SIGKILL: its clients go on, and no unsafe call runs twice."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from weakref import finalize

import anyio
import mcp_types as types
import pytest
from mcp import Client
from mcp_types import CallToolResult

from mcpconn.gateway.outcomes import OUTCOME
from mcpconn.keys import IDEMPOTENCY_KEY
from mcpconn.testing import FaultProxy, HttpServer, Script, faults

pytestmark = pytest.mark.anyio

MODES = pytest.mark.parametrize("mode", ["legacy", "auto"], ids=["legacy client", "modern client"])
SAFETY = 300.0
"""Seconds after which a test that hangs is ended: each start of a gateway takes 30 s on a machine that is busy."""
META: Any = {IDEMPOTENCY_KEY: "k"}


class Process:
    """A gateway's process, at one address, with one store and key, whichever process it is."""

    def __init__(self, folder: Path, url: str) -> None:
        self.file, self.state = folder / "mcp.json", folder / "state"
        self.file.write_text(json.dumps({"mcpServers": {"a": {"url": url}}}), encoding="utf-8")
        # It outlives the process, as a supervisor's does: who connects in between waits in its queue.
        listening = socket.create_server(("127.0.0.1", 0), backlog=1024)
        self.port = listening.getsockname()[1]
        self._listening = listening.detach()
        finalize(self, os.close, self._listening)
        self.url = f"http://127.0.0.1:{self.port}/mcp"
        self.process: anyio.abc.Process | None = None

    async def start(self, operation: str = "none", when: str = "before") -> None:
        command = [sys.executable, "-m", "tests.gateway.killing", str(self.file), str(self.state)]
        self.process = await anyio.open_process(
            [*command, str(self._listening), operation, when],
            pass_fds=[self._listening],
            stderr=subprocess.DEVNULL,
            env=os.environ,
        )
        assert self.process.stdout is not None
        assert (await self.process.stdout.receive()).startswith(b"ready")

    async def kill(self) -> None:
        assert self.process is not None
        if self.process.returncode is None:
            self.process.kill()
        await self.process.aclose()


@asynccontextmanager
async def serving(folder: Path, script: Script) -> AsyncIterator[Process]:
    with anyio.fail_after(SAFETY):
        async with HttpServer(script) as server:
            made = Process(folder, server.url)
            try:
                await made.start()
                yield made
            finally:
                with anyio.CancelScope(shield=True):
                    await made.kill()


def outcome(result: CallToolResult) -> str:
    return str((result.meta or {}).get(OUTCOME)) if result.is_error else "answered"


async def attempt(url: str, mode: Any) -> str:
    """One keyed call of a client of its own: its outcome, or `broken` if the connection broke."""
    try:
        async with Client(url, mode=mode) as client:
            return outcome(await client.call_tool("a__charge", {"amount": 1}, meta=META))
    except Exception:
        return "broken"


@MODES
async def test_clients_outlive_their_gateway(tmp_path, mode):
    script = Script()
    async with serving(tmp_path, script) as made:
        news: list[Any] = []

        async def note(message: Any) -> None:
            if isinstance(message, types.ResourceUpdatedNotification):
                news.append(str(message.params.uri))

        async with Client(made.url, mode=mode, message_handler=note) as client:
            await client.list_tools()
            uri = str((await client.list_resources()).resources[0].uri)
            if mode == "legacy":
                await client.session.send_request(
                    types.SubscribeRequest(params=types.SubscribeRequestParams(uri=uri)), types.EmptyResult
                )
                await client.set_logging_level("error")
            before, capabilities = set(script.states), client.server_capabilities
            await made.kill()
            await made.start()
            for number in range(2):
                result = await client.call_tool("a__add", {"a": 1, "b": number})
                assert outcome(result) == "answered"
            assert client.server_capabilities == capabilities
            if mode == "auto":
                async with client.listen(resource_subscriptions=[uri]) as events, anyio.create_task_group() as group:

                    async def updates() -> None:
                        while True:
                            script.notify("notifications/resources/updated", {"uri": uri.partition("+")[2]})
                            await client.call_tool("a__add", {"a": 1, "b": 1})

                    group.start_soon(updates)
                    event: Any = await events.__anext__()
                    assert event.uri == uri
                    group.cancel_scope.cancel()
            if mode == "legacy":
                with anyio.fail_after(20):
                    while not news:
                        script.notify("notifications/resources/updated", {"uri": uri.partition("+")[2]})
                        await client.send_ping()
                assert set(news) == {uri}
                # The new upstream session was told what the old one knew: its notifications are for this client.
                told = [state for session, state in script.states.items() if session not in before]
                assert "error" in [state.log_level for state in told]
                assert {uri.partition("+")[2]} in [state.subscriptions for state in told]


@MODES
@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("operation", ["get", "add", "swap", "delete"])
async def test_killed_at_each_write_a_call_runs_at_most_once(tmp_path, mode, operation, when):
    script = Script()
    async with serving(tmp_path, script) as made:
        await made.kill()
        await made.start(operation, when)
        async with Client(made.url, mode=mode) as client:
            await client.list_tools()
        if operation == "delete":
            script.inject(faults.unauthorized(), times=None)
        first = made.process
        assert first is not None

        async def restart() -> None:
            # As a supervisor does, at once: a legacy client takes up its stream again, and waits for who answers.
            await first.wait()
            await made.kill()
            script.clear()
            await made.start()

        async with anyio.create_task_group() as group:
            group.start_soon(restart)
            await attempt(made.url, mode)
            if first.returncode is None:
                first.kill()
        ran = script.executions["charge"]
        again = await attempt(made.url, mode)
        assert again in ("answered", "unknown")
        assert script.executions["charge"] <= 1
        if again == "answered":
            assert script.executions["charge"] == 1
        if ran == 1 and (operation, when) == ("swap", "after"):
            assert again == "answered", "the answer was written"
        if operation == "get" or (operation, when) == ("add", "before"):
            assert again == "answered", "nothing had been sent"


@pytest.mark.parametrize("mode", ["legacy"])
async def test_a_call_that_died_with_the_gateway_is_unknown(tmp_path, mode):
    script = Script()
    async with serving(tmp_path, script) as made, Client(made.url, mode=mode) as client:
        await client.list_tools()
        began = anyio.Event()
        script.on_execute = lambda _: began.set()

        async def restart() -> None:
            await began.wait()
            await made.kill()
            await made.start()

        async with anyio.create_task_group() as group:
            group.start_soon(restart)
            result = await client.call_tool("a__slow_charge", {"seconds": 30})
        assert outcome(result) == "unknown"
        assert outcome(await client.call_tool("a__add", {"a": 1, "b": 2})) == "answered"
    assert script.executions["slow_charge"] == 1


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("cut", [True, False], ids=["stream cut", "stream whole"])
async def test_an_answer_that_was_stored_outlives_the_gateway(tmp_path, when, cut):
    script, back = Script(), anyio.Event()
    async with serving(tmp_path, script) as made:
        await made.kill()
        await made.start("append", when)
        async with (
            FaultProxy(made) as proxy,
            Client(proxy.url, mode="legacy") as client,
            anyio.create_task_group() as group,
        ):
            await client.list_tools()
            script.on_execute = lambda _: proxy.reset() if cut else None

            async def restart() -> None:
                assert made.process is not None
                await made.process.wait()
                await made.kill()
                await made.start()
                back.set()

            group.start_soon(restart)
            result = await client.call_tool("a__charge", {"amount": 1})
            # An answer is sent before it is stored, so only a client that was not there for it depends on the store.
            assert outcome(result) == ("unknown" if cut and when == "before" else "answered")
            script.on_execute = None
            # A bare client that sends a request to a process that is about to be killed has lost its session.
            await back.wait()
            assert outcome(await client.call_tool("a__add", {"a": 1, "b": 2})) == "answered"
    assert script.executions["charge"] == 1
