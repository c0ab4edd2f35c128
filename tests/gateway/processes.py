"""`mcpconn serve` as a process of its own, over HTTP or over stdin and stdout."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import anyio
from anyio.abc import ByteReceiveStream, Process
from mcp import StdioServerParameters


def command(folder: Path, content: dict[str, Any], *options: str) -> list[str]:
    """The command that serves a configuration.

    Args:
        folder: Where the file and the state are kept.
        content: What the file says.
        options: Of `mcpconn serve`.
    """
    (folder / "mcp.json").write_text(json.dumps(content), encoding="utf-8")
    serve = [sys.executable, "-m", "mcpconn", "serve", str(folder / "mcp.json"), "--state", str(folder / "state")]
    return [*serve, *options]


def over_stdio(folder: Path, content: dict[str, Any]) -> StdioServerParameters:
    """How a client starts it, to speak with it over stdin and stdout."""
    program, *arguments = command(folder, content, "--stdio")
    return StdioServerParameters(command=program, args=arguments, env=dict(os.environ))


@asynccontextmanager
async def over_http(
    folder: Path, content: dict[str, Any], *options: str, hear: Callable[[bytes], object] = lambda data: None
) -> AsyncIterator[tuple[Process, str]]:
    """The process and its URL; it is killed at the end of the block.

    Args:
        folder: Where the file and the state are kept.
        content: What the file says.
        options: Of `mcpconn serve`.
        hear: Called with what it writes, after its URL.
    """
    serve = command(folder, content, "--listen", "127.0.0.1:0", *options)
    process = await anyio.open_process(serve, stderr=subprocess.STDOUT, env=os.environ)
    try:
        assert process.stdout is not None
        said = b""
        while b"/mcp\n" not in said:
            said += await process.stdout.receive()
        url = "http://" + said.decode().partition("http://")[2].partition("\n")[0]
        async with anyio.create_task_group() as group:
            group.start_soon(_read_on, process.stdout, hear)
            yield process, url
            group.cancel_scope.cancel()
    finally:
        with anyio.CancelScope(shield=True):
            with suppress(ProcessLookupError):
                process.kill()
            await process.aclose()


async def _read_on(stream: ByteReceiveStream, hear: Callable[[bytes], object]) -> None:
    """Read what a process writes, so that it never waits for a full pipe."""
    with suppress(anyio.EndOfStream):
        while True:
            hear(await stream.receive())
