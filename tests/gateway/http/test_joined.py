"""Writes of one turn of the loop go out together, in order, and nothing is lost at the end of a connection."""

from __future__ import annotations

import asyncio
from typing import Any

import anyio.lowlevel
import pytest

from mcpconn.gateway.http.joined import FULL, JoinedWrites

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend():
    """It is a transport of asyncio."""
    return "asyncio"


class Socket(asyncio.Transport):
    """Notes what is done to it."""

    def __init__(self) -> None:
        super().__init__()
        self.done: list[Any] = []
        self.closing = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.done.append(bytes(data))

    def close(self) -> None:
        self.closing = True
        self.done.append("close")

    def abort(self) -> None:
        self.closing = True
        self.done.append("abort")

    def write_eof(self) -> None:
        self.done.append("eof")

    def is_closing(self) -> bool:
        return self.closing

    def get_write_buffer_size(self) -> int:
        return 100


@pytest.fixture
async def socket():
    return Socket()


@pytest.fixture
async def joined(socket):
    return JoinedWrites(socket, asyncio.get_running_loop())


async def test_writes_of_one_turn_are_one_write(socket, joined):
    for part in (b"head ", b"", b"body ", b"end"):
        joined.write(part)
    assert socket.done == []
    assert joined.get_write_buffer_size() == 113
    await anyio.lowlevel.checkpoint()
    assert socket.done == [b"head body end"]
    assert joined.get_write_buffer_size() == 100


async def test_a_later_turn_writes_by_itself(socket, joined):
    joined.write(b"one")
    await anyio.lowlevel.checkpoint()
    joined.write(b"two")
    await anyio.lowlevel.checkpoint()
    assert socket.done == [b"one", b"two"]


async def test_large_writes_wait_for_flow_control(socket, joined):
    joined.write(b"x")
    joined.write(b"y" * FULL)
    assert socket.done == [b"x" + b"y" * FULL]
    await anyio.lowlevel.checkpoint()
    assert len(socket.done) == 1


@pytest.mark.parametrize(("end", "noted"), [("close", "close"), ("write_eof", "eof")])
async def test_an_orderly_end_comes_after_what_was_written(socket, joined, end, noted):
    joined.write(b"last words")
    getattr(joined, end)()
    await anyio.lowlevel.checkpoint()
    assert socket.done == [b"last words", noted]


async def test_an_abort_drops_what_was_written(socket, joined):
    joined.write(b"never read")
    joined.abort()
    await anyio.lowlevel.checkpoint()
    assert socket.done == ["abort"]


async def test_nothing_is_written_to_a_connection_that_was_lost(socket, joined):
    joined.write(b"too late")
    socket.closing = True
    await anyio.lowlevel.checkpoint()
    assert socket.done == []
