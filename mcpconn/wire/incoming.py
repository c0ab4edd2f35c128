"""The messages of a child's stdout, read in the task that handles them.

A task of its own that reads and passes on would cost each answer a turn of the loop. Messages that the session has not
taken stay in the pipe, which slows the child down.
"""

from __future__ import annotations

from collections import deque

import anyio
from anyio.lowlevel import checkpoint
from mcp.shared.message import SessionMessage

from mcpconn.wire import messages
from mcpconn.wire.child import Child
from mcpconn.wire.messages import Limits
from mcpconn.wire.pipes import Lines, Reader
from mcpconn.wire.waiting import Item


class Incoming:
    """The read stream of a stdio session. One task may read, and is not interrupted with a message in its hands."""

    def __init__(self, child: Child, output: Reader, limits: Limits) -> None:
        """
        Args:
            child: Told that it has written.
            output: Its stdout, in UTF-8.
            limits: Of one line.
        """
        self._child = child
        self._lines = Lines(output, limits.size)
        self._limits = limits
        self._items: deque[Item] = deque()
        self._line: bytes | None = None
        """A line that is being parsed. Kept until it is, because a read may be cancelled and repeated."""
        self._reading: anyio.CancelScope | None = None
        """Of the wait for a line."""
        self._closed = anyio.Event()
        self.left = anyio.Event()
        """Set when nothing reads any more, because stdout has ended or `close` was called."""

    def put(self, item: Item) -> None:
        """Pass `item` to the session before what is read next."""
        self._items.append(item)
        self._interrupt()

    def close(self) -> None:
        """Let the session read no more."""
        self._closed.set()
        self._interrupt()
        if self._reading is None:
            self.left.set()

    def _interrupt(self) -> None:
        if self._reading is not None:
            self._reading.cancel()

    def __aiter__(self) -> Incoming:
        return self

    async def __anext__(self) -> Item:
        if self._items:
            # As in `Lines`.
            await checkpoint()
        while not self._closed.is_set():
            if self._items:
                return self._items.popleft()
            if self._line is None:
                await self._read()
            if self._line is not None:
                self._items.extend(await parse(self._line, self._limits))
                self._line = None
        raise StopAsyncIteration

    async def _read(self) -> None:
        """Take a line, or what stands for one; return without one once something is put or this is closed."""
        try:
            with anyio.CancelScope() as self._reading:
                line = await anext(self._lines)
                # Any output counts, even a banner, because a child that writes has started.
                self._child.spoke.set()
                if isinstance(line, bytes):
                    self._line = line
                else:
                    self._items.append(line)
        except StopAsyncIteration:
            self.left.set()
            # Until it is known why it ended.
            await self._closed.wait()
        finally:
            self._reading = None
            if self._closed.is_set():
                self.left.set()


async def parse(line: bytes, limits: Limits) -> list[Item]:
    """The messages of one line, or the error that it is none: servers print banners on stdout, too."""
    found = await messages.parse_batch(line, limits)
    return [each if isinstance(each, Exception) else SessionMessage(each) for each in found]
