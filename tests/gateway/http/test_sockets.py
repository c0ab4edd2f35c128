"""Sockets that are too many, or whose clients are too slow: each is refused or cut, and the others are served."""

from __future__ import annotations

import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.util import find_spec
from typing import Any

import anyio
import anyio.lowlevel
import pytest
import uvicorn
from anyio.abc import SocketStream

from mcpconn.gateway.http import sockets
from mcpconn.gateway.http.draining import Drain
from mcpconn.gateway.http.sockets import SocketLimits
from mcpconn.gateway.serve import Listen, listening_socket

pytestmark = pytest.mark.anyio

NEEDS_UVLOOP = pytest.mark.skipif(find_spec("uvloop") is None, reason="there is no uvloop for Windows")
REQUEST = b"GET /%d HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n"
SAFETY = 30.0


@pytest.fixture(params=[False, pytest.param(True, marks=NEEDS_UVLOOP)], ids=["asyncio", "uvloop"])
def anyio_backend(request):
    """uvicorn serves on asyncio alone, and `mcpconn serve --uvloop` on uvloop's loop of it."""
    return "asyncio", {"use_uvloop": request.param}


async def answering(scope: Any, receive: Any, send: Any) -> None:
    """Answers with as many bytes as the path says."""
    body = b"x" * int(scope["path"].strip("/"))
    length = (b"content-length", str(len(body)).encode())
    await send({"type": "http.response.start", "status": 200, "headers": [length]})
    await send({"type": "http.response.body", "body": body})


class Listener:
    """A server on a real socket, with limits."""

    def __init__(self, port: int, limits: SocketLimits, server: uvicorn.Server) -> None:
        self._port = port
        self.limits = limits
        self.server = server

    async def connect(self) -> SocketStream:
        return await anyio.connect_tcp("127.0.0.1", self._port)

    async def stuck(self, size: int) -> socket.socket:
        """A client that asks for so many bytes and reads none of them."""
        made = socket.socket()
        # A small receive buffer, so that what is not read waits in the server.
        made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        made.connect(("127.0.0.1", self._port))
        made.setblocking(False)
        before = len(self.limits.paused)
        made.send(REQUEST % size)
        while len(self.limits.paused) == before:
            await anyio.lowlevel.checkpoint()
        return made


@asynccontextmanager
async def listening(limits: SocketLimits, **options: Any) -> AsyncIterator[Listener]:
    with anyio.fail_after(SAFETY), listening_socket(Listen("127.0.0.1", 0)) as accepting:
        config = uvicorn.Config(
            answering, http=Drain(idle=0).protocol(limits), log_config=None, lifespan="off", **options
        )
        server = uvicorn.Server(config)
        async with anyio.create_task_group() as group:
            group.start_soon(server._serve, [accepting])
            while not server.started:
                await anyio.lowlevel.checkpoint()
            yield Listener(accepting.getsockname()[1], limits, server)
            for connection in tuple(server.server_state.connections):
                connection.transport.abort()
            while server.server_state.connections or limits.lingering:
                await anyio.lowlevel.checkpoint()
            server.should_exit = True


async def ask(stream: SocketStream, size: int = 2) -> str:
    """A request; returns its answer."""
    await stream.send(REQUEST % size)
    answer = await stream.receive()
    while len(answer.partition(b"\r\n\r\n")[2]) < size:
        answer += await stream.receive()
    return answer.decode()


async def everything(stream: SocketStream) -> str:
    """What a stream brings until its end."""
    answer = b""
    try:
        while True:
            answer += await stream.receive()
    except (anyio.EndOfStream, anyio.BrokenResourceError):
        return answer.decode()


async def test_one_connection_too_many_is_refused():
    async with listening(SocketLimits(connections=3)) as made:
        served = [await made.connect() for _ in range(3)]
        assert all([(await ask(each)).startswith("HTTP/1.1 200") for each in served])
        async with await made.connect() as extra:
            head, _, body = (await everything(extra)).partition("\r\n\r\n")
        assert head.startswith("HTTP/1.1 503 Service Unavailable")
        assert "retry-after: 5" in head
        assert json.loads(body)["error"]["message"] == "Too many connections are open"
        # Those that were there before it are served as before.
        assert all([(await ask(each)).startswith("HTTP/1.1 200") for each in served])
        await served.pop().aclose()
        while len(made.server.server_state.connections) == 3:
            await anyio.lowlevel.checkpoint()
        async with await made.connect() as later:
            assert (await ask(later)).startswith("HTTP/1.1 200")
        assert (made.limits.refused, made.limits.cut) == (1, 0)
        for each in served:
            await each.aclose()


async def test_refused_connections_are_not_kept_without_end(monkeypatch):
    monkeypatch.setattr(sockets, "LINGERING", 2)
    async with listening(SocketLimits(connections=0)) as made:
        answers = []
        extra = [await made.connect() for _ in range(5)]
        for each in extra:
            answers.append(await everything(each))
            await each.aclose()
        assert sum("Too many connections" in answer for answer in answers) == 2
        while made.limits.lingering:
            await anyio.lowlevel.checkpoint()
        assert made.limits.refused == 5


async def test_a_head_that_does_not_come_to_its_end_is_cut():
    async with listening(SocketLimits(head_patience=0.05)) as made, await made.connect() as slow:
        assert (await ask(slow)).startswith("HTTP/1.1 200")
        await slow.send(b"GET /2 HTTP/1.1\r\nhost: 127")
        answer = await everything(slow)
        assert answer.startswith("HTTP/1.1 408 Request Timeout")
        assert "within 0.05 s" in answer
        assert made.limits.cut == 1


async def test_a_head_in_two_parts_is_served():
    async with listening(SocketLimits(head_patience=SAFETY)) as made, await made.connect() as one:
        await one.send(b"GET /2 HTTP/1.1\r\nhost: 127")
        (connection,) = made.server.server_state.connections
        while getattr(connection, "_head_timer", None) is None:
            await anyio.lowlevel.checkpoint()
        await one.send(b".0.0.1\r\n\r\n")
        assert b"200" in await one.receive()
        assert getattr(connection, "_head_timer", None) is None


async def test_a_silent_connection_is_closed():
    async with listening(SocketLimits(), timeout_keep_alive=0.05) as made, await made.connect() as silent:
        assert await everything(silent) == ""


async def test_a_client_that_reads_nothing_is_cut():
    async with listening(SocketLimits(slow_patience=0.05)) as made:
        with await made.stuck(20_000_000):
            other = await made.connect()
            assert (await ask(other)).startswith("HTTP/1.1 200")
            while len(made.server.server_state.connections) > 1:
                await anyio.lowlevel.checkpoint()
            assert made.limits.cut == 1
            assert not made.limits.paused
            assert (await ask(other)).startswith("HTTP/1.1 200")
            await other.aclose()


async def test_a_slow_reader_is_not_cut():
    # It is looked at every 10 ms, and takes something in between: a byte is enough here.
    async with listening(SocketLimits(slow_patience=0.01, slow_bytes=0)) as made:
        with await made.stuck(5_000_000) as slow:
            taken = 0
            while taken < 5_000_000:
                await anyio.wait_readable(slow)
                taken += len(slow.recv(1_000_000))
            assert made.limits.cut == 0
            while made.limits.paused:
                await anyio.lowlevel.checkpoint()


async def test_the_slowest_reader_is_cut_first():
    # The system takes some megabytes of each answer; how many depends on the state of the machine.
    async with listening(SocketLimits(unread=130_000_000)) as made:
        first = await made.stuck(60_000_000)
        (waited,) = made.limits.paused
        second = await made.stuck(60_000_000)
        with first, second, socket.create_connection(("127.0.0.1", made._port)) as third:
            third.setblocking(False)
            # As the others': by itself the system lets it grow to tens of megabytes.
            third.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            third.send(REQUEST % 60_000_000)
            while not made.limits.cut:
                await anyio.lowlevel.checkpoint()
            assert made.limits.cut == 1
            assert waited not in made.limits.paused
            assert len(made.limits.paused) == 2


async def test_no_write_waits_for_the_clients_acknowledgement():
    async with listening(SocketLimits()) as made, await made.connect() as client:
        await ask(client)
        (served,) = made.server.server_state.connections
        accepted = served.transport.get_extra_info("socket")
        assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
