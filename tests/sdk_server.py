"""The SDK's own server as a program: `python tests/sdk_server.py PORT TRANSPORT COUNT_FILE`.

Says "ready" on standard output once it listens. Each execution of `charge` and `slow_charge` is a line in the file.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import anyio
import uvicorn
from mcp import MCPError
from mcp.server import MCPServer
from mcp_types import ToolAnnotations


def make(count_file: Path) -> MCPServer:
    """The server with its tools."""
    server = MCPServer("sdk")

    def count(tool: str) -> None:
        with count_file.open("a", encoding="utf-8") as file:
            file.write(tool + "\n")

    @server.tool(annotations=ToolAnnotations(read_only_hint=True))
    def add(a: int, b: int) -> str:
        return str(a + b)

    @server.tool()
    def charge(amount: int = 1) -> str:
        count("charge")
        return f"charged {amount}"

    @server.tool()
    async def slow_charge(seconds: float) -> str:
        count("slow_charge")
        await anyio.sleep(seconds)
        return f"slept {seconds:g}"

    @server.tool()
    def refuses() -> str:
        raise MCPError(-32042, "Pay first", {"price": 5})

    return server


class Announced(uvicorn.Server):
    """Says when it listens."""

    async def startup(self, sockets: Any = None) -> None:
        await super().startup(sockets)
        sys.stdout.write("ready\n")
        sys.stdout.flush()


def main() -> None:
    port, transport, count_file = int(sys.argv[1]), sys.argv[2], Path(sys.argv[3])
    server = make(count_file)
    app = server.sse_app() if transport == "sse" else server.streamable_http_app()
    Announced(uvicorn.Config(app, host="127.0.0.1", port=port, log_level="critical")).run()


if __name__ == "__main__":
    main()
