"""Real Redis servers for tests: one, one with a replica, three that are a cluster; each on a port of its own."""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

SERVER = shutil.which("redis-server")
SENTINEL = shutil.which("redis-sentinel")
CLIENT = shutil.which("redis-cli")
needs_redis = pytest.mark.skipif(SERVER is None or CLIENT is None, reason="redis-server is not installed")
READY = 10.0
"""Seconds for a server to start. It takes a tenth of one."""
DURABLE = ("--appendonly", "yes", "--appendfsync", "always", "--save", "")


def free_port() -> int:
    """A port that nobody has. A cluster's node needs the one 10,000 above it, too."""
    while True:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            port: int = taken.getsockname()[1]
        if port < 50_000:
            return port


class RedisServer:
    """A server process, and what tests do to it."""

    def __init__(self, folder: Path, *settings: str, port: int | None = None) -> None:
        self.folder = folder
        self.port = port or free_port()
        self.settings = settings or DURABLE
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}"

    def start(self) -> RedisServer:
        assert SERVER is not None
        self.folder.mkdir(parents=True, exist_ok=True)
        # A file of settings has to come first.
        files = [each for each in self.settings if each.endswith(".conf")]
        others = [each for each in self.settings if each not in files]
        command = [SERVER, *files, "--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self.folder), *others]
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log)
        end = time.monotonic() + READY
        while self.ask("PING") not in ("PONG", "NOAUTH Authentication required."):
            if time.monotonic() > end or self.process.poll() is not None:
                raise AssertionError((self.folder / "log").read_text())
        return self

    def ask(self, *command: str) -> str:
        """What the server answers to a command."""
        assert CLIENT is not None
        done = subprocess.run([CLIENT, "-p", str(self.port), *command], capture_output=True, text=True, check=False)
        return done.stdout.strip()

    def kill(self) -> None:
        """End it as a crash would."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def pause(self) -> None:
        """Have it answer nothing any more."""
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGCONT)

    def stop(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.kill()


@contextmanager
def redis_server(folder: Path, *settings: str) -> Iterator[RedisServer]:
    """One server. Without settings it writes everything to its disk before it answers."""
    server = RedisServer(folder, *settings)
    try:
        yield server.start()
    finally:
        server.stop()


@contextmanager
def redis_cluster(folder: Path) -> Iterator[list[RedisServer]]:
    """Three primaries that are a cluster."""
    assert CLIENT is not None
    with ExitStack() as stack:
        nodes = [
            stack.enter_context(redis_server(folder / str(n), *DURABLE, "--cluster-enabled", "yes")) for n in range(3)
        ]
        hosts = [f"127.0.0.1:{node.port}" for node in nodes]
        subprocess.run([CLIENT, "--cluster", "create", *hosts, "--cluster-yes"], capture_output=True, check=True)
        end = time.monotonic() + READY
        while not all("cluster_state:ok" in node.ask("CLUSTER", "INFO") for node in nodes):
            if time.monotonic() > end:
                raise AssertionError("the cluster does not come up")
        yield nodes
