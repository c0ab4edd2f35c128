"""The servers that are measured against, in processes of their own.

`scripted` is `mcpconn.testing.HttpServer`: it costs little, so that it is the client that is measured, it counts
what it receives, and it can be told to forget its sessions, to stop and to start. `sdk` is the SDK's own server
under uvicorn. Run as `python -m benchmarks.servers KIND OPTIONS`, with options as JSON.
"""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from typing import Any

import anyio
import anyio.to_thread

from mcpconn.testing import HttpServer, Script
from mcpconn.testing.scripted import faults


class Servers:
    """A server process, and the addresses in it."""

    def __init__(self, process: subprocess.Popen[str], ports: list[int]) -> None:
        self._process = process
        self.urls = [f"http://127.0.0.1:{port}/mcp" for port in ports]

    @property
    def url(self) -> str:
        """The address of the only server, or of the first."""
        return self.urls[0]

    @property
    def pid(self) -> int:
        """The process."""
        return self._process.pid

    def ask(self, command: str) -> Any:
        """Have the scripted servers do something.

        Args:
            command: `forget` their sessions, `stop`, `start`, `inject FAULT` into the next call of a tool, `clear`
                such faults: these return the monotonic time at which it was done. Or tell the `requests`
                received since last asked, or the `executions` of each tool.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(command + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())


@contextmanager
def running(kind: str, **options: Any) -> Iterator[Servers]:
    """Start a server process; it ends with the block."""
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.servers", kind, json.dumps(options)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line:
            raise RuntimeError(f"the {kind} server did not start")
        yield Servers(process, json.loads(line))
    finally:
        process.kill()
        process.communicate()


@contextmanager
def one(kind: str, answer: str = "json", era: str = "legacy") -> Iterator[Servers]:
    """One server of a kind; the SDK's speaks both eras."""
    with running(kind, answer=answer, **({"era": era} if kind == "scripted" else {})) as servers:
        yield servers


# -- in the server's process


async def _scripted(count: int = 1, **options: Any) -> None:
    async with AsyncExitStack() as stack:
        servers = [await stack.enter_async_context(HttpServer(Script(**options))) for _ in range(count)]
        print(json.dumps([server.port for server in servers]), flush=True)
        while command := (await anyio.to_thread.run_sync(sys.stdin.readline)).strip():
            print(json.dumps(await _obey(command, servers)), flush=True)


async def _obey(command: str, servers: list[HttpServer]) -> Any:
    name, _, argument = command.partition(" ")
    scripts = [server.script for server in servers]
    if name == "requests":
        seen = [received.rpc_method or received.http_method for script in scripts for received in script.requests]
        for script in scripts:
            script.requests.clear()
        return seen
    if name == "executions":
        return dict(sum((script.executions for script in scripts), Counter[str]()))
    for server in servers:
        if name == "forget":
            server.script.forget_sessions()
        elif name == "inject":
            server.script.inject(getattr(faults, argument)(), tool="charge")
        elif name == "clear":
            server.script.clear()
        else:
            await {"stop": server.stop, "start": server.start}[name]()
            server.script.forget_sessions()
    return time.monotonic()


def _sdk(answer: str = "json") -> None:
    import uvicorn
    from mcp.server import MCPServer

    server = MCPServer("benchmark", log_level="WARNING")

    @server.tool()
    def add(a: int, b: int) -> int:
        """Add two numbers."""
        return a + b

    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen(1024)
    print(json.dumps([listener.getsockname()[1]]), flush=True)
    app = server.streamable_http_app(json_response=answer == "json")
    uvicorn.Server(uvicorn.Config(app, log_level="warning", backlog=1024)).run([listener])


if __name__ == "__main__":
    given: dict[str, Any] = json.loads(sys.argv[2])
    if sys.argv[1] == "sdk":
        _sdk(**given)
    else:
        anyio.run(lambda: _scripted(**given))
