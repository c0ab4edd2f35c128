"""A gateway's process: started, killed and started again on the same port."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.gateways.catalog import Gateway
from benchmarks.gateways.upstream import Upstream

STARTS = 120.0
"""Seconds that a gateway may take to listen. Importing LiteLLM takes half a minute on a busy machine."""


def free_port() -> int:
    """A port nobody listens on now."""
    with socket.create_server(("127.0.0.1", 0)) as found:
        return int(found.getsockname()[1])


class Running:
    """A gateway before a server."""

    def __init__(self, gateway: Gateway, folder: Path, server: str) -> None:
        self.gateway = gateway
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}{gateway.path}"
        self._folder = folder
        self._server = server
        self._process: subprocess.Popen[bytes] | None = None
        self.log = folder / "log"

    @property
    def pid(self) -> int:
        """Its process."""
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Start it; returns when it listens.

        Raises:
            RuntimeError: it ended, or does not listen in time; with the last line that it wrote.
        """
        command = self.gateway.command(self.gateway.home, self._folder, self.port, self._server)
        kept = {name: os.environ[name] for name in ("PATH", "PYTHONPATH", "LANG") if name in os.environ}
        if self.gateway.kind != "own":
            kept.pop("PYTHONPATH", None)
        environment = {**kept, "HOME": str(self._folder), **self.gateway.environment}
        with self.log.open("ab") as log:
            # A group of its own, so that its children can be killed with it.
            self._process = subprocess.Popen(
                command, cwd=self._folder, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                start_new_session=True,
            )  # fmt: skip
        deadline = time.monotonic() + STARTS
        while not self._listens():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"it does not listen: {self._last_line()}")
            time.sleep(0.1)

    def _listens(self) -> bool:
        with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
            return True
        return False

    def _last_line(self) -> str:
        lines = [line for line in self.log.read_text(errors="replace").splitlines() if line.strip()]
        return lines[-1][:200] if lines else "it wrote nothing"

    def kill(self) -> None:
        """SIGKILL for it and its children."""
        if self._process is not None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None


@contextmanager
def started_upstream(folder: Path) -> Iterator[Upstream]:
    """A server that listens, with its journal in `folder`; killed at the end."""
    server = Upstream(free_port(), folder / "journal")
    try:
        server.start()
        yield server
    finally:
        server.kill()


@contextmanager
def before_server(gateway: Gateway) -> Iterator[tuple[Running, Upstream]]:
    """A gateway that runs before a server of its own."""
    with TemporaryDirectory() as name, started_upstream(folder := Path(name)) as server:
        running = Running(gateway, folder, server.url)
        try:
            running.start()
            yield running, server
        finally:
            running.kill()
