"""Processes that end while others hold their pipes: launchers, whose server goes on, and servers, whose helpers do."""

from __future__ import annotations

import os
import signal

import anyio
import pytest

from mcpconn import Connection, ConnectionFailed, OutcomeUnknown, Policy, State
from mcpconn.wire import stdio
from tests.stdio.programs import Told, connected, gone, python, shell
from tests.support import BUSY, SAFETY, Seen, quiet, text_of, until

pytestmark = pytest.mark.anyio

HELPER = 'subprocess.Popen(["sleep", "1000"])'
"""Inherits stdin, stdout and stderr, and outlives the server."""
SERVING = "exec 3<&0; $SERVER {options} <&3 3<&- &"
"""A launcher leaves its server behind. (A shell gives /dev/null to what it starts in the background.)"""


@pytest.mark.parametrize("era", ["legacy", "modern"])
@pytest.mark.parametrize("status", [0, 1])
async def test_a_launcher_that_exits_at_once_leaves_a_server_that_works(
    status: int, era: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # 1 is no handshake's end either: the server has a second for it, or longer where starting Python takes longer.
    monkeypatch.setattr(stdio, "DEAD", SAFETY)
    # A server that starts within this time shakes hands before the launcher's end is judged, and is probed.
    monkeypatch.setattr(stdio, "END_OF_OUTPUT", 0)
    # `kill -0` succeeds until the launcher has been waited for. Until then the server is not started, or else it could
    # have shaken hands before the launcher's end is seen.
    server = f"while kill -0 $$; do sleep 0.01; done 2>/dev/null; exec $SERVER --era {era}"
    launcher = shell(f"exec 3<&0; ({server}) <&3 3<&- & exit {status}")
    async with connected(launcher) as connection:
        seen = Seen(connection)
        assert text_of(await connection.call_tool("charge")) == "charged 1"
        assert text_of(await connection.call_tool("charge")) == "charged 1"
        await quiet(connection)
        assert (seen.events, connection.epoch) == ([], 1)


@pytest.mark.parametrize("options", ["", "--ignore ping"])
async def test_a_late_launcher_exit_costs_a_probe(options: str, told: Told) -> None:
    launcher = shell(SERVING.format(options=options) + f" read line < {told.path}.go")
    os.mkfifo(f"{told.path}.go")
    async with connected(launcher) as connection:
        seen = Seen(connection)
        with open(f"{told.path}.go", "w") as go:
            go.write("\n")
        await until(connection, lambda: "suspected" in seen.events)
        await quiet(connection)
        assert (seen.events, connection.state, connection.epoch) == (["suspected"], State.READY, 1)
        assert text_of(await connection.call_tool("charge")) == "charged 1"


async def test_the_server_of_a_launcher_is_noticed_when_it_ends(told: Told) -> None:
    launcher = shell(SERVING.format(options="") + f" echo $! >> {told.path}")
    async with connected(launcher) as connection:
        (pid,) = await told.until(1)
        os.kill(int(pid), signal.SIGKILL)
        await until(connection, lambda: connection.epoch == 2)
        assert text_of(await connection.call_tool("charge")) == "charged 1"


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV])
async def test_a_server_whose_helper_holds_the_pipes_is_replaced_after_a_second(
    number: signal.Signals, told: Told
) -> None:
    config = python(HELPER, arguments=["--pid-file", str(told.path)])
    async with connected(config) as connection:
        seen = Seen(connection)
        outcomes: list[str] = []
        (pid,) = await told.until(1)
        began = anyio.current_time()

        async def call() -> None:
            with pytest.raises(OutcomeUnknown, match=f"killed by {number.name}") as caught:
                await connection.call_tool("slow_charge", {"seconds": 60}, timeout=60)
            outcomes.append(caught.value.outcome)

        async with anyio.create_task_group() as group:
            for _ in range(3):
                group.start_soon(call)
            while connection.status()["in_flight"] < 3:
                await anyio.lowlevel.checkpoint()
            os.kill(int(pid), number)
        # Those in flight are told as soon as the probe is over, and not at their deadlines.
        assert outcomes == ["unknown"] * 3
        assert anyio.current_time() - began < 1 + BUSY
        assert text_of(await connection.call_tool("charge", timeout=10)) == "charged 1"
        assert seen.events == ["suspected", "lost", "established"]
        assert connection.last_failure is not None
        assert f"killed by {number.name}" in connection.last_failure.summary


async def test_a_probe_under_way_has_a_second_left_when_the_process_ends(told: Told) -> None:
    # The server is stopped, a call times out, and the probe has 60 s; then the server is killed.
    config = python(HELPER, arguments=["--pid-file", str(told.path)])
    async with connected(config, policy=Policy(probe_timeout=60)) as connection:
        seen = Seen(connection)
        (pid,) = await told.until(1)
        os.kill(int(pid), signal.SIGSTOP)
        with pytest.raises(TimeoutError):
            await connection.call_tool("charge", timeout=0.1)
        assert seen.events == ["suspected"]
        began = anyio.current_time()
        os.kill(int(pid), signal.SIGKILL)
        await until(connection, lambda: connection.epoch == 2)
        assert anyio.current_time() - began < 1 + BUSY


async def test_a_death_before_the_handshake_is_noticed_at_once() -> None:
    crashing = shell("sleep 1000 & echo 'no such module' >&2; exit 1")
    with anyio.fail_after(20):
        began = anyio.current_time()
        with pytest.raises(ConnectionFailed, match="exited with 1: no such module"):
            async with Connection(crashing, policy=Policy(patience=1e-6, min_attempts=1, drain_timeout=0.1)):
                raise AssertionError("never ready")
        # Not the two minutes that a first start has.
        assert anyio.current_time() - began < 10


async def test_a_server_that_closes_its_stdin_is_replaced(told: Told) -> None:
    # The shell reads one line, starts a helper without stdin, and dies: nobody can hear, stdout is open.
    config = python(
        'subprocess.Popen(["sleep", "1000"], stdin=subprocess.DEVNULL)', arguments=["--pid-file", str(told.path)]
    )
    async with connected(config) as connection:
        (pid,) = await told.until(1)
        os.kill(int(pid), signal.SIGKILL)
        await until(connection, lambda: connection.epoch == 2)
        assert text_of(await connection.call_tool("charge", timeout=15)) == "charged 1"


async def test_helpers_are_ended_with_the_server_that_they_outlived(told: Told) -> None:
    helper = f"print(subprocess.Popen(['sleep', '1000']).pid, file=open({str(told.path)!r}, 'w'), flush=True)"
    async with connected(python(helper)) as connection:
        (pid,) = await told.until(1)
        assert connection.state is State.READY
    await gone([int(pid)])
