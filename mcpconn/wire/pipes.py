"""The pipes to and from a child process, read and written without a buffer of ours in between.

asyncio's own subprocess streams would do two things that must not happen here. They keep what a child does not
read in this process and call it written, so that nobody could say whether a request has left. And they make
`Process.wait()` wait for the pipes too, which a process started by the child can hold open for ever.
"""

from __future__ import annotations

import array
import os
import sys
from collections.abc import AsyncGenerator
from contextlib import suppress
from typing import Protocol

import anyio
from anyio.abc import ByteSendStream

from mcpconn.wire.messages import ENDS, MessageTooLarge, Unreadable, unreadable

if sys.platform != "win32":
    import fcntl
    import termios

GONE = (anyio.EndOfStream, anyio.ClosedResourceError, anyio.BrokenResourceError, OSError)
"""What reading from or writing to a pipe raises when one of its ends is closed."""
CHUNK = 65536
"""Bytes of one read or write: the size of a Linux pipe (pipe(7))."""


class Reader(Protocol):
    """The receiving end of a pipe; anyio's byte streams are readers, too."""

    async def receive(self, max_bytes: int = CHUNK) -> bytes: ...
    async def aclose(self) -> None: ...


class Line(Protocol):
    """What is to be written."""

    data: bytes
    withdrawn: bool
    """It must not be begun any more."""

    def begin(self) -> None:
        """Its first bytes have left this process."""


class Writer(Protocol):
    """The sending end of a pipe."""

    async def send(self, line: Line) -> None:
        """Write a line, unless it is withdrawn before its first byte could be written."""

    @property
    def taken(self) -> bool | None:
        """Whether something was written and all of it has been read; None on systems that do not tell."""

    async def aclose(self) -> None: ...


class PipeReader:
    """Our end of a child's stdout or stderr."""

    def __init__(self, fd: int) -> None:
        """
        Args:
            fd: The read end of a pipe; closed by `aclose`.
        """
        os.set_blocking(fd, False)
        self._fd = fd

    async def receive(self, max_bytes: int = CHUNK) -> bytes:
        """The next bytes.

        Raises:
            EndOfStream: all write ends are closed.
            ClosedResourceError: this end is closed.
        """
        while self._fd >= 0:
            # A wait and then a read that cannot block: no thread is needed for a pipe.
            await anyio.wait_readable(self._fd)
            try:
                data = os.read(self._fd, max_bytes)
            except BlockingIOError:  # pragma: no cover - a wake-up for nothing, which the kernel allows itself
                continue
            # An empty read is the end: no process has the write end open any more.
            if not data:
                raise anyio.EndOfStream
            return data
        raise anyio.ClosedResourceError

    async def aclose(self) -> None:
        """Close this end; whoever waits in `receive` is told."""
        self._fd = _close(self._fd)


class PipeWriter:
    """Our end of a child's stdin."""

    def __init__(self, fd: int) -> None:
        """
        Args:
            fd: The write end of a pipe; closed by `aclose`.
        """
        os.set_blocking(fd, False)
        self._fd = fd
        self._used = False
        self._taken_in_the_end: bool | None = False

    async def send(self, line: Line) -> None:
        """Write a line, waiting for the child to read if need be, unless it is withdrawn before it was begun.

        Raises:
            BrokenPipeError: no process has the other end open.
            ClosedResourceError: this end is closed.
        """
        # Written in parts without copies: a pipe holds 64 KiB, a message may be larger.
        rest = memoryview(line.data)
        while rest:
            if self._fd < 0:
                raise anyio.ClosedResourceError
            if line.withdrawn:
                # Looked at in the same step as the write: a cancellation may come a step too late.
                return
            try:
                # Without a wait first: a pipe is nearly always writable, and a wait costs two system calls.
                rest = rest[os.write(self._fd, rest[:CHUNK]) :]
            except BlockingIOError:
                await anyio.wait_writable(self._fd)
            else:
                # Set with the first bytes: from here on the child may have read the line.
                self._used = True
                line.begin()

    @property
    def taken(self) -> bool | None:
        """Whether something was written and all of it has been read; None on systems that do not tell."""
        if not self._used:
            return False
        if self._fd < 0:
            return self._taken_in_the_end
        if sys.platform == "win32":
            return None
        # FIONREAD counts what is in the pipe. Zero after a write means that the child has read it.
        unread = array.array("i", [0])
        try:
            # Linux answers for either end of a pipe, with or without a reader at the other.
            fcntl.ioctl(self._fd, termios.FIONREAD, unread)
        except OSError:  # pragma: no cover - other systems answer for the read end only
            return None
        return unread[0] == 0

    async def aclose(self) -> None:
        """Close this end: the child reads the end of its stdin."""
        if self._fd >= 0:
            # Asked while the descriptor is open: a closed one does not tell.
            self._taken_in_the_end = self.taken
        self._fd = _close(self._fd)


class StreamWriter:  # pragma: no cover - for Windows, where pipes cannot be waited for
    """The same over an anyio stream, which does not say when the first byte has left."""

    def __init__(self, stream: ByteSendStream) -> None:
        self._stream = stream

    async def send(self, line: Line) -> None:
        if not line.withdrawn:
            line.begin()
            await self._stream.send(line.data)

    @property
    def taken(self) -> bool | None:
        return None

    async def aclose(self) -> None:
        with suppress(*GONE):
            await self._stream.aclose()


def _close(fd: int) -> int:
    """Close `fd`, unless it is closed already. Returns what stands for a closed one."""
    if fd >= 0:
        # Tasks that wait for it are woken with ClosedResourceError; otherwise they would wait for ever.
        anyio.notify_closing(fd)
        os.close(fd)
    return -1


async def lines_of(reader: Reader, limit: int) -> AsyncGenerator[bytes | Exception, None]:
    """The lines that arrive, without their ends; empty ones are left out.

    Args:
        reader: Where they arrive.
        limit: Bytes of a line. A longer one is skipped, because a child that writes without a line end must not fill
            the memory of its host, and a `MessageTooLarge` is yielded in its place: at once if its beginning says
            which request it answers, else at its end.
    """
    buffer = bytearray()
    skipped: bytes | None = None
    """The beginning of a line that is being skipped; empty once it has been reported."""
    while True:
        try:
            chunk = await reader.receive()
        except GONE:
            return
        # Only new bytes are searched: a long line in small pieces would otherwise be read over and over.
        searched = len(buffer)
        buffer += chunk
        while (end := buffer.find(b"\n", searched)) >= 0:
            line = bytes(buffer[:end])
            del buffer[: end + 1]
            searched = 0
            if skipped is not None:
                if skipped:
                    yield _too_long(skipped + line, limit)
            elif len(line) > limit:
                yield _too_long(line, limit)
            elif line.strip():
                yield line
            skipped = None
        # Checked before the line has ended, so that memory stays bounded by the limit.
        if len(buffer) > limit or (skipped is not None and len(buffer) > ENDS):
            if skipped is None:
                skipped = bytes(buffer[:ENDS])
                error = _too_long(skipped, limit)
                if error.answers is not None or error.asks:
                    skipped = b""
                    yield error
            # The end may say what the beginning does not.
            del buffer[:-ENDS]


def _too_long(line: bytes, limit: int) -> Unreadable:
    return unreadable(f"a line of output is longer than {limit} bytes", line, MessageTooLarge)
