"""A connected socket, plain or with TLS, without read-ahead.

anyio's streams read from the kernel into a queue in the background, and its TLS streams into a second one, so they
cannot tell whether anything has arrived. Here every read and write is a non-blocking system call, made on request.
Waiting is separate and uses anyio, so it works on asyncio, uvloop and trio.
"""

from __future__ import annotations

import socket
import ssl
import struct
import sys
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Protocol

import anyio

READ_SIZE = 64 * 1024
"""Bytes per read, as in httpcore2."""
RECORD_SIZE = 16 * 1024
"""Bytes encrypted at a time: the longest TLS record (RFC 8446, 5.1)."""


def _queue_meter() -> Callable[[socket.socket], int] | None:
    """Counts the bytes of a TCP socket that the other side's system has not acknowledged. None if it cannot be asked.

    Linux tells (tcp(7), SIOCOUTQ).
    """
    if sys.platform != "linux":
        return None
    import fcntl
    import termios

    def unacknowledged(sock: socket.socket) -> int:
        # SIOCOUTQ (tcp(7)): bytes in the send queue that the peer has not acknowledged.
        count: int = struct.unpack("i", fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, bytes(4)))[0]
        return count

    return unacknowledged


_unacknowledged = _queue_meter()


class Channel(Protocol):
    """What the engine needs from a connection: non-blocking reads and writes, and separate waits."""

    @property
    def sent(self) -> int:
        """Bytes sent by this process, including encryption."""

    def acknowledged_since(self, mark: int) -> bool | None:
        """Whether any byte after the first `mark` bytes has reached the peer. None if unknown."""

    def receive_nowait(self, limit: int = READ_SIZE) -> bytes | None:
        """Received data: at most `limit` bytes, b"" at the end of the stream, None if there is nothing yet.

        Raises:
            OSError: The connection is broken. Earlier data can still be received.
        """

    def send_nowait(self, data: memoryview) -> int:
        """Send the beginning of `data`; returns how many bytes were accepted.

        Raises:
            OSError: The connection is broken.
        """

    def flush_nowait(self) -> bool:
        """Send data that `send_nowait` accepted. True if nothing is left.

        Raises:
            OSError: The connection is broken.
        """

    async def readable(self) -> None:
        """Return when data has arrived. Raises anyio.ClosedResourceError if the channel is closed in the meantime."""

    async def writable(self) -> None:
        """Return when data can be sent. Raises anyio.ClosedResourceError if the channel is closed in the meantime."""

    def close(self) -> None:
        """Close it at once; accepted data that was not sent is lost."""


class PlainChannel:
    """A TCP socket."""

    def __init__(self, sock: socket.socket) -> None:
        """
        Args:
            sock: Connected and non-blocking.
        """
        self._socket = sock
        self._sent = 0

    @property
    def sent(self) -> int:
        return self._sent

    def acknowledged_since(self, mark: int) -> bool | None:
        if _unacknowledged is None:
            return None
        try:
            return self._sent - _unacknowledged(self._socket) > mark
        except OSError:
            return None

    def receive_nowait(self, limit: int = READ_SIZE) -> bytes | None:
        try:
            return self._socket.recv(limit)
        except (BlockingIOError, InterruptedError):
            return None

    def send_nowait(self, data: memoryview) -> int:
        try:
            count = self._socket.send(data)
        except (BlockingIOError, InterruptedError):
            return 0
        self._sent += count
        return count

    def flush_nowait(self) -> bool:
        return True

    async def readable(self) -> None:
        await anyio.wait_readable(self._socket)

    async def writable(self) -> None:
        await anyio.wait_writable(self._socket)

    def close(self) -> None:
        if self._socket.fileno() >= 0:
            # Tasks that wait on it are woken, because the descriptor number may be reused for another file.
            anyio.notify_closing(self._socket)
            self._socket.close()


class SecureChannel:
    """TLS on a channel. `handshake` comes before anything else."""

    def __init__(self, inner: Channel, context: ssl.SSLContext, hostname: str | None) -> None:
        """
        Args:
            inner: Carries the encrypted bytes.
            context: Trust, versions, ciphers.
            hostname: The name or address that the certificate must be for; None if the context does not check it.
        """
        self._inner = inner
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self.tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname=hostname)
        """The TLS object."""
        self._unsent = memoryview(b"")
        """Encrypted bytes that `inner` has not accepted yet."""

    @property
    def sent(self) -> int:
        return self._inner.sent

    def acknowledged_since(self, mark: int) -> bool | None:
        return self._inner.acknowledged_since(mark)

    async def handshake(self) -> None:
        """Negotiate keys, and verify the certificate.

        Raises:
            OSError: It failed; `ssl.SSLError` is a subclass.
        """
        while True:
            try:
                self.tls.do_handshake()
            except ssl.SSLWantReadError:
                await self._flush()
                while not self._fetch():
                    await self._inner.readable()
            except ssl.SSLError:
                # Send the server an alert with the reason, if it can be sent at once.
                self.flush_nowait()
                raise
            else:
                await self._flush()
                return

    async def _flush(self) -> None:
        while not self.flush_nowait():
            await self._inner.writable()

    def _fetch(self) -> bool:
        """Move received data into the TLS object. False if there is none."""
        data = self._inner.receive_nowait()
        if data is None:
            return False
        if data:
            self._incoming.write(data)
        else:
            self._incoming.write_eof()
        return True

    def receive_nowait(self, limit: int = READ_SIZE) -> bytes | None:
        while True:
            try:
                return self.tls.read(limit)
            except ssl.SSLWantReadError:
                # An incomplete record, or one without application data: session tickets, a new key.
                if not self._fetch():
                    self.flush_nowait()
                    return None
            except ssl.SSLError as error:
                # Servers close without TLS's close_notify; h11 detects whether a message was complete.
                if isinstance(error, (ssl.SSLEOFError, ssl.SSLZeroReturnError)) or _is_eof(error):
                    return b""
                raise

    def send_nowait(self, data: memoryview) -> int:
        taken = 0
        while taken < len(data) and self.flush_nowait():
            # One record at a time, and only after the last one was sent, because accepted data that was not sent could
            # not be revoked.
            taken += self.tls.write(data[taken : taken + RECORD_SIZE])
        return taken

    def flush_nowait(self) -> bool:
        while True:
            if not self._unsent:
                if not self._outgoing.pending:
                    return True
                # Read completely, so that no part is read but not sent.
                self._unsent = memoryview(self._outgoing.read())
            sent = self._inner.send_nowait(self._unsent)
            if not sent:
                return False
            self._unsent = self._unsent[sent:]

    async def readable(self) -> None:
        await self._inner.readable()

    async def writable(self) -> None:
        await self._inner.writable()

    def close(self) -> None:
        self._inner.close()


async def either(channel: Channel) -> None:
    """Return when something has arrived, or something can be handed over, or the channel is closed."""
    async with anyio.create_task_group() as group:

        async def wait(what: Callable[[], Awaitable[None]]) -> None:
            with suppress(anyio.ClosedResourceError):
                await what()
            group.cancel_scope.cancel()

        group.start_soon(wait, channel.readable)
        group.start_soon(wait, channel.writable)


def is_clean(channel: Channel) -> bool:
    """Whether nothing has arrived: neither bytes nor the end. Checking discards arrived data."""
    try:
        return channel.receive_nowait() is None
    except OSError:
        return False


def _is_eof(error: ssl.SSLError) -> bool:
    """OpenSSL 3 reports the end of a socket without a close_notify in this way."""
    return "UNEXPECTED_EOF_WHILE_READING" in (error.strerror or "")
