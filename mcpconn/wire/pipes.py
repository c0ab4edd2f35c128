"""The pipes to and from a child process, read and written without an intermediate buffer.

asyncio's own subprocess streams are unsuitable for two reasons. They buffer data that the child does not read and
report it as written, so it would be unknown whether a request was sent. And they make `Process.wait()` wait for the
pipes too, which a process started by the child can hold open indefinitely.
"""

from __future__ import annotations

import array
import os
import select
import sys
from collections import deque
from contextlib import suppress
from typing import Protocol

import anyio
from anyio.abc import ByteSendStream
from anyio.lowlevel import checkpoint

from mcpconn.wire.messages import ENDS, MessageTooLarge, Unreadable, unreadable

if sys.platform != "win32":
    import fcntl
    import termios

GONE = (anyio.EndOfStream, anyio.ClosedResourceError, anyio.BrokenResourceError, OSError)
"""The exceptions of reading from or writing to a pipe when one of its ends is closed."""
CHUNK = 65536
"""Bytes of one read or write: the size of a Linux pipe (pipe(7))."""


class Reader(Protocol):
    """The receiving end of a pipe; anyio's byte streams are readers, too."""

    async def receive(self, max_bytes: int = CHUNK) -> bytes: ...
    async def aclose(self) -> None: ...


class Line(Protocol):
    """The data to write."""

    data: bytes
    withdrawn: bool
    """Whether it must not be started."""

    def begin(self) -> None:
        """Whether its first bytes have been sent."""


class Writer(Protocol):
    """The sending end of a pipe."""

    def send_nowait(self, line: Line) -> bool:
        """Write a line if the pipe takes all of it at once. Whether it was written."""

    async def send(self, line: Line) -> None:
        """Write a line, unless it is withdrawn before its first byte is written."""

    @property
    def taken(self) -> bool | None:
        """Whether something was written and all of it has been read; None on systems that do not tell."""

    async def aclose(self) -> None: ...


class PipeReader:
    """This process's end of a child's stdout or stderr."""

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
            # An empty read means the end: no process has the write end open.
            if not data:
                raise anyio.EndOfStream
            return data
        raise anyio.ClosedResourceError

    async def aclose(self) -> None:
        """Close this end; a task that waits in `receive` is woken."""
        self._fd = _close(self._fd)


class PipeWriter:
    """This process's end of a child's stdin."""

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
        """Write a line, waiting for the child to read if necessary, unless it is withdrawn before it was started.

        Raises:
            BrokenPipeError: no process has the other end open.
            ClosedResourceError: this end is closed.
        """
        # Written in parts without copies, because a pipe holds 64 KiB and a message may be larger.
        rest = memoryview(line.data)
        while rest:
            if self._fd < 0:
                raise anyio.ClosedResourceError
            if line.withdrawn:
                # Checked in the same step as the write, because a cancellation may arrive a step later.
                return
            try:
                # Without waiting first, because a pipe is nearly always writable and a wait costs two system calls.
                rest = rest[self._write(line, rest) :]
            except BlockingIOError:
                await anyio.wait_writable(self._fd)

    def send_nowait(self, line: Line) -> bool:
        """Write a line if the pipe takes all of it at once. Whether it was written; errors are left to `send`."""
        # Up to so many bytes are written as a whole or not at all (POSIX, write()), so that no half of a line is left.
        if self._fd < 0 or len(line.data) > select.PIPE_BUF:
            return False
        try:
            self._write(line, line.data)
        except OSError:
            return False
        return True

    def _write(self, line: Line, data: bytes | memoryview) -> int:
        written = os.write(self._fd, data[:CHUNK])
        # Set with the first bytes: from here on the child may have read the line.
        self._used = True
        line.begin()
        return written

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
            # Checked while the descriptor is open; it is impossible after that.
            self._taken_in_the_end = self.taken
        self._fd = _close(self._fd)


class StreamWriter:  # pragma: no cover - for Windows, where pipes cannot be waited for
    """The same over an anyio stream, which does not report when the first byte was sent."""

    def __init__(self, stream: ByteSendStream) -> None:
        self._stream = stream

    def send_nowait(self, line: Line) -> bool:
        return False

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
    """Close `fd`, unless it is already closed. Returns the value that represents a closed one."""
    if fd >= 0:
        # Tasks that wait for it are woken with ClosedResourceError; otherwise they would wait indefinitely.
        anyio.notify_closing(fd)
        os.close(fd)
    return -1


class Lines:
    """The received lines, without line ends; empty ones are skipped. A wait for one that is cancelled loses nothing."""

    def __init__(self, reader: Reader, limit: int) -> None:
        """
        Args:
            reader: The source.
            limit: Bytes of a line. A longer one is skipped, because a child that writes without a line end must not
                fill the memory of its host, and there is a `MessageTooLarge` in its place: at once if its beginning
                says which request it answers, else at its end.
        """
        self._reader = reader
        self._limit = limit
        self._buffer = bytearray()
        self._skipped: bytes | None = None
        """The beginning of a line that is being skipped; empty once it has been reported."""
        self._found: deque[bytes | Exception] = deque()

    def __aiter__(self) -> Lines:
        return self

    async def __anext__(self) -> bytes | Exception:
        if self._found:
            # Without it, a child that writes many lines at once would keep the loop from everything else.
            await checkpoint()
        while not self._found:
            try:
                chunk = await self._reader.receive()
            except GONE:
                raise StopAsyncIteration from None
            self._split(chunk)
        return self._found.popleft()

    def _split(self, chunk: bytes) -> None:
        buffer, limit, found = self._buffer, self._limit, self._found
        # Only new bytes are searched; otherwise a long line in small pieces would be scanned repeatedly.
        searched = len(buffer)
        buffer += chunk
        while (end := buffer.find(b"\n", searched)) >= 0:
            line = bytes(buffer[:end])
            del buffer[: end + 1]
            searched = 0
            if self._skipped is not None:
                if self._skipped:
                    found.append(_too_long(self._skipped + line, limit))
            elif len(line) > limit:
                found.append(_too_long(line, limit))
            elif line.strip():
                found.append(line)
            self._skipped = None
        # Checked before the line has ended, so that memory stays bounded by the limit.
        if len(buffer) > limit or (self._skipped is not None and len(buffer) > ENDS):
            if self._skipped is None:
                self._skipped = bytes(buffer[:ENDS])
                error = _too_long(self._skipped, limit)
                if error.answers is not None or error.asks:
                    self._skipped = b""
                    found.append(error)
            # The end may contain the id if the beginning does not.
            del buffer[:-ENDS]


def _too_long(line: bytes, limit: int) -> Unreadable:
    return unreadable(f"a line of output is longer than {limit} bytes", line, MessageTooLarge)
