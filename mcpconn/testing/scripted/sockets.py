"""Functions for plain sockets, because sending a TCP reset needs the socket itself instead of a stream."""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Awaitable, Callable
from typing import TypeVar

import anyio

# On close, discard unsent data and send a reset instead of an orderly end of the connection.
_LINGER_NONE = struct.pack("ii", 1, 0)
_PATIENCE = 5.0
_T = TypeVar("_T")


def arm_reset(peer: socket.socket) -> None:
    """Have `peer` send a reset when it is closed."""
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_NONE)


async def ready(sock: socket.socket, wait: Callable[[socket.socket], Awaitable[None]], attempt: Callable[[], _T]) -> _T:
    """Retry a socket operation until the socket is ready for it."""
    while True:
        try:
            return attempt()
        except (BlockingIOError, InterruptedError):
            await wait(sock)


async def listen(port: int) -> socket.socket:
    """A listening socket on the loopback interface; the port may take a moment to become free again."""
    deadline = anyio.current_time() + _PATIENCE
    while True:
        listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        try:
            listener.setblocking(False)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(("127.0.0.1", port))
            listener.listen(128)
        except OSError as exc:
            listener.close()
            if exc.errno != errno.EADDRINUSE or anyio.current_time() >= deadline:
                raise
            await anyio.sleep(0.02)
        else:
            return listener
