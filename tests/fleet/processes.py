"""Replicas as processes behind haproxy, before servers that keep a journal."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import anyio
import httpx2
import pytest

STARTING = 120.0
"""Seconds for a process to answer; Python takes several on a busy machine."""

HAPROXY = """
global
    log stdout format raw local0 notice
defaults
    mode http
    timeout connect 1s
    timeout client 10m
    timeout server 10m
    # A replica that is gone refuses at once, and one that is stopped answers 503. Only a busy machine takes seconds,
    # and a replica that is taken for down because of that leaves the balancer with none.
    timeout check 10s
    option redispatch
    retries 3
    # Idle connections are good for 10 s after SIGTERM, and nobody wants to wait for them here.
    {option}
    # Only a connection that was refused: of every other request it is not known whether it ran.
    retry-on conn-failure
frontend all
    bind 127.0.0.1:{port}
    default_backend replicas
backend replicas
    balance roundrobin
    option httpchk GET /readyz
    default-server check inter 200ms fall 1 rise 1
{servers}
"""


def needs_haproxy() -> Any:
    """Skip a test if the balancer is not installed."""
    return pytest.mark.skipif(shutil.which("haproxy") is None, reason="haproxy is not installed (apt install haproxy)")


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on now."""
    made = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in made]
    for each in made:
        each.close()
    return ports


async def until_ready(url: str, process: subprocess.Popen[bytes]) -> None:
    """Return when something at `url` answers 200."""
    with anyio.fail_after(STARTING):
        async with httpx2.AsyncClient() as http:
            while True:
                with suppress(httpx2.HTTPError):
                    if (await http.get(url, timeout=2)).status_code == 200:
                        return
                assert process.poll() is None, f"the process of {url} has ended"
                await anyio.sleep(0.05)


class Fleet:
    """Three replicas, a balancer, and two servers: one over HTTP, one that is started for each session."""

    def __init__(
        self, folder: Path, *, count: int = 3, store: str | None = None, keepalive: bool = True, debug: bool = False
    ) -> None:
        """
        Args:
            folder: For everything that is written.
            count: Replicas.
            store: URL of the store; None: a file that all share.
            debug: The replicas log what they do.
            keepalive: The balancer keeps connections to replicas open between requests.
        """
        self.option = "option http-keep-alive" if keepalive else "option http-server-close"
        self.folder, self.store, self.debug = folder, store, debug
        self.journal = folder / "journal"
        self.journal.touch()
        self.file = folder / "mcp.json"
        self.balancer_port, self.server_port, *self.ports = free_ports(2 + count)
        self.url = f"http://127.0.0.1:{self.balancer_port}/mcp"
        self.replicas: list[subprocess.Popen[bytes] | None] = [None] * count
        self.others: list[subprocess.Popen[bytes]] = []
        self.began = time.monotonic()
        self.timeline: list[tuple[float, str]] = []
        self.write_config()
        self.write_keys("k1")

    def write_config(self, **more: Any) -> None:
        """Write the configuration file; `more` is added to the server over HTTP, as another version of the file."""
        child = {"command": sys.executable, "args": ["-m", "tests.fleet.stateful", str(self.journal)]}
        http = {"url": f"http://127.0.0.1:{self.server_port}/mcp", "mode": "legacy", **more}
        servers = {"http": http, "child": {**child, "env": {"PYTHONPATH": os.environ.get("PYTHONPATH", os.getcwd())}}}
        self.file.write_text(json.dumps({"mcpServers": servers}), encoding="utf-8")

    def write_keys(self, *names: str) -> None:
        """Write the key ring: one key for each name, the same for the same name."""
        state = self.folder / "state"
        state.mkdir(mode=0o700, exist_ok=True)
        keys = state / "keys"
        keys.write_text("".join((name.encode().hex() * 32)[:64] + "\n" for name in names), encoding="ascii")
        keys.chmod(0o600)

    def ran(self) -> Counter[str]:
        """How often each call ran."""
        lines = self.journal.read_text(encoding="utf-8").splitlines()
        return Counter(json.loads(line)[1] for line in lines)

    async def has_run(self, call: str) -> None:
        """Return when a call is in the journal."""
        while not self.ran()[call]:  # noqa: ASYNC110 - another process writes it
            await anyio.sleep(0.02)

    def note(self, what: str) -> None:
        """Something happened."""
        self.timeline.append((time.monotonic() - self.began, what))

    # -- processes

    def _start(self, command: list[str], name: str) -> subprocess.Popen[bytes]:
        log = open(self.folder / f"{name}.log", "ab")  # noqa: SIM115 - the process writes on to it
        with log:
            return subprocess.Popen(command, stdout=log, stderr=log, cwd=os.getcwd())

    async def start_all(self) -> None:
        """Start the server, the replicas and the balancer."""
        module = [sys.executable, "-m", "tests.fleet.stateful", str(self.journal), str(self.server_port)]
        self.others.append(self._start(module, "server"))
        lines = [f"    server r{number} 127.0.0.1:{port}" for number, port in enumerate(self.ports)]
        config = self.folder / "haproxy.cfg"
        config.write_text(
            HAPROXY.format(port=self.balancer_port, servers="\n".join(lines), option=self.option), encoding="utf-8"
        )
        async with anyio.create_task_group() as group:
            for number in range(len(self.ports)):
                group.start_soon(self.start, number)
        if shutil.which("haproxy") is not None:
            balancer = self._start(["haproxy", "-f", str(config), "-db"], "haproxy")
            self.others.append(balancer)
            await until_ready(f"http://127.0.0.1:{self.balancer_port}/readyz", balancer)

    def command(self, number: int) -> list[str]:
        """How a replica is started."""
        state = self.folder / "state"
        listen = f"127.0.0.1:{self.ports[number]}"
        command = [sys.executable, "-m", "mcpconn", "serve", str(self.file), "--listen", listen]
        command += ["--state", str(state), "--fleet", "127.0.0.1:0"]
        command += ["--debug"] if self.debug else []
        return [*command, "--store", self.store] if self.store is not None else command

    async def start(self, number: int) -> None:
        """Start a replica; return when it serves."""
        process = self.replicas[number] = self._start(self.command(number), f"replica{number}")
        await until_ready(f"http://127.0.0.1:{self.ports[number]}/readyz", process)
        self.note(f"replica {number} serves")

    def signal(self, number: int, what: signal.Signals) -> None:
        """Send a signal to a replica."""
        process = self.replicas[number]
        assert process is not None
        process.send_signal(what)
        self.note(f"replica {number} gets {what.name}")

    async def kill(self, number: int) -> None:
        """Kill a replica; return when it is gone."""
        self.signal(number, signal.SIGKILL)
        await self.gone(number)

    async def gone(self, number: int) -> None:
        """Return when a replica has ended."""
        process = self.replicas[number]
        assert process is not None
        with anyio.fail_after(STARTING):
            while process.poll() is None:  # noqa: ASYNC110 - nothing tells of a process's end
                await anyio.sleep(0.02)
        self.note(f"replica {number} is gone")

    async def roll(self) -> None:
        """Replace one replica after another, each by a successor at its address, without a kill."""
        for number in range(len(self.replicas)):
            self.signal(number, signal.SIGTERM)
            await self.gone(number)
            await self.start(number)

    def end(self) -> None:
        """End everything."""
        for process in (*self.replicas, *self.others):
            if process is not None and process.poll() is None:
                process.send_signal(signal.SIGCONT)
                process.kill()
                process.wait()


@asynccontextmanager
async def fleet(folder: Path, *, kind: type[Fleet] = Fleet, **options: Any) -> AsyncIterator[Fleet]:
    """A fleet that runs for as long as the block."""
    made = kind(folder, **options)
    try:
        await made.start_all()
        yield made
    finally:
        made.end()
