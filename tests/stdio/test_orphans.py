"""No child is left behind: when its host is killed, when `watch` is ended by a signal, when it ignores all requests."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import anyio
import pytest

from mcpconn import Manager, Policy
from tests.stdio.programs import Told, gone, python
from tests.support import BUSY, SAFETY

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    """Of the test: what is tested are other processes."""
    return "asyncio"


HOST = """
import anyio, json, sys
from mcpconn import Manager

async def main():
    async with Manager(json.loads(sys.argv[1])) as manager:
        await manager.wait_ready()
        print("ready", flush=True)
        await anyio.sleep_forever()

anyio.run(main, backend=sys.argv[2])
"""


def with_helper(told: Told, *, ignoring: bool = False) -> dict[str, Any]:
    """A server that starts a helper, which reads nothing and so does not notice that anybody ends; tells both pids."""
    ignore = "signal.signal(signal.SIGTERM, signal.SIG_IGN)" if ignoring else ""
    return python(
        f"""{ignore}
helper = subprocess.Popen(["sleep", "1000"])
with open({str(told.path)!r}, "w") as told:
    print(os.getpid(), file=told)
    print(helper.pid, file=told)
""",
        after="signal.pause()" if ignoring else "",
    )


async def pids(told: Told, count: int) -> list[int]:
    return [int(line) for line in await told.until(count)]


@pytest.mark.parametrize("loop", ["asyncio", "trio"])
async def test_children_and_their_helpers_end_when_their_host_is_killed(told: Told, loop: str) -> None:
    servers = json.dumps({"one": with_helper(told), "two": with_helper(told)})
    with anyio.fail_after(SAFETY * 2):
        command = [sys.executable, "-c", HOST, servers, loop]
        async with await anyio.open_process(command, stderr=subprocess.DEVNULL) as host:
            assert host.stdout is not None
            assert b"ready" in await host.stdout.receive()
            family = await pids(told, 4)
            host.kill()
        await gone(family)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
async def test_watch_ends_its_children_on_a_signal(number: signal.Signals, told: Told, tmp_path: Path) -> None:
    config = tmp_path / "mcp.json"
    config.write_text(json.dumps({"mcpServers": {"srv": with_helper(told)}}))
    with anyio.fail_after(SAFETY * 2):
        command = [sys.executable, "-m", "mcpconn.cli", "watch", "--config", str(config)]
        async with await anyio.open_process(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as watch:
            family = await pids(told, 2)
            watch.send_signal(number)
            await watch.wait()
        await gone(family)


# Takes the three seconds that it is about.
async def test_children_that_ignore_every_request_to_end_are_ended_at_once(told: Told) -> None:
    servers = {f"srv{number}": with_helper(told, ignoring=True) for number in range(6)}
    with anyio.fail_after(SAFETY * 2):
        async with Manager(servers, policy=Policy(drain_timeout=0.2)) as manager:
            await manager.wait_ready()
            family = await pids(told, 12)
            began = anyio.current_time()
        # 2 s to SIGTERM, 1 s to SIGKILL, for all of them together. One after the other they would take 18 s.
        assert anyio.current_time() - began < 0.2 + 3 + BUSY
        assert os.getpid() not in family
        await gone(family)
