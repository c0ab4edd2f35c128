"""Small writes of one turn of the event loop, joined: an answer's head, its body and its end go out in one `send`.

uvicorn hands each of them to the socket by itself. Each is a system call, and may wake the client once more.
"""

from __future__ import annotations

import asyncio
from typing import Any

FULL = 16 * 1024
"""Bytes that are not joined any further. A write of that size is worth its `send`, and joining it copies it."""


class JoinedWrites(asyncio.Transport):
    """A transport that keeps what is written until the end of the present turn of the loop.

    Flow control stays with the real transport: it pauses its protocol once the bytes are handed on.
    """

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        """
        Args:
            transport: What writes to the socket.
            loop: The loop that it belongs to.
        """
        super().__init__()
        self._transport = transport
        self._loop = loop
        self._kept: list[bytes | bytearray | memoryview] = []
        self._size = 0

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if not data:
            return
        if not self._kept:
            # A callback runs after those that are already due, and so after everything that the writer still writes.
            self._loop.call_soon(self._flush)
        self._kept.append(data)
        self._size += len(data)
        # A writer that never waits would otherwise have all its output kept here, out of reach of flow control.
        if self._size >= FULL:
            self._flush()

    def _flush(self) -> None:
        if not self._kept:
            return
        kept, self._kept, self._size = self._kept, [], 0
        if not self._transport.is_closing():
            self._transport.write(kept[0] if len(kept) == 1 else b"".join(kept))

    def close(self) -> None:
        self._flush()
        self._transport.close()

    def write_eof(self) -> None:
        self._flush()
        self._transport.write_eof()

    def abort(self) -> None:
        self._kept.clear()
        self._size = 0
        self._transport.abort()

    def get_write_buffer_size(self) -> int:
        return self._size + self._transport.get_write_buffer_size()

    # -- as it is

    def can_write_eof(self) -> bool:
        return self._transport.can_write_eof()

    def is_closing(self) -> bool:
        return self._transport.is_closing()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self._transport.get_extra_info(name, default)
