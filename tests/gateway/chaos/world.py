"""The processes of the chaos run, each of which can be killed and started again at the same address."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections import Counter
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Any

import anyio
import anyio.abc

from mcpconn.gateway.access.keys import KeyFile

SERVER = Path(__file__).with_name("server.py")
START = 300.0
"""Seconds for a process to start on a machine that runs other tests."""
SERVERS = ("old", "new", "child")
"""A legacy and a modern server over HTTP, and one that the gateway starts for each client."""


class Http:
    """A server's process, on one port."""

    def __init__(self, journal: Path, era: str) -> None:
        self._journal, self._era = journal, era
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port: int = free.getsockname()[1]
        self.busy = False
        """It is being killed or started."""
        self._process: anyio.abc.Process | None = None

    async def start(self) -> None:
        command = [sys.executable, "-m", "tests.gateway.chaos.server", "--journal", str(self._journal)]
        self._process = await anyio.open_process(
            [*command, "--era", self._era, "--port", str(self.port)], stderr=subprocess.DEVNULL
        )
        await _said(self._process, b"ready")

    async def kill(self) -> None:
        if self._process is not None:
            with suppress(ProcessLookupError):
                self._process.kill()
            with anyio.CancelScope(shield=True):
                await self._process.aclose()
            self._process = None


class World:
    """The servers, the gateway, and who kills them."""

    def __init__(self, folder: Path, *, clients: int, seed: int) -> None:
        self.folder, self._random = folder, Random(seed)
        self.pids = folder / "pids"
        self.pids.mkdir()
        self.old, self.new = Http(self.journal("old"), "legacy"), Http(self.journal("new"), "modern")
        keys = KeyFile(folder / "keys.json")
        self.keys = [keys.add(f"client-{number:02}") for number in range(clients)]
        child = [str(SERVER), "--journal", str(self.journal("child")), "--pids", str(self.pids)]
        servers: dict[str, Any] = {
            "old": {"url": f"http://127.0.0.1:{self.old.port}/mcp"},
            "new": {"url": f"http://127.0.0.1:{self.new.port}/mcp"},
            "child": {"command": sys.executable, "args": child},
        }
        audit = {"file": "audit.jsonl", "arguments": True}
        section = {"access": {"keys": "keys.json"}, "audit": audit}
        (folder / "mcp.json").write_text(json.dumps({"mcpServers": servers, "gateway": section}), encoding="utf-8")
        self._listening = socket.create_server(("127.0.0.1", 0), backlog=1024)
        self.url = f"http://127.0.0.1:{self._listening.getsockname()[1]}/mcp"
        self._gateway: anyio.abc.Process | None = None
        self._started: list[anyio.abc.Process] = []
        self.killed: Counter[str] = Counter()

    def journal(self, server: str) -> Path:
        """Where a server writes what has run."""
        return self.folder / f"{server}.jsonl"

    async def start(self) -> None:
        """Start everything."""
        await self.old.start()
        await self.new.start()
        self._gateway = await self._start_gateway()

    async def stop(self) -> list[int]:
        """Stop everything. Returns the children of the gateway that outlived it."""
        assert self._gateway is not None
        await self._terminate(self._gateway)
        self._gateway = None
        with anyio.move_on_after(10):
            while self.children():  # noqa: ASYNC110 - processes that are not ours have no event
                await anyio.sleep(0.1)
        left = self.children()
        self.kill_now()
        await self.old.kill()
        await self.new.kill()
        return left

    def kill_now(self) -> None:
        """End what is left, after a failure of the run as well."""
        self._listening.close()
        for process in self._started:
            # One that was waited for is not known by its number any more.
            if process.returncode is None:
                with suppress(ProcessLookupError):
                    process.kill()

    def children(self) -> list[int]:
        """Process ids of the stdio servers that run."""
        alive = []
        for entry in self.pids.iterdir():
            try:
                command = Path(f"/proc/{entry.name}/cmdline").read_bytes()
            except OSError:
                command = b""
            if str(self.pids).encode() in command:
                alive.append(int(entry.name))
            else:
                entry.unlink(missing_ok=True)
        return alive

    async def chaos(self, until: float) -> None:
        """Kill something every few seconds."""
        choices = (self._kill_old, self._kill_new, self._kill_child, self._kill_children, self._kill_gateway)
        async with anyio.create_task_group() as group:
            while anyio.current_time() < until:
                await anyio.sleep(self._random.uniform(0.5, 4))
                chosen = self._random.choices((*choices, self._replace), (3, 3, 3, 1, 2, 1))[0]
                if chosen in (self._kill_gateway, self._replace):
                    await chosen()
                else:
                    group.start_soon(chosen)

    async def _kill_old(self) -> None:
        await self._bounce("old", self.old)

    async def _kill_new(self) -> None:
        await self._bounce("new", self.new)

    async def _bounce(self, name: str, server: Http) -> None:
        if server.busy:
            return
        server.busy = True
        self.killed[name] += 1
        await server.kill()
        await anyio.sleep(self._random.choice((0, 0.5, 3)))
        await server.start()
        server.busy = False

    async def _kill_child(self) -> None:
        if children := self.children():
            self.killed["child"] += 1
            _kill(self._random.choice(children))

    async def _kill_children(self) -> None:
        self.killed["all children"] += 1
        for child in self.children():
            _kill(child)

    async def _kill_gateway(self) -> None:
        assert self._gateway is not None
        self.killed["gateway"] += 1
        self._gateway.kill()
        await self._gateway.aclose()
        self._gateway = await self._start_gateway()

    async def _replace(self) -> None:
        """SIGTERM, when the next process accepts already."""
        assert self._gateway is not None
        self.killed["gateway, in order"] += 1
        first, self._gateway = self._gateway, await self._start_gateway()
        await self._terminate(first)

    async def _terminate(self, gateway: anyio.abc.Process) -> None:
        gateway.send_signal(signal.SIGTERM)
        await gateway.wait()
        await gateway.aclose()

    async def _start_gateway(self) -> anyio.abc.Process:
        serve = [sys.executable, "-m", "mcpconn", "serve", str(self.folder / "mcp.json")]
        serve += ["--state", str(self.folder / "state")]
        passing = f'exec 3<&{self._listening.fileno()}; export LISTEN_PID=$$ LISTEN_FDS=1; exec "$@"'
        before = self.log().count("serving ")
        with open(self.folder / "gateway.log", "ab") as log:
            process = await anyio.open_process(
                ["bash", "-c", passing, "bash", *serve],
                pass_fds=[self._listening.fileno()],
                stdout=log,
                stderr=log,
                env=os.environ,
            )
        self._started.append(process)
        with anyio.fail_after(START):
            while self.log().count("serving ") == before:  # noqa: ASYNC110 - a file has no event
                await anyio.sleep(0.05)
        return process

    def log(self) -> str:
        """What all gateways of the run said."""
        path = self.folder / "gateway.log"
        return path.read_text("utf-8", "replace") if path.exists() else ""


async def _said(process: anyio.abc.Process, word: bytes) -> None:
    assert process.stdout is not None
    said = b""
    while word not in said:
        said += await process.stdout.receive()


def _kill(process: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(process, signal.SIGKILL)
