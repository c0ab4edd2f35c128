"""The processes of the demo: the HTTP server, which it starts, controls and kills, and the stdio child, which it
kills."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import anyio
from anyio.abc import Process
from anyio.streams.buffered import BufferedByteReceiveStream

SERVER = Path(__file__).with_name("server.py")
START_TIMEOUT = 60.0
"""Seconds for a server to start. It takes about one; a busy machine takes longer."""
ANSWER_TIMEOUT = 20.0
"""Seconds for it to carry out a command."""
KILL = getattr(signal, "SIGKILL", signal.SIGTERM)
"""Windows has no SIGKILL; there `os.kill` always ends a process at once."""


class DemoError(Exception):
    """The demo cannot continue; the text says why, and what to do."""


class HttpServer:
    """The HTTP server's process, and its successors at the same address."""

    def __init__(self, folder: Path) -> None:
        """
        Args:
            folder: The folder for the ledger and the process's stderr.
        """
        self.ledger = folder / "ledger"
        self._log = folder / "http.log"
        self._port = 0
        self._process: Process | None = None
        self._said: BufferedByteReceiveStream | None = None

    @property
    def url(self) -> str:
        """The URL of its MCP endpoint, after it has been started."""
        return f"http://127.0.0.1:{self._port}/mcp"

    @property
    def pid(self) -> int:
        """Id of the running process."""
        assert self._process is not None
        return self._process.pid

    async def start(self) -> None:
        """Start it; return when it listens.

        Raises:
            DemoError: it did not start.
        """
        command = [sys.executable, str(SERVER), "--http", str(self._port), "--ledger", str(self.ledger)]
        with self._log.open("ab") as log:
            # In a session of its own, so that Ctrl-C in the terminal reaches only the demo, which then ends the server.
            self._process = await anyio.open_process(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, start_new_session=True
            )
        assert self._process.stdout is not None
        self._said = BufferedByteReceiveStream(self._process.stdout)
        self._port = int(await self._hear(START_TIMEOUT))

    async def tell(self, order: str) -> None:
        """Send a line to its remote control (`server.Door`); return when it has acknowledged it."""
        assert self._process is not None
        assert self._process.stdin is not None
        await self._process.stdin.send(f"{order}\n".encode())
        await self._hear(ANSWER_TIMEOUT)

    async def _hear(self, timeout: float) -> str:
        assert self._said is not None
        try:
            with anyio.fail_after(timeout):
                return (await self._said.receive_until(b"\n", 100)).decode()
        except (TimeoutError, anyio.EndOfStream, anyio.IncompleteRead) as error:
            lines = self._log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
            why = lines[-1] if lines else "it said nothing"
            raise DemoError(f"the demo's HTTP server does not run: {why}") from error

    async def kill(self) -> None:
        """Kill it without a warning."""
        process, self._process = self._process, None
        if process is None:
            return
        with anyio.CancelScope(shield=True):
            with suppress(ProcessLookupError):
                process.kill()
            await process.aclose()


def kill_child(pid_file: Path) -> int:
    """Kill the process that wrote `pid_file`; returns its id."""
    pid = int(pid_file.read_text(encoding="utf-8"))
    with suppress(ProcessLookupError):
        os.kill(pid, KILL)
    return pid
