"""What is to be written to a child's stdin: one message after another, each with a record of whether it left.

A child that does not read blocks the message that is being written, and those behind it wait here. One whose sender
leaves before its first byte was written is taken back, and will never be sent: that is what makes it safe to
say of its call that it has not run.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import anyio
from mcp_types import JSONRPCRequest

from mcpconn.core.attempt import ATTEMPT, Attempt
from mcpconn.wire.messages import Outgoing
from mcpconn.wire.pipes import GONE, Writer

FLUSH = 0.5
"""Seconds that closing waits for messages which are being written: the SDK's figure."""


class _Line:
    """One message."""

    __slots__ = ("attempt", "begun", "data", "done", "scope", "withdrawn", "written")

    def __init__(self, data: bytes, attempt: Attempt | None) -> None:
        self.data = data
        self.attempt = attempt
        self.scope = anyio.CancelScope()
        self.begun = False
        """Its first byte has left this process."""
        self.withdrawn = False
        """Nobody waits for it any more, or the session has ended, before that: it must not be begun."""
        self.written = False
        """All of it has."""
        self.done = anyio.Event()

    def withdraw(self) -> None:
        """Do not write it, if nothing of it has been written: it waits for room in the pipe."""
        if not self.begun:
            self.withdrawn = True
            self.scope.cancel()

    def begin(self) -> None:
        self.begun = True
        if self.attempt is not None:
            self.attempt.written = True


class Outbox:
    """The write stream of a stdio session. `run` writes; any number of tasks may send."""

    def __init__(self, writer: Writer, *, encode: Callable[[bytes], bytes] | None = None) -> None:
        """
        Args:
            writer: Writes a line.
            encode: Translates a message from UTF-8.
        """
        self._writer = writer
        self._encode = encode
        self._lines: deque[_Line] = deque()
        self._current: _Line | None = None
        """The one that is being written."""
        # Made before the wait and after the queue was found empty, with nothing awaited in between: no line is missed.
        self._more = anyio.Event()
        self._idle = anyio.Event()
        self.closed = False

    async def send(self, item: Outgoing) -> None:
        """Return when the message has been written.

        Raises:
            BrokenResourceError: it was not, or not all of it, since nobody reads any more.
            ClosedResourceError: the session has ended.
            UnicodeEncodeError: the child's encoding cannot express it. Nothing was written.
        """
        # Before the line is made: what is sent after the end was certainly not written.
        if self.closed:
            raise anyio.ClosedResourceError
        attempt = ATTEMPT.get() if isinstance(item.message, JSONRPCRequest) else None
        body = item.body + b"\n"
        line = _Line(body if self._encode is None else self._encode(body), attempt)
        # In the order of the callers. One task writes, so two messages never mix in the pipe.
        self._lines.append(line)
        self._more.set()
        try:
            await line.done.wait()
        except BaseException:
            # Still queued: it is taken back, and the call is certain not to have run.
            if line in self._lines:
                self._lines.remove(line)
            else:
                line.withdraw()
            raise
        if not line.written:
            raise anyio.BrokenResourceError

    async def run(self) -> bool:
        """Write what there is to write, until `close` is called. False: nobody is left to read it."""
        try:
            while not self.closed:
                if self._lines:
                    await self._write(self._lines.popleft())
                else:
                    self._more = anyio.Event()
                    self._idle.set()
                    await self._more.wait()
                    self._idle = anyio.Event()
            return True
        except GONE:
            # Whoever waits for a line is told by `close`, when it is known how the child ended.
            return self.closed
        finally:
            self._idle.set()

    async def _write(self, line: _Line) -> None:
        self._current = line
        with line.scope:
            await self._writer.send(line)
            # A line whose scope was cancelled before its first byte ends the block, too, and was not written.
            line.written = line.begun
        self._current = None
        line.done.set()

    async def flush(self) -> None:
        """Return when all has been written, or after half a second."""
        with anyio.move_on_after(FLUSH):
            await self._idle.wait()
        self.close()

    def close(self) -> None:
        """Take no more messages. Those that wait are not sent, and their senders are told."""
        self.closed = True
        self._more.set()
        self.recall()
        if self._current is not None:
            # If its first byte has left, the rest is lost with the pipe; its sender is told that it is not known.
            self._current.withdraw()
            self._current.done.set()

    def recall(self) -> None:
        """Take back the messages that wait behind another one. None of them was begun, so their calls were not sent."""
        while self._lines:
            self._lines.popleft().done.set()

    async def aclose(self) -> None:
        """Nothing: the transport closes it at its own end."""
