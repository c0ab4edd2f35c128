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
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager, suppress
from typing import Any

import anyio
from anyio.abc import ByteReceiveStream, Process
from mcp.client.stdio import get_default_environment
from mcp.shared.message import SessionMessage

from mcpconn.wire import messages
from mcpconn.wire.messages import Limits, Outgoing
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

    async def exited(self, timeout: float | None = None, *, family: bool = False) -> bool:
        """Whether the process ended within so many seconds, or its grace; with `family`, its descendants too."""

        def lives() -> bool:
            return self.process.returncode is None or (family and self.signal_group(0))

        began = anyio.current_time()
        # The grace is looked at again each time: the connection may be closed while its child is being ended.
        while lives() and anyio.current_time() - began < (timeout or self.watch.grace):  # noqa: ASYNC110 - see POLL
            await anyio.sleep(POLL)
        return not lives()

    def signal_group(self, number: int) -> bool:
        """Send a signal to the child and all its descendants; 0 only asks. Whether there was anybody."""
        with suppress(ProcessLookupError, PermissionError):
            if sys.platform != "win32":
                os.killpg(self.process.pid, number)
                return True
            if number:  # pragma: no cover - no process groups to signal there
                self.process.kill()
        return False

    async def stop(self) -> None:
        """End the child: close its stdin, wait, SIGTERM, wait, SIGKILL (specification, lifecycle, shutdown)."""
        assert self.process.stdin is not None
        with suppress(*GONE):
            await self.process.stdin.aclose()
        if not await self.exited() or self.signal_group(0):
            # It hangs, or it is gone and has left descendants behind.
            self.signal_group(signal.SIGTERM)
            if not await self.exited(min(FORCE_AFTER, self.watch.grace), family=True):
                self.signal_group(signal.SIGKILL if sys.platform != "win32" else signal.SIGTERM)
                await self.exited(FORCE_AFTER)
                # Nobody survives that. Where no init collects orphans, they stay in the list for ever.
                await self.exited(0.1, family=True)
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


async def lines_of(stream: ByteReceiveStream, limit: int) -> AsyncGenerator[bytes | Exception, None]:
    """The lines of `stream`. One that is longer than `limit` is skipped, and an exception yielded for it."""
    buffer = bytearray()
    skipping = False
    async for chunk in stream:
        searched = len(buffer)
        buffer += chunk
        while (end := buffer.find(b"\n", searched)) >= 0:
            line = bytes(buffer[:end])
            del buffer[: end + 1]
            searched = 0
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
    limits: Limits,
) -> AsyncIterator[tuple[Any, Any]]:
    """Run a command and talk to it, one JSON-RPC message a line.

    Raises:
        OSError: the command cannot be started.
    """
    # Shielded, and no await between the start of the process and the block that ends it: a dial that is
    # cancelled in this moment would leave a child behind that nobody knows.
    with anyio.CancelScope(shield=True):
        process = await anyio.open_process(
            [command, *args],
            env=get_default_environment() | dict(env or {}),
            cwd=cwd,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
    child = Child(process, watch)
    to_session, read = anyio.create_memory_object_stream[SessionMessage | Exception](0)
    write, from_session = anyio.create_memory_object_stream[Outgoing](0)

    async def read_stdout() -> None:
        assert process.stdout is not None
        async with to_session:
            # trio wants a generator closed that is left in the middle.
            async with aclosing(lines_of(process.stdout, limits.size)) as lines:
                with suppress(*GONE):
                    async for line in lines:
                        await to_session.send(line if isinstance(line, Exception) else await parse(line, limits))
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
                    await process.stdin.send(item.body + b"\n")

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


async def parse(line: bytes, limits: Limits) -> SessionMessage | Exception:
    """One line as a message, or the error that it is none: servers print banners on stdout, too."""
    try:
        return SessionMessage(await messages.parse(line, limits))
    except messages.Unreadable as error:
        return error
