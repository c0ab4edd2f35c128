"""The units, as systemd itself reads them; and a gateway whose socket outlives its processes."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import anyio
import anyio.lowlevel
import httpx2
import pytest
from anyio.streams.buffered import BufferedByteReceiveStream
from mcp import Client

from mcpconn.gateway.serve import GRACE
from mcpconn.testing import HttpServer, Script
from tests.deploy.reading import DEPLOY, unit
from tests.gateway.test_handing_on import start
from tests.support import text_of

UNITS = DEPLOY / "systemd"
SAFETY = 240.0
"""Seconds. Starting Python three times takes half a minute on a machine that runs other tests."""
MORE = 10
"""Requests of each kind that have to succeed before the next kill."""
NAMES = ("mcpconn.socket", "mcpconn@.service")


@pytest.fixture
def anyio_backend():
    """uvicorn serves on asyncio alone."""
    return "asyncio"


def needs(program: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(shutil.which(program) is None, reason=f"{program} (of systemd) is not installed")


@needs("systemd-analyze")
def test_systemd_takes_the_units(tmp_path):
    for name in NAMES:
        text = (UNITS / name).read_text().replace("/opt/mcpconn/bin/mcpconn", sys.executable)
        (tmp_path / name).write_text(text)
    instance = tmp_path / "mcpconn@a.service"
    checked = subprocess.run(
        ["systemd-analyze", "verify", tmp_path / "mcpconn.socket", instance], capture_output=True, text=True, timeout=60
    )
    assert (checked.returncode, checked.stderr) == (0, "")
    # A misspelt key is a warning in this tool, so that the check above would see one.
    instance.write_text((tmp_path / "mcpconn@.service").read_text() + "\n[Service]\nKilMode=mixed\n")
    checked = subprocess.run(["systemd-analyze", "verify", instance], capture_output=True, text=True, timeout=60)
    assert "KilMode" in checked.stderr


def test_both_instances_share_the_socket_and_end_in_time():
    service, listening = unit(UNITS / NAMES[1])["Service"], unit(UNITS / NAMES[0])["Socket"]
    assert service["Sockets"] == ["mcpconn.socket"]
    assert listening["Service"] == ["mcpconn@a.service"]
    assert service["Type"] == ["notify"]
    # SIGTERM for children would end the calls that the gateway waits for.
    assert service["KillMode"] == ["mixed"]
    (limit,) = service["TimeoutStopSec"]
    assert int(limit.removesuffix("s")) >= GRACE + 10
    assert service["ExecReload"] == ["/bin/kill -HUP $MAINPID"]
    assert service["User"] == ["mcpconn"]
    user = (UNITS / "mcpconn.sysusers").read_text()
    assert re.search(rf"^u {service['User'][0]} ", user, re.M)
    command = service["ExecStart"][0].split()
    assert command[command.index("--state") + 1] == f"/var/lib/{service['StateDirectory'][0]}"


@needs("systemd-socket-activate")
@pytest.mark.anyio
async def test_the_first_client_starts_a_gateway_that_says_it_is_ready(tmp_path: Path):
    with anyio.fail_after(60), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as told:
        told.bind(str(tmp_path / "notify"))
        told.setblocking(False)
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        async with HttpServer(Script()) as server:
            (tmp_path / "mcp.json").write_text(json.dumps({"mcpServers": {"a": {"url": server.url}}}))
            serve = [
                sys.executable,
                "-m",
                "mcpconn",
                "serve",
                str(tmp_path / "mcp.json"),
                "--state",
                str(tmp_path / "s"),
            ]
            variables = [f"--setenv={name}" for name in os.environ if name.startswith(("PYTHON", "COVERAGE"))]
            process = await anyio.open_process(
                [
                    "systemd-socket-activate",
                    f"--listen=127.0.0.1:{port}",
                    *variables,
                    f"--setenv=NOTIFY_SOCKET={tmp_path / 'notify'}",
                    *serve,
                ],
                stderr=subprocess.PIPE,
            )
            assert process.stderr is not None
            said = BufferedByteReceiveStream(process.stderr)
            await said.receive_until(b"Listening on", 10_000)
            async with Client(f"http://127.0.0.1:{port}/mcp") as client:
                assert text_of(await client.call_tool("a__add", {"a": 1, "b": 2})) == "3"
            # It is said up to a fiftieth of a second after the gateway listens, and the call may be answered before.
            await anyio.wait_readable(told)
            assert told.recv(64) == b"READY=1"
            process.send_signal(signal.SIGTERM)
            await process.wait()
            assert told.recv(64) == b"STOPPING=1"
            await process.aclose()


@pytest.mark.anyio
async def test_no_connection_is_refused_while_the_gateway_is_killed_and_restarted(tmp_path: Path):
    with anyio.fail_after(SAFETY), socket.create_server(("127.0.0.1", 0), backlog=2048) as listening:
        base = f"http://127.0.0.1:{listening.getsockname()[1]}"
        async with HttpServer(Script()) as server:
            (tmp_path / "mcp.json").write_text(json.dumps({"mcpServers": {"a": {"url": server.url}}}))
            process = await start(tmp_path, listening)
            over = anyio.Event()
            healthy: list[int] = []
            cut: list[httpx2.TransportError] = []
            refused: list[httpx2.ConnectError] = []
            answered: list[int] = []
            news = [anyio.Event()]

            async def connecting() -> None:
                """A new connection for each request."""
                while not over.is_set():
                    try:
                        async with httpx2.AsyncClient(timeout=60) as http:
                            healthy.append((await http.get(f"{base}/healthz")).status_code)
                        news[0].set()
                    except httpx2.ConnectError as error:
                        refused.append(error)
                    except httpx2.TransportError as error:
                        cut.append(error)

            async def calling() -> None:
                """A bare client. One whose request is cut before its answer begins ends itself, and another follows."""
                while not over.is_set():
                    with suppress(Exception):
                        async with Client(f"{base}/mcp", mode="legacy") as client:
                            while not over.is_set():
                                await client.session.call_tool("a__add", {"a": 1, "b": 2})
                                answered.append(1)
                                news[0].set()

            async def progress() -> None:
                wanted = len(healthy) + MORE, len(answered) + MORE
                while len(healthy) < wanted[0] or len(answered) < wanted[1]:
                    news[0] = anyio.Event()
                    await news[0].wait()

            async with anyio.create_task_group() as group:
                for _ in range(4):
                    group.start_soon(connecting)
                    group.start_soon(calling)
                await progress()
                for _ in range(2):
                    process.kill()
                    await process.wait()
                    await process.aclose()
                    process = await start(tmp_path, listening)
                    await progress()
                over.set()
            process.terminate()
            await process.wait()
            await process.aclose()
    assert refused == []
    assert set(healthy) == {200}
    # Of each of the four, at most the request in flight at each kill.
    assert len(cut) <= 2 * 4
