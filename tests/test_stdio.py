"""Servers that are child processes: killed, crashing, stopped, and closed. Real processes throughout."""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import psutil
import pytest

from mcpconn import (
    CallFailed,
    CallTimeout,
    Connection,
    ConnectionFailed,
    FailureKind,
    Manager,
    OutcomeUnknown,
    Policy,
    State,
)
from mcpconn.testing import STDIO_SERVER
from tests.support import BUSY, SAFETY, Seen, idle, quiet, text_of, until

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(sys.platform == "win32", reason="signals and process groups are POSIX's"),
]

K = FailureKind
IMPATIENT = Policy(patience=1e-6, min_attempts=1)
"""Gives up at the first dial that fails."""


@pytest.fixture(params=["legacy", "modern"])
def era(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def program(*args: str) -> dict[str, Any]:
    """The configuration of a scripted server in a process of its own."""
    return {"command": sys.executable, "args": [str(STDIO_SERVER), *args]}


@asynccontextmanager
async def running(*args: str, policy: Policy | None = None, **config: Any) -> AsyncIterator[Connection]:
    """A connection to such a server that has made a call."""
    with anyio.fail_after(SAFETY):
        async with Connection({**program(*args), **config}, name="child", policy=policy) as connection:
            assert text_of(await connection.call_tool("add", {"a": 1, "b": 1})) == "2"
            await quiet(connection)
            yield connection


def child_of(connection: Connection) -> psutil.Process:
    """The running child: this process has no other that was started with its arguments."""
    (child,) = children(connection)
    return child


def children(connection: Connection) -> list[psutil.Process]:
    wanted = [connection.config.command, *connection.config.args]
    found = []
    for child in psutil.Process().children():
        try:
            if child.cmdline() == wanted and child.status() != psutil.STATUS_ZOMBIE:
                found.append(child)
        except psutil.NoSuchProcess:
            continue
    return found


class Executions:
    """What a child has executed, told through a pipe as it happens."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "executed"
        os.mkfifo(self.path)
        self._reader = os.open(self.path, os.O_RDONLY | os.O_NONBLOCK)
        # Held open, so that the pipe does not end when a child does.
        self._writer = os.open(self.path, os.O_WRONLY | os.O_NONBLOCK)
        self.names: list[str] = []

    def read(self) -> list[str]:
        """All so far."""
        with suppress(BlockingIOError):
            self.names += os.read(self._reader, 65536).decode().split()
        return self.names

    async def one(self, name: str) -> None:
        """Wait until a tool has started."""
        while name not in self.read():
            await anyio.wait_readable(self._reader)

    def close(self) -> None:
        os.close(self._reader)
        os.close(self._writer)


@pytest.fixture
def executions(tmp_path: Path) -> Any:
    told = Executions(tmp_path)
    yield told
    told.close()


async def test_a_child_killed_while_idle_is_replaced_before_the_next_call(era: str) -> None:
    async with running("--era", era) as connection:
        seen, old = Seen(connection), child_of(connection)
        old.kill()
        await until(connection, lambda: connection.epoch == 2)
        assert seen.events == ["lost", "established"]
        assert connection.last_failure is not None
        assert connection.last_failure.kind is K.TRANSPORT_LOST
        assert "killed by SIGKILL" in connection.last_failure.summary
        assert child_of(connection).pid == connection.status()["pid"] != old.pid
        assert text_of(await connection.call_tool("charge", wait=False)) == "charged 1"


async def test_a_child_killed_while_it_runs_a_tool_leaves_the_outcome_unknown(era: str, executions: Executions) -> None:
    async with running("--era", era, "--count-file", str(executions.path)) as connection:
        child = child_of(connection)
        async with anyio.create_task_group() as group:

            async def kill() -> None:
                await executions.one("slow_charge")
                child.kill()

            group.start_soon(kill)
            with pytest.raises(OutcomeUnknown, match=r"killed by SIGKILL.*the tool may have run") as caught:
                await connection.call_tool("slow_charge", {"seconds": 10})
        assert (caught.value.failure.kind, caught.value.attempts) == (K.TRANSPORT_LOST, 1)
        await quiet(connection)
        assert (connection.state, connection.epoch) == (State.READY, 2)
        assert text_of(await connection.call_tool("charge")) == "charged 1"
        assert executions.read() == ["add", "slow_charge", "charge"]


async def test_a_child_that_dies_after_running_a_tool_leaves_the_outcome_unknown(
    era: str, executions: Executions
) -> None:
    async with running("--era", era, "--die-on", "charge", "--count-file", str(executions.path)) as connection:
        with pytest.raises(OutcomeUnknown, match="exited with 1"):
            await connection.call_tool("charge")
        assert text_of(await connection.call_tool("add", {"a": 2, "b": 2})) == "4"
        assert executions.read() == ["add", "charge", "add"]
        assert connection.epoch == 2


async def test_a_read_only_tool_answers_although_the_child_died_under_it(era: str, executions: Executions) -> None:
    async with running("--era", era, "--count-file", str(executions.path)) as connection:
        child = child_of(connection)
        async with anyio.create_task_group() as group:

            async def kill() -> None:
                await executions.one("slow")
                child.kill()

            group.start_soon(kill)
            assert text_of(await connection.call_tool("slow", {"seconds": 0.2})) == "slept 0.2"
        assert executions.read() == ["add", "slow", "slow"]
        assert connection.epoch == 2


async def test_ten_calls_are_each_told_that_the_child_died(era: str, executions: Executions) -> None:
    async with running("--era", era, "--count-file", str(executions.path)) as connection:
        child = child_of(connection)
        outcomes: list[str] = []

        async def call(tool: str) -> None:
            try:
                outcomes.append(text_of(await connection.call_tool(tool, {"seconds": 0.3})))
            except OutcomeUnknown as error:
                outcomes.append(error.outcome)

        async with anyio.create_task_group() as group:
            for _ in range(5):
                group.start_soon(call, "slow")
                group.start_soon(call, "slow_charge")
            while len(executions.read()) < 11:
                await anyio.wait_readable(executions._reader)
            child.kill()
        assert sorted(outcomes) == ["slept 0.3"] * 5 + ["unknown"] * 5
        assert executions.read().count("slow_charge") == 5
        assert connection.epoch == 2
        assert idle(connection)


@pytest.mark.parametrize("command", ["no-such-command-anywhere", "/no/such/place", "/"])
async def test_a_command_that_cannot_be_started_fails_the_connection_at_once(command: str) -> None:
    with anyio.fail_after(SAFETY):
        async with Manager({"child": {"command": command}}) as manager:
            seen = Seen(manager["child"])
            with pytest.raises(ConnectionFailed, match=r"cannot be started.*fix the server's configuration") as caught:
                await manager.call_tool("child", "add")
            assert (caught.value.failure.kind, caught.value.retry_in) == (K.CONFIG, None)
            assert seen.events == ["connect", "give_up"]


async def test_a_connection_used_alone_raises_what_its_child_died_of(capfd: pytest.CaptureFixture[str]) -> None:
    text = "Traceback (most recent call last):\n  ...\nModuleNotFoundError: No module named 'server'\n"
    with anyio.fail_after(SAFETY):
        with pytest.raises(ConnectionFailed) as caught:
            async with Connection(program("--crash-on-start", text), name="child", policy=IMPATIENT):
                raise AssertionError("never ready")
    assert caught.value.failure.kind is K.TRANSPORT_LOST
    # Not for a person: it may be a registry that is out of reach.
    assert caught.value.retry_in is not None
    assert "exited with 1: ModuleNotFoundError: No module named 'server'" in str(caught.value)
    assert "ModuleNotFoundError" not in "".join(capfd.readouterr())


async def test_a_child_that_worked_and_now_crashes_on_start_is_given_time(tmp_path: Path) -> None:
    # A deployment in progress: the first start works, the second crashes, the third works.
    counter = tmp_path / "starts"
    script = f"""
import pathlib, runpy, sys
counter = pathlib.Path({str(counter)!r})
starts = int(counter.read_text()) if counter.exists() else 0
counter.write_text(str(starts + 1))
if starts == 1:
    sys.exit("SyntaxError: deployment in progress")
sys.argv = [{str(STDIO_SERVER)!r}]
runpy.run_path({str(STDIO_SERVER)!r}, run_name="__main__")
"""
    with anyio.fail_after(SAFETY):
        async with Connection({"command": sys.executable, "args": ["-c", script]}, name="child") as connection:
            seen = Seen(connection)
            assert text_of(await connection.call_tool("add", {"a": 1, "b": 1})) == "2"
            child_of(connection).kill()
            await until(connection, lambda: connection.epoch == 2)
            assert seen.events == ["lost", "attempt_failed", "established"]
            assert any(
                "SyntaxError: deployment in progress" in change.failure.summary
                for change in seen.changes
                if change.failure
            )


async def test_a_child_that_keeps_exiting_is_not_restarted_in_a_loop() -> None:
    with anyio.fail_after(SAFETY):
        async with Manager({"child": program("--exit-after-handshake")}) as manager:
            connection = manager["child"]
            seen = Seen(connection)
            with pytest.raises(CallFailed):
                await connection.call_tool("charge", timeout=1.5)
            # At once, after about 1 s, and no more.
            assert seen.events.count("established") + seen.events.count("attempt_failed") <= 3
            await until(connection, lambda: seen.events.count("lost") + seen.events.count("attempt_failed") >= 2)
            assert connection.last_failure is not None
            assert connection.last_failure.kind is K.TRANSPORT_LOST


async def test_a_childs_last_words_are_shown_without_the_secrets_it_was_given(
    capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG", logger="mcpconn")
    secret = "sk-live-4f9a8b7c6d5e"
    code = "import os, sys; sys.exit('RuntimeError: bad key ' + os.environ['API_KEY'])"
    with anyio.fail_after(SAFETY):
        with pytest.raises(ConnectionFailed) as caught:
            config = {"command": sys.executable, "args": ["-c", code], "env": {"API_KEY": secret}}
            async with Connection(config, name="child", policy=IMPATIENT):
                raise AssertionError("never ready")
    assert "RuntimeError: bad key ***" in str(caught.value)
    logged = "\n".join(record.getMessage() for record in caplog.records if record.name == "mcpconn")
    assert logged
    for text in (str(caught.value), repr(caught.value), logged, *capfd.readouterr()):
        assert secret not in text


async def test_a_stopped_child_costs_a_call_its_deadline_and_no_more(era: str) -> None:
    async with running("--era", era, probe_timeout=10) as connection:
        seen, child = Seen(connection), child_of(connection)
        child.suspend()
        try:
            for _ in range(3):
                started = anyio.current_time()
                with pytest.raises(CallTimeout):
                    await connection.call_tool("charge", timeout=0.2)
                assert 0.2 <= anyio.current_time() - started < 0.2 + BUSY
            # One probe for all of them.
            assert seen.events == ["suspected"]
        finally:
            child.resume()
        assert text_of(await connection.call_tool("add", {"a": 1, "b": 1})) == "2"
        await quiet(connection)
        assert (connection.state, connection.epoch) == (State.READY, 1)
        assert child_of(connection).pid == child.pid


async def test_a_child_stopped_for_longer_than_a_probe_waits_is_replaced(era: str) -> None:
    async with running("--era", era, probe_timeout=0.2) as connection:
        child = child_of(connection)
        child.suspend()
        with pytest.raises(CallTimeout):
            await connection.call_tool("charge", timeout=0.2)
        await until(connection, lambda: connection.epoch == 2)
        assert text_of(await connection.call_tool("charge")) == "charged 1"
    # The stopped one was ended permanently.
    assert alive(child) == []


def alive(*processes: psutil.Process) -> list[int]:
    return [process.pid for process in processes if process.is_running() and process.status() != psutil.STATUS_ZOMBIE]


@pytest.mark.parametrize("stopped", [False, True], ids=["running", "stopped"])
async def test_closing_with_calls_in_flight_ends_the_child_in_time(
    stopped: bool, era: str, executions: Executions
) -> None:
    outcomes: list[str] = []
    async with anyio.create_task_group() as group:
        async with running("--era", era, "--count-file", str(executions.path), drain_timeout=1) as connection:
            child = child_of(connection)

            async def call() -> None:
                try:
                    outcomes.append(text_of(await connection.call_tool("slow_charge", {"seconds": 30})))
                except CallFailed as error:
                    outcomes.append(error.outcome)

            for _ in range(3):
                group.start_soon(call)
            while executions.read().count("slow_charge") < 3:
                await anyio.wait_readable(executions._reader)
            if stopped:
                child.suspend()
            started = anyio.current_time()
        # The drain timeout for the calls, and then 3 s for a child that does nothing. The calls would take 30 s.
        assert anyio.current_time() - started < 1 + (3 if stopped else 0) + BUSY
        assert alive(child) == []
    assert outcomes == ["unknown"] * 3


async def test_closing_lets_a_call_finish(era: str, executions: Executions) -> None:
    answers: list[str] = []
    async with anyio.create_task_group() as group:
        async with running("--era", era, "--count-file", str(executions.path)) as connection:

            async def call() -> None:
                answers.append(text_of(await connection.call_tool("slow_charge", {"seconds": 0.2})))

            group.start_soon(call)
            await executions.one("slow_charge")
        assert answers == ["slept 0.2"]


STUBBORN = f"""
import runpy, signal, subprocess, sys
signal.signal(signal.SIGTERM, signal.SIG_IGN)
grandchild = subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"])
sys.argv = [{str(STDIO_SERVER)!r}]
try:
    runpy.run_path({str(STDIO_SERVER)!r}, run_name="__main__")
finally:
    signal.pause()
"""


async def test_a_child_that_will_not_end_is_killed_with_its_own_children() -> None:
    with anyio.fail_after(SAFETY):
        async with Connection({"command": sys.executable, "args": ["-c", STUBBORN]}, name="child") as connection:
            child = child_of(connection)
            family = [child, *child.children(recursive=True)]
            assert len(family) == 2
            started = anyio.current_time()
        # 2 s to SIGTERM, 1 s to SIGKILL. It would never end by itself.
        assert anyio.current_time() - started < 3 + BUSY
        assert alive(*family) == []


async def test_a_grandchild_with_the_pipes_delays_no_end() -> None:
    code = STUBBORN.replace("finally:\n    signal.pause()", "finally:\n    pass")
    with anyio.fail_after(SAFETY):
        async with Connection(
            {"command": sys.executable, "args": ["-c", code], "probe_timeout": 0.3}, name="child"
        ) as connection:
            child = child_of(connection)
            family = [child, *child.children(recursive=True)]
            child.kill()
            # The pipe stays open, and no end of the stream is seen: the next call's deadline finds out.
            with pytest.raises(CallFailed):
                await connection.call_tool("charge", timeout=0.3)
            await until(connection, lambda: connection.epoch == 2)
            new = child_of(connection)
            family += [new, *new.children(recursive=True)]
        assert alive(*family) == []


async def test_closing_while_a_child_is_being_started_leaves_no_child() -> None:
    hanging = {"command": sys.executable, "args": ["-c", "import sys; sys.stdin.read()"], "drain_timeout": 2}
    with anyio.fail_after(SAFETY):
        async with Manager({"child": hanging}) as manager:
            connection = manager["child"]
            while not children(connection):
                await anyio.lowlevel.checkpoint()
            child = child_of(connection)
            started = anyio.current_time()
        # A first start has two minutes.
        assert anyio.current_time() - started < 2 + BUSY
        assert alive(child) == []
        assert connection.state is State.CLOSED


async def test_a_manager_closes_children_at_once() -> None:
    servers = {f"child{number}": program("--tools", "add") for number in range(5)}
    with anyio.fail_after(SAFETY):
        async with Manager(servers, policy=Policy(dials_per_origin=8)) as manager:
            await manager.wait_ready()
            found = [child for child in psutil.Process().children() if str(STDIO_SERVER) in child.cmdline()]
            assert len(found) == 5
            started = anyio.current_time()
        # One after the other, with the 3 s that each has to end, they would take 15.
        assert anyio.current_time() - started < BUSY
        assert alive(*found) == []


async def test_lines_of_no_message_are_skipped() -> None:
    code = f"""
import runpy, sys
print("Server listening on stdio (this is a banner)")
print("{{broken json", flush=True)
sys.argv = [{str(STDIO_SERVER)!r}]
runpy.run_path({str(STDIO_SERVER)!r}, run_name="__main__")
"""
    with anyio.fail_after(SAFETY):
        async with Connection({"command": sys.executable, "args": ["-c", code]}, name="child") as connection:
            seen = Seen(connection)
            assert text_of(await connection.call_tool("add", {"a": 1, "b": 1})) == "2"
            assert seen.events == []


FLOOD = """
import json, sys, time
for line in sys.stdin:
    message = json.loads(line)
    if message.get("method") == "tools/call":
        for _ in range(800):
            sys.stdout.write("x" * 65536)
        sys.stdout.flush()
    elif "id" in message:
        answer = {"jsonrpc": "2.0", "id": message["id"]}
        if message["method"] == "initialize":
            version = message["params"]["protocolVersion"]
            info = {"name": "flood", "version": "1"}
            answer["result"] = {"protocolVersion": version, "capabilities": {"tools": {}}, "serverInfo": info}
        else:
            answer["error"] = {"code": -32601, "message": "Method not found"}
        print(json.dumps(answer), flush=True)
"""


async def test_a_flooding_child_costs_one_call() -> None:
    policy = Policy(max_message_size=200_000, probe_timeout=0.3)
    flood = {"command": sys.executable, "args": ["-c", FLOOD]}
    with anyio.fail_after(SAFETY):
        async with Manager({"flood": flood, "fine": program()}, policy=policy) as manager:
            await manager.wait_ready()
            before = psutil.Process().memory_info().rss
            with pytest.raises(CallTimeout):
                await manager.call_tool("flood", "anything", timeout=0.5)
            for _ in range(20):
                assert text_of(await manager.call_tool("fine", "add", {"a": 1, "b": 1})) == "2"
            assert psutil.Process().memory_info().rss - before < 20_000_000
            assert manager["fine"].epoch == 1


async def test_arguments_in_the_command_are_told_where_they_belong() -> None:
    entry = {"command": f"{sys.executable} -m http.server"}
    with pytest.raises(ConnectionFailed, match="put '-m' and what follows into args") as caught:
        async with Connection(entry, name="srv"):
            pass
    assert caught.value.failure.kind is FailureKind.CONFIG
