"""The demo's server: the SDK's own `MCPServer` in a process that can be killed, over stdio or HTTP.

    python server.py                        over stdio
    python server.py --http 0               over Streamable HTTP, at a free port; prints the port

Run it by path, because it does not import mcpconn and starts faster without it.

Each execution of `charge` is one line in the ledger, written before the answer is sent. A file survives
SIGKILL of its writer, so the ledger shows what ran even if no caller got an answer.

Over HTTP, standard input is a remote control (`Door`), and the process ends at its end of file, so the server does not
outlive the demo.
"""

from __future__ import annotations

import argparse
import math
import os
import socket
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
from mcp.server.mcpserver import MCPServer
from mcp_types import ToolAnnotations

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

WORK = 0.1
"""Seconds that `charge` waits before it writes to the ledger, and again before it answers."""
SESSION = b"mcp-session-id"
BODIES = {
    429: (b"text/plain", b"Too many requests\n"),
    503: (b"text/html", b"<html><body><h1>503 Service Unavailable</h1></body></html>\n"),
}
"""An answer like a proxy's, without JSON-RPC."""


class Ledger:
    """A record of executions, in a file that survives the process."""

    def __init__(self, path: Path | None) -> None:
        """
        Args:
            path: The file; None keeps no ledger.
        """
        self._path = path

    def enter(self, line: str) -> None:
        """Add a line."""
        if self._path is None:
            return
        # One appending write of one short line, so lines of two processes cannot mix.
        file = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            os.write(file, f"{line}\n".encode())
        finally:
            os.close(file)


def build(ledger: Ledger) -> MCPServer[None]:
    """A server with a tool that may be repeated and one that must not."""
    server: MCPServer[None] = MCPServer("demo", log_level="WARNING")

    @server.tool(annotations=ToolAnnotations(read_only_hint=True))
    async def add(a: int, b: int) -> int:
        """Add two numbers."""
        return a + b

    @server.tool()
    async def charge(order: str) -> str:
        """Charge for an order; it must not run twice. Answers with the order."""
        await anyio.sleep(WORK)
        ledger.enter(order)
        await anyio.sleep(WORK)
        return order

    return server


class Door:
    """An ASGI middleware before the HTTP server that causes faults on command."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._known: frozenset[bytes] = frozenset()
        self._forgotten: frozenset[bytes] = frozenset()
        self._status = 0
        self._until = 0.0

    def obey(self, line: str) -> None:
        """`forget`: forget every session. `refuse STATUS SECONDS`: refuse all requests for that time."""
        match line.split():
            case ["forget"]:
                self._forgotten = self._known
            case ["refuse", status, seconds]:
                self._status, self._until = int(status), time.monotonic() + float(seconds)
            case _:
                raise ValueError(line)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        left = self._until - time.monotonic()
        if left > 0:
            await self._refuse(left, send)
            return
        # A forgotten session's id is replaced with an unknown one, so that the refusal is the server's own.
        headers = [(k, b"forgotten" if k == SESSION and v in self._forgotten else v) for k, v in scope["headers"]]

        async def note(message: Message) -> None:
            if message["type"] == "http.response.start":
                self._known |= {value for key, value in message["headers"] if key.lower() == SESSION}
            await send(message)

        await self._app({**scope, "headers": headers}, receive, note)

    async def _refuse(self, left: float, send: Send) -> None:
        kind, body = BODIES[self._status]
        headers = [(b"content-type", kind), (b"retry-after", str(math.ceil(left)).encode())]
        await send({"type": "http.response.start", "status": self._status, "headers": headers})
        await send({"type": "http.response.body", "body": body})


def serve_http(server: MCPServer[None], port: int) -> None:
    """Serve until standard input ends."""
    import uvicorn

    door = Door(server.streamable_http_app())
    listening = socket.create_server(("127.0.0.1", port))
    print(listening.getsockname()[1], flush=True)
    threading.Thread(target=remote_control, args=(door,), daemon=True).start()
    uvicorn.Server(uvicorn.Config(door, log_level="warning")).run(sockets=[listening])


def remote_control(door: Door) -> None:
    """Carry out commands from standard input, line by line, acknowledging each; end the process at its end of file."""
    for line in sys.stdin:
        door.obey(line)
        print("ok", flush=True)
    # Called from a thread, while streams are open that would never end on their own.
    os._exit(0)


def main() -> None:
    """Serve."""
    parser = argparse.ArgumentParser(description="The server of mcpconn's demo.")
    parser.add_argument("--http", type=int, metavar="PORT", help="serve Streamable HTTP; 0 takes a free port")
    parser.add_argument("--ledger", type=Path, help="append a line for each execution of charge")
    parser.add_argument("--pid-file", type=Path, help="write the process id here")
    options = parser.parse_args()
    server = build(Ledger(options.ledger))
    if options.pid_file is not None:
        options.pid_file.write_text(str(os.getpid()), encoding="utf-8")
    if options.http is None:
        server.run("stdio")
    else:
        serve_http(server, options.http)


if __name__ == "__main__":
    main()
