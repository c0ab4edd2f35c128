"""The queue of messages for a child's stdin, each with a record of whether it was sent.

A child that does not read blocks the message that is being written, and later ones wait here. If the sender of a
message is cancelled before its first byte was written, the message is withdrawn and never sent, so it is certain that
its call has not run.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import anyio
import anyio.lowlevel
from mcp_types import JSONRPCRequest

from mcpconn.core.attempt import ATTEMPT, Attempt
from mcpconn.wire.messages import Outgoing
from mcpconn.wire.pipes import GONE, Writer

FLUSH = 0.5
"""Seconds that closing waits for messages which are being written: the SDK's value."""


class _Line:
    """One message."""

    __slots__ = ("attempt", "begun", "data", "done", "scope", "withdrawn", "written")

    def __init__(self, data: bytes, attempt: Attempt | None) -> None:
        self.data = data
        self.attempt = attempt
        self.scope = anyio.CancelScope()
        self.begun = False
        """Whether its first byte has been sent."""
        self.withdrawn = False
        """Whether its sender was cancelled or the session ended before that: it must not be started."""
        self.written = False
        """Whether all of it has been sent."""
        self.done = anyio.Event()

    def withdraw(self) -> None:
        """Withdraw it if no byte of it has been written."""
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
        # Created before the wait and after the queue was found empty, with nothing awaited in between, so no line is
        # missed.
        self._more = anyio.Event()
        self._idle = anyio.Event()
        self.closed = False

    async def send(self, item: Outgoing) -> None:
        """Return when the message has been written.

        Raises:
            BrokenResourceError: it was not, or not completely, because no process reads it.
            ClosedResourceError: the session has ended.
            UnicodeEncodeError: the child's encoding cannot express it. Nothing was written.
        """
        # Checked before the line is queued: a message that is sent after the end was certainly not written.
        if self.closed:
            raise anyio.ClosedResourceError
        attempt = ATTEMPT.get() if isinstance(item.message, JSONRPCRequest) else None
        body = item.body + b"\n"
        line = _Line(body if self._encode is None else self._encode(body), attempt)
        # A sender that is cancelled by now has sent nothing.
        await anyio.lowlevel.checkpoint_if_cancelled()
        # Nothing else is being written, so the order is kept without the task that writes, and its turns of the loop.
        if self._idle.is_set() and not self._lines and self._writer.send_nowait(line):
            return
        # Queued in the order of the callers. A single task waits for the pipe, so messages never mix in it.
        self._lines.append(line)
        self._more.set()
        try:
            await line.done.wait()
        except BaseException:
            # Still queued: it is withdrawn, and the call certainly has not run.
            if line in self._lines:
                self._lines.remove(line)
            else:
                line.withdraw()
            raise
        if not line.written:
            raise anyio.BrokenResourceError

    async def run(self) -> bool:
        """Write queued messages until `close` is called. False: no process reads them any longer."""
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
            # `close` notifies the senders, when it is known how the child ended.
            return self.closed
        finally:
            self._idle.set()

    async def _write(self, line: _Line) -> None:
        self._current = line
        with line.scope:
            await self._writer.send(line)
            # The block also ends if a line's scope was cancelled before its first byte; then it was not written.
            line.written = line.begun
        self._current = None
        line.done.set()

    async def flush(self) -> None:
        """Return when everything has been written, or after half a second."""
        with anyio.move_on_after(FLUSH):
            await self._idle.wait()
        self.close()

    def close(self) -> None:
        """Accept no more messages. Queued ones are not sent, and their senders are notified."""
        self.closed = True
        self._more.set()
        self.recall()
        if self._current is not None:
            # If its first byte has been sent, the rest is lost with the pipe; for its sender the outcome is unknown.
            self._current.withdraw()
            self._current.done.set()

    def recall(self) -> None:
        """Withdraw the messages that wait behind another one. None of them was started, so their calls were not
        sent."""
        while self._lines:
            self._lines.popleft().done.set()

    async def aclose(self) -> None:
        """Does nothing: the transport closes it at its end."""
