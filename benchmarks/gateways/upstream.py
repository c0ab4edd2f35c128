"""The server behind every gateway: a legacy server whose journal outlives it.

`python -m benchmarks.gateways.upstream PORT JOURNAL`. Its tools: `add`; `count`, which counts the calls of a session;
`charge`, which writes a line to the journal, and, when told to, kills its own process right after that.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread

from mcpconn.testing import HttpServer, Script, ScriptedTool
from mcpconn.testing.scripted.records import Received
from mcpconn.testing.scripted.tools import default_tools

STARTS = 20.0
"""Seconds that the process may take to listen."""


class Upstream:
    """The server's process, which can be killed and started again on the same port."""

    def __init__(self, port: int, journal: Path) -> None:
        self.port = port
        self.journal = journal
        self._process: subprocess.Popen[str] | None = None

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.port}/mcp"

    def start(self) -> None:
        """Start the process; returns when it listens."""
        command = [sys.executable, "-m", "benchmarks.gateways.upstream", str(self.port), str(self.journal)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        if not self._process.stdout.readline():
            raise RuntimeError("the server did not start")

    def kill(self) -> None:
        """End it without a word; waits until it is gone."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None

    def wait(self) -> None:
        """Return once it has ended by itself."""
        assert self._process is not None
        self._process.wait(STARTS)

    def ask(self, command: str) -> Any:
        """`forget` its sessions, `arm` the next `charge` to kill it, or tell the `requests` since last asked."""
        assert self._process is not None
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(command + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def runs(self) -> int:
        """How often `charge` has run, by the journal."""
        return len(self.journal.read_text().splitlines()) if self.journal.exists() else 0


async def main(port: int, journal: Path) -> None:
    """Serve until standard input ends."""
    armed = False
    counts: Counter[str | None] = Counter()
    now: list[str | None] = [None]

    def look(received: Received) -> None:
        now[0] = received.session_id

    def count(arguments: Any) -> str:
        counts[now[0]] += 1
        return str(counts[now[0]])

    def charge(arguments: Any) -> str:
        with journal.open("a") as file:
            file.write(f"{time.time()}\n")
        if armed:
            os.kill(os.getpid(), signal.SIGKILL)
        return "charged"

    plain = [tool for tool in default_tools() if tool.name == "add"]
    script = Script(tools=[*plain, ScriptedTool("count", count), ScriptedTool("charge", charge)])
    script.on_request = look
    async with HttpServer(script, port=port):
        print("listening", flush=True)
        while command := (await anyio.to_thread.run_sync(sys.stdin.readline)).strip():
            answer: Any = None
            if command == "forget":
                script.forget_sessions()
                counts.clear()
            elif command == "arm":
                armed = True
            elif command == "requests":
                answer = [received.rpc_method or received.http_method for received in script.requests]
                script.requests.clear()
            print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    anyio.run(main, int(sys.argv[1]), Path(sys.argv[2]))
