"""From a name to a socket: addresses are tried one after another, and beside each other."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import Any

import anyio
import httpx2
import pytest

from mcpconn.wire.engine import connect
from mcpconn.wire.engine.connect import open_socket, origin_of
from tests.support import SAFETY
from tests.wire.sockets import free_port

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(
    ("url", "origin"),
    [
        ("http://Host.example/mcp", ("http", "host.example", 80)),
        ("https://host.example", ("https", "host.example", 443)),
        ("https://host.example:8443/x", ("https", "host.example", 8443)),
        ("http://[::1]:8000/", ("http", "::1", 8000)),
        ("https://b\u00fccher.example/", ("https", "xn--bcher-kva.example", 443)),
    ],
)
def test_an_origin_is_scheme_host_and_port(url: str, origin: tuple[str, str, int]) -> None:
    assert origin_of(httpx2.URL(url)) == origin


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    """A server that the system accepts connections for."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        yield server


@pytest.fixture
def deaf() -> Iterator[tuple[str, int]]:
    """An address on which a connect gets no answer: the queue of its listener is full."""
    waiting = [socket.socket() for _ in range(4)]
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        for each in waiting:
            each.setblocking(False)
            each.connect_ex(full.getsockname())
        yield full.getsockname()
    for each in waiting:
        each.close()


def resolving(monkeypatch: pytest.MonkeyPatch, *addresses: tuple[str, int]) -> None:
    """The name `somewhere` has these addresses."""

    async def resolve(host: str, port: int, **_: Any) -> list[Any]:
        assert host == "somewhere"
        return [(socket.AF_INET, socket.SOCK_STREAM, 0, "", address) for address in addresses]

    monkeypatch.setattr(anyio, "getaddrinfo", resolve)


async def connected_to(host: str, port: int) -> Any:
    with anyio.fail_after(SAFETY):
        with await open_socket(host, port) as sock:
            assert sock.getblocking() is False
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            return sock.getpeername()


async def test_an_ip_address_needs_no_look_up(listener: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    resolving(monkeypatch)
    assert await connected_to(*listener.getsockname()) == listener.getsockname()


async def test_a_refusing_address_is_passed_over(listener: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    resolving(monkeypatch, ("127.0.0.1", await free_port()), listener.getsockname())
    assert await connected_to("somewhere", 1) == listener.getsockname()


async def test_the_next_address_is_tried_beside_one_that_is_silent(
    listener: socket.socket, deaf: tuple[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connect, "STAGGER", 0.01)
    resolving(monkeypatch, deaf, listener.getsockname())
    assert await connected_to("somewhere", 1) == listener.getsockname()


async def test_an_error_names_every_reason_once(monkeypatch: pytest.MonkeyPatch) -> None:
    ports = [("127.0.0.1", await free_port()), ("127.0.0.1", await free_port())]
    resolving(monkeypatch, *ports)
    with pytest.raises(OSError, match=r"^\[Errno \d+\] [^;]*$"):
        await open_socket("somewhere", 1)


async def test_cancelled_connects_leave_no_socket(deaf: tuple[str, int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connect, "STAGGER", 0.001)
    resolving(monkeypatch, deaf, deaf)
    # A socket that is left open is a ResourceWarning, and so a failure.
    with anyio.move_on_after(0.02) as scope:
        await open_socket("somewhere", 1)
    assert scope.cancelled_caught
