"""mcpconn's channels as httpcore2 sockets, so that both engines use the same ones.

httpcore2's own streams read ahead (anyio's queue, TLS), and on asyncio a failed write discards received data: the
refusal of a large request by a server that then closes would be lost.
"""

from __future__ import annotations

import re
import ssl
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import anyio
import anyio.lowlevel
import httpcore2

from mcpconn.wire.engine.channel import Channel, PlainChannel, SecureChannel, either, is_clean
from mcpconn.wire.engine.connect import open_socket
from mcpconn.wire.reasons import connect_reason, place

Option = Any
_REFUSAL = re.compile(rb"HTTP/1\.[01] [345]\d\d")
AHEAD = 64 * 1024
"""Bytes of a response that are read while its request is still being written."""


class Unreachable(httpcore2.ConnectError):
    """No connection could be made. httpcore2's pool drops causes, so the reason is stored in an attribute."""

    def __init__(self, text: str, reason: Exception | None) -> None:
        super().__init__(text)
        self.reason = reason


class Backend(httpcore2.AsyncNetworkBackend):
    """Opens TCP connections."""

    def __init__(self, *, tunnels: bool = False) -> None:
        """
        Args:
            tunnels: TLS goes through a proxy, to a server other than the one connected to.
        """
        self._tunnels = tunnels

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Option] | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        with _not_connected(host, port), anyio.fail_after(timeout):
            channel = PlainChannel(await open_socket(host, port, tuple(socket_options or ())))
            return Stream(channel, (host, None if self._tunnels else port))

    async def sleep(self, seconds: float) -> None:
        await anyio.sleep(seconds)


class Stream(httpcore2.AsyncNetworkStream):
    """One connection."""

    def __init__(self, channel: Channel, peer: tuple[str, int | None]) -> None:
        """
        Args:
            channel: An open channel.
            peer: Host and port of the TLS server; no port if it is behind a proxy.
        """
        self._channel = channel
        self._peer = peer
        self._ahead = b""
        """Data that was read while a request was being written."""

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        # Data that arrived during the write comes first, in order.
        if self._ahead:
            data, self._ahead = self._ahead[:max_bytes], self._ahead[max_bytes:]
            return data
        with _raised_as(httpcore2.ReadError, httpcore2.ReadTimeout):
            while (found := self._channel.receive_nowait(max_bytes)) is None:
                await _wait(self._channel.readable, timeout)
        await anyio.lowlevel.checkpoint()
        return found

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """Write all data. If this raises `WriteError`, httpcore2 continues to read the response.

        Raises:
            httpcore2.WriteError: The server has already refused the request, or no longer reads.
        """
        rest = memoryview(buffer)
        with _raised_as(httpcore2.WriteError, httpcore2.WriteTimeout):
            # Cancelled before the first byte, the call is certain not to have run.
            await anyio.lowlevel.checkpoint_if_cancelled()
            while True:
                rest = rest[self._channel.send_nowait(rest) :]
                if self._channel.flush_nowait() and not rest:
                    return
                # Checked between the parts of a large request, because its refusal would be lost in the reset that
                # follows.
                if self._refused():
                    raise httpcore2.WriteError("the server has refused the request before it has read it")
                # Bounded, because a server that sends during the write must not fill the memory.
                full = len(self._ahead) >= AHEAD
                await _wait(self._channel.writable if full else self._something, timeout)

    def _refused(self) -> bool:
        if len(self._ahead) < AHEAD:
            arrived = self._channel.receive_nowait()
            if arrived == b"":
                return True
            self._ahead += arrived or b""
        return _REFUSAL.match(self._ahead) is not None

    async def _something(self) -> None:
        await either(self._channel)

    async def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore2.AsyncNetworkStream:
        try:
            with _not_connected(server_hostname or self._peer[0], self._peer[1]), anyio.fail_after(timeout):
                secure = SecureChannel(self._channel, ssl_context, server_hostname)
                await secure.handshake()
        except BaseException:
            self._channel.close()
            raise
        return Stream(secure, self._peer)

    def get_extra_info(self, info: str) -> Any:
        if info == "is_readable":
            # Called only for idle connections; a readable one is closed.
            return bool(self._ahead) or not is_clean(self._channel)
        if info == "ssl_object":
            return self._channel.tls if isinstance(self._channel, SecureChannel) else None
        return None

    async def aclose(self) -> None:
        self._channel.close()


async def _wait(what: Callable[[], Awaitable[None]], timeout: float | None) -> None:
    if timeout is None:
        await what()
        return
    with anyio.fail_after(timeout):
        await what()


@contextmanager
def _not_connected(host: str, port: int | None) -> Iterator[None]:
    """Raise the exception that httpcore2 expects if no connection could be made, with the reason and the address."""
    try:
        yield
    except TimeoutError:
        raise httpcore2.ConnectTimeout(f"{place(host, port)}: no connection in time") from None
    except (OSError, anyio.ClosedResourceError) as error:
        raise Unreachable(*connect_reason(error, host, port)) from None


@contextmanager
def _raised_as(error: type[Exception], late: type[Exception]) -> Iterator[None]:
    """Raise the exception that httpcore2 expects, without a cause, because the end of a socket must not look like the
    end of a session."""
    try:
        yield
    except TimeoutError as caught:
        raise late(str(caught)) from None
    except (OSError, anyio.ClosedResourceError) as caught:
        raise error(str(caught) or type(caught).__name__) from None
