"""The examples, as the programs that they are: real processes, and real servers that misbehave on command."""

from __future__ import annotations

import json
import os
import re
import signal
import sys
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import httpx2
import psutil
import pytest
from anyio.abc import ByteReceiveStream, Process
from anyio.streams.buffered import BufferedByteReceiveStream

import mcpconn
from mcpconn.testing import STDIO_SERVER, HttpServer, Script
from mcpconn.testing.scripted import faults
from tests.support import UNFINISHED_STREAMS
from tests.wire.sockets import free_port

pytestmark = [pytest.mark.anyio, UNFINISHED_STREAMS]

ROOT = Path(__file__).resolve().parent.parent
EXAMPLES = ROOT / "examples"
SAFETY = 60.0
"""Seconds: these programs import much before they say a word."""
STDIO = {"command": sys.executable, "args": [str(STDIO_SERVER)]}


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    # The examples choose their own loops.
    return "asyncio"


class Lines:
    """A stream, line by line."""

    def __init__(self, stream: ByteReceiveStream | None) -> None:
        assert stream is not None
        self._stream = BufferedByteReceiveStream(stream)

    async def next(self) -> str:
        return (await self._stream.receive_until(b"\n", 1_000_000)).decode()

    async def matching(self, pattern: str) -> re.Match[str]:
        """The first line that matches."""
        seen = ""
        while True:
            try:
                line = await self.next()
            except anyio.IncompleteRead:
                raise AssertionError(f"{pattern!r} was never said:\n{seen}") from None
            seen += line
            if found := re.search(pattern, line):
                return found


@asynccontextmanager
async def running(*command: str, folder: Path, **environment: str) -> AsyncIterator[Process]:
    """A program, ended at the end of the block."""
    process = await anyio.open_process(command, cwd=folder, env={**os.environ, **environment})
    try:
        with anyio.fail_after(SAFETY):
            yield process
    finally:
        with anyio.CancelScope(shield=True):
            if process.returncode is None:
                process.kill()
            await process.aclose()


@asynccontextmanager
async def application(name: str, folder: Path) -> AsyncIterator[tuple[str, Process]]:
    """An ASGI application under uvicorn, at its address; asked to end at the end of the block, and ended then."""
    command = [sys.executable, "-m", "uvicorn", "--app-dir", str(EXAMPLES), f"{name}:app", "--port", "0"]
    async with running(*command, folder=folder, MCP_CONFIG="mcp.json") as process:
        errors = Lines(process.stderr)
        url = (await errors.matching(r"Uvicorn running on (http://\S+)")).group(1)
        yield url, process
        children = psutil.Process(process.pid).children()
        process.terminate()
        await errors.matching(r"Application shutdown complete")
        await process.wait()
        assert not [child for child in children if child.is_running()]


def configure(folder: Path, **servers: Any) -> str:
    path = folder / "mcp.json"
    path.write_text(json.dumps({"mcpServers": servers}), encoding="utf-8")
    return str(path)


async def test_the_agent_host_tells_its_model_what_became_of_each_call(tmp_path: Path) -> None:
    script = Script()
    async with HttpServer(script) as shop:
        config = configure(tmp_path, shop={"url": shop.url}, child=STDIO)
        program = str(EXAMPLES / "agent_host.py")
        async with running(sys.executable, program, config, folder=tmp_path) as process:
            assert process.stdin is not None
            lines = Lines(process.stdout)

            async def turn(*calls: tuple[str, Any]) -> Any:
                assert process.stdin is not None
                asked = [{"tool": tool, "arguments": arguments} for tool, arguments in calls]
                await process.stdin.send(json.dumps(asked).encode() + b"\n")
                return json.loads(await lines.next())

            sums: Iterable[tuple[str, Any]] = [("shop__add", {"a": n, "b": 1}) for n in range(20)]
            assert await turn(*sums, ("child__add", {"a": 1, "b": 2})) == [
                *({"result": str(n + 1)} for n in range(20)),
                {"result": "3"},
            ]
            script.forget_sessions()
            assert await turn(("shop__charge", {"amount": 5})) == [{"result": "charged 5"}]
            script.inject(faults.drop_after())
            (cut,) = await turn(("shop__charge", {"amount": 6}))
            assert cut["outcome"] == "unknown"
            assert "find out first whether it took effect" in cut["error"]
            (missing,) = await turn(("shop__fly", {}))
            assert missing["error"].startswith("There is no tool 'shop__fly'. There are: child__add, ")
            # What appears later is registered, and what goes is not offered any more.
            new = script.tools.pop("progress")
            script.tools["fly"] = type(new)("fly", lambda _: "away")
            script.notify("notifications/tools/list_changed")
            while "error" in (answer := (await turn(("shop__fly", {})))[0]):
                pass
            assert answer == {"result": "away"}
            assert "shop__progress" not in (await turn(("shop__no", {})))[0]["error"]
            assert script.executions["charge"] == 2

            await process.stdin.aclose()
            assert await process.wait() == 0


async def test_the_web_application_serves_while_its_server_comes_and_goes(tmp_path: Path) -> None:
    script = Script()
    async with HttpServer(script) as shop:
        configure(tmp_path, shop={"url": shop.url, "headers": {"Authorization": "Bearer a-long-secret"}})
        await shop.stop()
        async with (
            application("asgi_lifespan", tmp_path) as (url, _),
            httpx2.AsyncClient(base_url=url, timeout=SAFETY) as client,
        ):
            down = await client.get("/ready")
            assert (down.status_code, down.json()) == (503, {"shop": "connecting"})

            # A request that comes while the server is down waits for it.
            async with anyio.create_task_group() as group:
                answers: list[Any] = []

                async def add() -> None:
                    answers.append(await client.post("/sums", json={"a": 1, "b": 2}))

                group.start_soon(add)
                await shop.start()
            assert answers[0].json()["answer"]["content"][0]["text"] == "3.0"
            up = await client.get("/ready")
            assert (up.status_code, up.json()) == (200, {"shop": "ready"})

            script.forget_sessions()
            assert (await client.post("/sums", json={"a": 2, "b": 2})).status_code == 200

            script.inject(faults.rate_limited(30), times=None)
            refused = await client.post("/sums", json={"a": 2, "b": 2})
            assert (refused.status_code, refused.headers["retry-after"]) == (503, "30")
            assert refused.json()["outcome"] == "not_run"
            script.clear()

            script.inject(faults.drop_after(), times=None)
            cut = await client.post("/sums", json={"a": 2, "b": 2})
            assert (cut.status_code, cut.json()["outcome"]) == (504, "unknown")
            script.clear()

            status = (await client.get("/status")).text
            assert '"epoch":2' in status
            assert "a-long-secret" not in status


@pytest.mark.parametrize(
    ("program", "line"), [("examples/quickstart.py", r"ready"), ("docs_src/tutorial/survive.py", r"attempt_failed")]
)
async def test_ctrl_c_ends_a_program_without_a_traceback(tmp_path: Path, program: str, line: str) -> None:
    async with running(sys.executable, str(ROOT / program), folder=tmp_path, PYTHONUNBUFFERED="1") as process:
        await Lines(process.stdout).matching(line)
        await interrupted(process)


async def test_ctrl_c_ends_the_shop_of_the_tutorial_without_a_traceback(tmp_path: Path) -> None:
    port = await free_port()
    program = str(ROOT / "docs_src" / "tutorial" / "shop.py")
    async with running(sys.executable, program, str(port), folder=tmp_path) as process:
        # Before it serves, it imports; an interrupt within an import can be lost in Python itself.
        async with mcpconn.Manager({"shop": {"url": f"http://127.0.0.1:{port}/mcp"}}) as manager:
            await manager.call_tool("shop", "price", {"item": "apple"})
        await interrupted(process)


async def interrupted(process: Process) -> None:
    """Ctrl-C ends it, and it says nothing of that."""
    process.send_signal(signal.SIGINT)
    assert process.stderr is not None
    said = b"".join([part async for part in process.stderr]).decode()
    assert (await process.wait(), "Traceback" in said) == (0, False), said


async def test_ctrl_c_ends_the_agent_host_between_two_turns(tmp_path: Path) -> None:
    config = configure(tmp_path, child=STDIO)
    async with running(sys.executable, str(EXAMPLES / "agent_host.py"), config, folder=tmp_path) as process:
        assert process.stdin is not None
        await process.stdin.send(b'[{"tool": "child__add", "arguments": {"a": 1, "b": 2}}]\n')
        assert json.loads(await Lines(process.stdout).next()) == [{"result": "3"}]
        await interrupted(process)


async def test_the_agent_host_says_how_it_is_used(tmp_path: Path) -> None:
    async with running(sys.executable, str(EXAMPLES / "agent_host.py"), folder=tmp_path) as process:
        assert process.stderr is not None
        said = b"".join([part async for part in process.stderr]).decode()
        assert said == "usage: python examples/agent_host.py mcp.json < turns.jsonl\n"
        assert await process.wait() == 1
