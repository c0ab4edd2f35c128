"""Servers that nobody scripted, in processes of their own: the SDK's over HTTP and SSE, and in this process."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import psutil
import pytest
from mcp import MCPError
from mcp.server import MCPServer

from mcpconn import CallTimeout, Connection, FailureKind, OutcomeUnknown, State
from tests.support import BUSY, SAFETY, UNFINISHED_STREAMS, Seen, quiet, text_of, until

pytestmark = [pytest.mark.anyio, UNFINISHED_STREAMS]

K = FailureKind
PROGRAM = Path(__file__).with_name("sdk_server.py")
STARTING = 60.0
"""Seconds a server may take to start, on a machine that is busy with other things."""


class ServerProcess:
    """A server program that can be killed and started again on the same port."""

    def __init__(self, transport: str, folder: Path) -> None:
        self.count_file = folder / "executed"
        self._transport = transport
        self._process: subprocess.Popen[bytes] | None = None
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port: int = probe.getsockname()[1]

    @property
    def config(self) -> dict[str, Any]:
        path = "sse" if self._transport == "sse" else "mcp"
        return {"url": f"http://127.0.0.1:{self.port}/{path}", "transport": self._transport}

    @property
    def process(self) -> psutil.Process:
        assert self._process is not None
        return psutil.Process(self._process.pid)

    def executed(self, tool: str) -> int:
        return self.count_file.read_text().split().count(tool) if self.count_file.exists() else 0

    def spawn(self) -> None:
        assert self._process is None
        self._process = subprocess.Popen(
            [sys.executable, str(PROGRAM), str(self.port), self._transport, str(self.count_file)],
            stdout=subprocess.PIPE,
        )

    async def up(self) -> None:
        """Start it if need be, and wait until it listens."""
        if self._process is not None:
            return
        self.spawn()
        assert self._process is not None
        assert self._process.stdout is not None
        with anyio.fail_after(STARTING):
            assert await anyio.to_thread.run_sync(self._process.stdout.readline) == b"ready\n"

    def kill(self) -> None:
        """End it without a word."""
        if self._process is not None:
            process, self._process = self._process, None
            with process:
                process.kill()

    async def executing(self, tool: str, count: int) -> None:
        """Wait until a tool has been started so many times."""
        while self.executed(tool) < count:
            await anyio.lowlevel.checkpoint()


def program(transport: str, factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    server = ServerProcess(transport, factory.mktemp(transport))
    try:
        yield server
    finally:
        server.kill()


@pytest.fixture(scope="module")
def http(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    yield from program("http", tmp_path_factory)


@pytest.fixture(scope="module")
def sse(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    yield from program("sse", tmp_path_factory)


@pytest.fixture(params=["legacy", "auto"])
def mode(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@asynccontextmanager
async def connected(server: ServerProcess, **config: Any) -> AsyncIterator[Connection]:
    """A connection that has made a call."""
    await server.up()
    with anyio.fail_after(SAFETY + STARTING):
        async with Connection({**server.config, **config}, name="sdk") as connection:
            assert text_of(await connection.call_tool("add", {"a": 1, "b": 1})) == "2"
            await quiet(connection)
            yield connection


# -- over HTTP and SSE


async def test_both_eras_of_the_sdk_are_spoken(http: ServerProcess, mode: str) -> None:
    async with connected(http, mode=mode) as connection:
        status = connection.status()
        assert status["era"] == ("legacy" if mode == "legacy" else "modern")
        assert status["server"] is not None
        assert status["server"]["name"] == "sdk"
        assert [tool.name for tool in (await connection.list_tools()).tools] == [
            "add",
            "charge",
            "slow_charge",
            "refuses",
        ]


async def test_the_sdks_server_killed_and_restarted_between_calls_answers_the_next(
    http: ServerProcess, mode: str
) -> None:
    async with connected(http, mode=mode) as connection:
        seen, before = Seen(connection), http.executed("charge")
        http.kill()
        await http.up()
        assert text_of(await connection.call_tool("charge", {"amount": 3})) == "charged 3"
        assert http.executed("charge") == before + 1
        await quiet(connection)
        assert connection.epoch <= 2
        assert seen.events.count("established") <= 1


async def test_a_killed_sdk_server_leaves_the_outcome_unknown(http: ServerProcess, mode: str) -> None:
    async with connected(http, mode=mode) as connection:
        before = http.executed("slow_charge")
        outcomes: list[str] = []

        async def slow() -> None:
            with pytest.raises(OutcomeUnknown) as caught:
                await connection.call_tool("slow_charge", {"seconds": 30})
            outcomes.append(caught.value.outcome)

        async with anyio.create_task_group() as group:
            group.start_soon(slow)
            await http.executing("slow_charge", before + 1)
            http.kill()
        # A call that is made while the server is down waits for it.
        async with anyio.create_task_group() as group:
            group.start_soon(http.up)
            assert text_of(await connection.call_tool("charge", {"amount": 4})) == "charged 4"
        assert outcomes == ["unknown"]
        assert http.executed("slow_charge") == before + 1
        assert connection.state is State.READY


@pytest.mark.skipif(sys.platform == "win32", reason="SIGSTOP is POSIX's")
@pytest.mark.parametrize("transport", ["http", "sse"])
async def test_a_stopped_server_answers_later(transport: str, request: pytest.FixtureRequest, mode: str) -> None:
    server: ServerProcess = request.getfixturevalue(transport)
    if transport == "sse" and mode == "auto":
        mode = "legacy"
    async with connected(server, mode=mode, probe_timeout=20) as connection:
        seen = Seen(connection)
        server.process.suspend()
        try:
            for _ in range(3):
                started = anyio.current_time()
                with pytest.raises(CallTimeout):
                    await connection.call_tool("charge", timeout=0.2)
                assert 0.2 <= anyio.current_time() - started < 0.2 + BUSY
            # One probe for all of them.
            assert seen.events == ["suspected"]
        finally:
            server.process.resume()
        assert text_of(await connection.call_tool("add", {"a": 2, "b": 2})) == "4"
        await quiet(connection)
        assert (connection.state, connection.epoch) == (State.READY, 1)


@pytest.mark.skipif(sys.platform == "win32", reason="SIGSTOP is POSIX's")
async def test_a_server_stopped_for_long_is_dialled_again(http: ServerProcess, mode: str) -> None:
    async with connected(http, mode=mode, probe_timeout=0.2, connect_timeout=0.3) as connection:
        seen = Seen(connection)
        http.process.suspend()
        try:
            with pytest.raises(CallTimeout):
                await connection.call_tool("charge", timeout=0.1)
            await until(connection, lambda: "attempt_failed" in seen.events)
            started = anyio.current_time()
            with pytest.raises(CallTimeout, match="not ready within"):
                await connection.call_tool("charge", timeout=0.2)
            assert 0.2 <= anyio.current_time() - started < 0.2 + BUSY
        finally:
            http.process.resume()
        assert text_of(await connection.call_tool("add", {"a": 2, "b": 2})) == "4"
        assert seen.events.count("suspected") == seen.events.count("lost") == 1


async def test_the_legacy_sse_transport_is_spoken(sse: ServerProcess) -> None:
    async with connected(sse) as connection:
        assert connection.status()["transport"] == "sse"
        before = sse.executed("charge")
        async with anyio.create_task_group() as group:
            for _ in range(10):
                group.start_soon(connection.call_tool, "charge")
        assert sse.executed("charge") == before + 10


async def test_a_legacy_sse_server_is_dialled_after_a_restart(
    sse: ServerProcess,
) -> None:
    async with connected(sse) as connection:
        seen, before = Seen(connection), sse.executed("slow_charge")

        async def slow() -> None:
            with pytest.raises(OutcomeUnknown):
                # Otherwise the next session is asked, and there is none before the call has ended.
                await connection.call_tool("slow_charge", {"seconds": 30}, idempotent=False)

        async with anyio.create_task_group() as group:
            group.start_soon(slow)
            await sse.executing("slow_charge", before + 1)
            sse.kill()
        # The end of the stream is proof: nobody had to call.
        assert seen.events[0] == "lost"
        await sse.up()
        assert text_of(await connection.call_tool("charge", {"amount": 5})) == "charged 5"
        assert sse.executed("slow_charge") == before + 1
        assert connection.epoch == 2


@pytest.mark.parametrize("transport", ["http", "sse"])
async def test_what_a_tool_says_is_an_answer_over_every_transport(
    transport: str, request: pytest.FixtureRequest, mode: str
) -> None:
    server: ServerProcess = request.getfixturevalue(transport)
    async with connected(server, mode="legacy" if transport == "sse" else mode) as connection:
        seen = Seen(connection)
        with pytest.raises(MCPError, match="Pay first") as caught:
            await connection.call_tool("refuses")
        assert type(caught.value) is MCPError
        assert (caught.value.error.code, caught.value.error.data) == (-32042, {"price": 5})
        await quiet(connection)
        # A code that JSON-RPC reserves: a probe has found that it is not about the session.
        assert (seen.events, connection.epoch) == (["suspected"], 1)


# -- in this process


def in_process() -> MCPServer:
    server = MCPServer("here")

    @server.tool()
    def add(a: int, b: int) -> str:
        return str(a + b)

    @server.tool()
    def fails() -> str:
        raise ValueError("session expired")

    @server.tool()
    def refuses() -> str:
        raise MCPError(-32042, "Pay first", {"price": 5})

    @server.tool()
    def misleads() -> str:
        raise MCPError(-32603, "the user's shopping session expired")

    return server


async def test_a_server_object_needs_no_wire(mode: str) -> None:
    async with Connection({"server": in_process(), "mode": mode}, name="here") as connection:
        assert text_of(await connection.call_tool("add", {"a": 1, "b": 2})) == "3"
        result = await connection.call_tool("fails")
        assert result.is_error
        assert (connection.state, connection.epoch) == (State.READY, 1)
        assert connection.status()["transport"] == "memory"
    assert connection.state is State.CLOSED


@pytest.mark.parametrize(("tool", "code"), [("refuses", -32042), ("misleads", -32603)])
async def test_a_server_objects_error_is_untouched(tool: str, code: int, mode: str) -> None:
    async with Connection({"server": in_process(), "mode": mode}, name="here") as connection:
        await quiet(connection)
        with pytest.raises(MCPError) as caught:
            await connection.call_tool(tool)
        assert type(caught.value) is MCPError
        assert caught.value.error.code == code
        assert caught.value.error.data == ({"price": 5} if tool == "refuses" else None)
        await quiet(connection)
        assert (connection.state, connection.epoch) == (State.READY, 1)


async def test_a_call_of_a_server_object_can_time_out_and_leaves_it_well(mode: str) -> None:
    server = in_process()

    @server.tool()
    async def hangs() -> str:
        await anyio.sleep_forever()
        raise AssertionError

    async with Connection({"server": server, "mode": mode}, name="here") as connection:
        with pytest.raises(CallTimeout) as caught:
            await connection.call_tool("hangs", timeout=0.05)
        assert caught.value.outcome == "unknown"
        await quiet(connection)
        assert text_of(await connection.call_tool("add", {"a": 1, "b": 2})) == "3"
        assert connection.epoch == 1
