"""A stdio server: a child process whose end is noticed, explained, and certain.

The SDK's stdio transport does not tell an idle client that its child died, does not say with what status,
passes stderr through to the host's terminal, and takes up to 6.5 s to end a child that hangs. Lines are
bounded here too: a child that writes without end must not fill the memory of its host.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections import deque
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any

import anyio
from anyio.abc import ByteReceiveStream, Process
from mcp.client.stdio import get_default_environment
from mcp.shared.message import SessionMessage
from mcp_types import jsonrpc_message_adapter

from mcpconn.wire.watch import Watch

STDERR_LINES = 20
STDERR_WIDTH = 500
"""What is kept of a child's stderr: so many lines, so many characters of each."""
FORCE_AFTER = 1.0
"""Seconds from SIGTERM to SIGKILL, at most."""
POLL = 0.01
"""Seconds between looks at the return code. Not `Process.wait()`: on asyncio that also waits for the pipes,
which a grandchild can hold open."""
GONE = (anyio.EndOfStream, anyio.ClosedResourceError, anyio.BrokenResourceError, OSError)


class ChildExited(Exception):
    """The child process ended. The text says how, with the last words of its stderr."""

    def __init__(self, returncode: int | None, stderr: Sequence[str]) -> None:
        self.returncode = returncode
        self.stderr = tuple(stderr)
        if returncode is None:
            how = "closed its output"
        elif returncode < 0:
            with suppress(ValueError):
                how = f"killed by {signal.Signals(-returncode).name}"
                super().__init__(how)
                return
            how = f"killed by signal {-returncode}"
        else:
            how = f"exited with {returncode}"
        # The last line that says something is the exception's message in most languages.
        last = next((line for line in reversed(self.stderr) if line.strip()), "")
        super().__init__(f"{how}: {last}" if last else how)


class Child:
    """A running child and the last lines of its stderr."""

    def __init__(self, process: Process, watch: Watch) -> None:
        self.process = process
        self.watch = watch
        self.stderr: deque[str] = deque(maxlen=STDERR_LINES)

    async def drain_stderr(self) -> None:
        """Keep the last lines, so that the pipe never fills and a failure can be explained."""
        assert self.process.stderr is not None
        rest = b""
        with suppress(*GONE):
            async for chunk in self.process.stderr:
                *lines, rest = (rest + chunk).split(b"\n")
                self.stderr.extend(line.decode("utf-8", "replace").rstrip()[:STDERR_WIDTH] for line in lines)
                rest = rest[: STDERR_WIDTH * 4]
        if rest.strip():
            self.stderr.append(rest.decode("utf-8", "replace").rstrip()[:STDERR_WIDTH])

    async def exited(self, timeout: float) -> bool:
        """Whether the process ended within so many seconds."""
        with anyio.move_on_after(timeout):
            while self.process.returncode is None:  # noqa: ASYNC110 - there is no event to wait for, see POLL
                await anyio.sleep(POLL)
        return self.process.returncode is not None

    def signal_group(self, number: int) -> None:
        """Send a signal to the child and all its descendants."""
        with suppress(ProcessLookupError, PermissionError):
            if sys.platform == "win32":  # pragma: no cover - no process groups to signal there
                self.process.kill()
            else:
                os.killpg(self.process.pid, number)

    async def stop(self) -> None:
        """End the child: close its stdin, wait, SIGTERM, wait, SIGKILL (specification, lifecycle, shutdown)."""
        assert self.process.stdin is not None
        with suppress(*GONE):
            await self.process.stdin.aclose()
        grace = self.watch.grace
        if not await self.exited(grace):
            self.signal_group(signal.SIGTERM)
            if not await self.exited(min(FORCE_AFTER, grace)):
                self.signal_group(signal.SIGKILL if sys.platform != "win32" else signal.SIGTERM)
                await self.exited(FORCE_AFTER)
        elif self.process.returncode:
            # It died of itself; its descendants may not have.
            self.signal_group(signal.SIGTERM)
        for stream in (self.process.stdout, self.process.stderr):
            with suppress(*GONE):
                if stream is not None:
                    await stream.aclose()
        # asyncio's transport stays open, and warns, while a descendant holds a pipe. Nothing public closes it.
        transport = getattr(getattr(self.process, "_process", None), "_transport", None)
        close = getattr(transport, "close", None)
        if callable(close):
            with suppress(PermissionError):
                close()


async def lines_of(stream: ByteReceiveStream, limit: int) -> AsyncIterator[bytes | Exception]:
    """The lines of `stream`. One that is longer than `limit` is skipped, and an exception yielded for it."""
    buffer = bytearray()
    skipping = False
    async for chunk in stream:
        buffer += chunk
        while (end := buffer.find(b"\n")) >= 0:
            line = bytes(buffer[:end])
            del buffer[: end + 1]
            if not skipping and line.strip():
                yield line
            skipping = False
        if len(buffer) > limit:
            buffer.clear()
            if not skipping:
                yield ValueError(f"a line of output is longer than {limit} bytes; it was skipped")
            skipping = True


@asynccontextmanager
async def stdio_transport(
    command: str,
    args: Sequence[str],
    *,
    env: Mapping[str, str] | None,
    cwd: str | None,
    watch: Watch,
    limit: int,
) -> AsyncIterator[tuple[Any, Any]]:
    """Run a command and talk to it, one JSON-RPC message a line.

    Raises:
        OSError: the command cannot be started.
    """
    process = await anyio.open_process(
        [command, *args],
        env=get_default_environment() | dict(env or {}),
        cwd=cwd,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    # No await between the start of the process and the block that ends it.
    child = Child(process, watch)
    to_session, read = anyio.create_memory_object_stream[SessionMessage | Exception](0)
    write, from_session = anyio.create_memory_object_stream[SessionMessage](0)

    async def read_stdout() -> None:
        assert process.stdout is not None
        async with to_session:
            with suppress(*GONE):
                async for line in lines_of(process.stdout, limit):
                    await to_session.send(line if isinstance(line, Exception) else parse(line))
            # What it said last explains its end: give it the moment it needs to be read.
            await child.exited(1.0)
            with anyio.move_on_after(0.2):
                await stderr_read.wait()
            watch.reason = ChildExited(process.returncode, child.stderr)

    async def read_stderr() -> None:
        try:
            await child.drain_stderr()
        finally:
            stderr_read.set()

    async def write_stdin() -> None:
        assert process.stdin is not None
        async with from_session:
            with suppress(*GONE):
                async for item in from_session:
                    line = item.message.model_dump_json(by_alias=True, exclude_unset=True)
                    await process.stdin.send(line.encode() + b"\n")

    stderr_read = anyio.Event()
    async with anyio.create_task_group() as group:
        try:
            group.start_soon(read_stdout)
            group.start_soon(read_stderr)
            group.start_soon(write_stdin)
            yield read, write
        finally:
            with anyio.CancelScope(shield=True):
                read.close()
                write.close()
                await child.stop()
            group.cancel_scope.cancel()
            to_session.close()
            from_session.close()


def parse(line: bytes) -> SessionMessage | Exception:
    """One line as a message, or the error that it is none: servers print banners on stdout, too."""
    try:
        return SessionMessage(jsonrpc_message_adapter.validate_json(line, by_name=False))
    except ValueError as error:
        return error
