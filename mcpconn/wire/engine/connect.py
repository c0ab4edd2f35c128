"""From an origin to an open channel: names, addresses, TCP, TLS."""

from __future__ import annotations

import os
import socket
import ssl
from collections.abc import Callable, Iterator
from itertools import chain, zip_longest
from typing import Any

import anyio
import anyio.lowlevel
import httpx2

from mcpconn.wire.engine.channel import Channel, PlainChannel, SecureChannel

Origin = tuple[str, str, int]
"""Scheme, host (as it goes into a certificate: ASCII, an IPv6 address without brackets) and port."""

STAGGER = 0.25
"""Seconds until the next address is tried concurrently (RFC 8305, 5: 250 ms)."""


def origin_of(url: httpx2.URL) -> Origin:
    """The origin of a URL."""
    return url.scheme, url.raw_host.decode("ascii"), url.port or (443 if url.scheme == "https" else 80)


class Connector:
    """Opens channels."""

    def __init__(self, tls: Callable[[], ssl.SSLContext], options: tuple[tuple[int, int, int], ...] = ()) -> None:
        """
        Args:
            tls: Returns the TLS context; called at the first https connect.
            options: Level, name and value of socket options.
        """
        self._tls = tls
        self._options = options

    async def __call__(self, origin: Origin, sni: str | None) -> Channel:
        """Connect.

        Args:
            origin: The destination.
            sni: The name that the certificate must be for; the host by default.

        Raises:
            OSError: The server is unreachable, or the TLS handshake failed.
        """
        scheme, host, port = origin
        channel = PlainChannel(await open_socket(host, port, self._options))
        if scheme == "http":
            return channel
        try:
            secure = SecureChannel(channel, self._tls(), sni or host)
            await secure.handshake()
        except BaseException:
            channel.close()
            raise
        return secure


async def open_socket(host: str, port: int, options: tuple[tuple[int, int, int], ...] = ()) -> socket.socket:
    """A connected, non-blocking TCP socket: the first of the host's addresses that answers.

    Raises:
        OSError: None does.
    """
    addresses = await _resolve(host, port)
    # The usual case, which needs no task group.
    if len(addresses) == 1:
        return await _open(addresses[0], options)
    return await _race(addresses, options)


async def _resolve(host: str, port: int) -> list[tuple[Any, ...]]:
    """The host's addresses, in the order in which they are to be tried."""
    try:
        # A numeric address needs no lookup, and so no thread.
        found: Any = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
    except socket.gaierror:
        found = await anyio.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    # Alternating IPv6 and IPv4, starting with the resolver's preferred family (RFC 8305, 4).
    first = [each for each in found if each[0] == found[0][0]]
    other = [each for each in found if each[0] != found[0][0]]
    return [each for each in chain.from_iterable(zip_longest(first, other)) if each is not None]


async def _open(address: tuple[Any, ...], options: tuple[tuple[int, int, int], ...]) -> socket.socket:
    family, kind, protocol, _, where = address
    sock = socket.socket(family, kind, protocol)
    try:
        sock.setblocking(False)
        # A request is sent in one piece, so waiting for more data (Nagle) would only delay it.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for option in options:
            sock.setsockopt(*option)
        try:
            # Non-blocking: it starts here, and the socket becomes writable when it has completed or failed.
            sock.connect(where)
        except BlockingIOError:
            await anyio.wait_writable(sock)
            if error := sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                raise OSError(error, os.strerror(error)) from None
        else:
            # Loopback may connect at once. Without a checkpoint a cancelled dial would continue.
            await anyio.lowlevel.checkpoint()
    except BaseException:
        sock.close()
        raise
    return sock


async def _race(addresses: list[tuple[Any, ...]], options: tuple[tuple[int, int, int], ...]) -> socket.socket:
    """Try the addresses in order, each shortly after the previous one or as soon as that has failed."""
    winners: list[socket.socket] = []
    errors: list[OSError] = []

    async def attempt(address: tuple[Any, ...], over: anyio.Event) -> None:
        try:
            sock = await _open(address, options)
        except OSError as error:
            errors.append(error)
            over.set()
        else:
            winners.append(sock)
            # The first one wins. The others are closed by their own `except`.
            group.cancel_scope.cancel()

    try:
        async with anyio.create_task_group() as group:
            for address in addresses:
                over = anyio.Event()
                group.start_soon(attempt, address, over)
                with anyio.move_on_after(STAGGER):
                    await over.wait()
    except BaseException:
        _close(iter(winners))
        raise
    if not winners:
        # All failed in the same way: one error is clearer than a list of equal ones.
        if len({error.errno for error in errors}) == 1:
            raise errors[0]
        raise OSError("; ".join(dict.fromkeys(error.strerror or str(error) for error in errors)))
    # Two can succeed in the same iteration of the loop.
    _close(iter(winners[1:]))
    return winners[0]


def _close(sockets: Iterator[socket.socket]) -> None:
    for sock in sockets:
        sock.close()
