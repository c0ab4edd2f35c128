"""Slow links and failing dials between `mcpconn.Connection` and the gateway: all calls are answered and run once."""

from __future__ import annotations

import socket
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import anyio
import anyio.abc
import pytest

from mcpconn import Connection, ConnectionFailed, Policy
from mcpconn.core.backoff import Backoff
from mcpconn.testing import Script
from mcpconn.testing.scripted.sockets import arm_reset
from tests.gateway.conftest import gateway
from tests.support import text_of

pytestmark = pytest.mark.anyio

QUICK = Policy(backoff=Backoff(initial=0.05, maximum=0.2))
TLS = "a TLS alert"
TIMES = 2
"""Dials that fail in the same way."""
PAGE = b"HTTP/1.1 %s\r\ncontent-type: text/html\r\nconnection: close\r\ncontent-length: 15\r\n\r\n<html>no</html>"

FAULTS: dict[str, bytes | None] = {
    "reset at once": None,
    "closed without an answer": b"",
    "502 of a proxy": PAGE % b"502 Bad Gateway",
    "503 of a proxy": PAGE % b"503 Service Unavailable",
    TLS: b"\x15\x03\x03\x00\x02\x02\x28",
    "another protocol": b"SSH-2.0-OpenSSH_9.2p1\r\n",
    "half a head": b"HTTP/1.1 200 OK\r\ncontent-ty",
}


class Door:
    """What stands before the gateway: the next connections fail, those after them are passed on."""

    def __init__(self, port: int) -> None:
        self._target = port
        self.faults: deque[bytes | None] = deque()
        self._open: set[anyio.abc.SocketStream] = set()
        self.port = 0
        self.piece = 65536
        """Bytes that are passed on at once."""
        self.pause = 0.0
        """Seconds after each piece."""
        self.cut: tuple[str, int] | None = None
        """A direction, `up` to the gateway or `down` from it, and after how many more bytes all connections are cut."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/mcp"

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Door]:
        async with anyio.create_task_group() as group:
            self._group = group
            await self._listen()
            yield self
            await self._close()
            group.cancel_scope.cancel()

    async def _close(self) -> None:
        self._accepting.cancel()
        await self._stopped.wait()
        await self._listener.aclose()

    async def _listen(self) -> None:
        self._listener = await anyio.create_tcp_listener(local_host="127.0.0.1", local_port=self.port)
        self.port = self._listener.extra(anyio.abc.SocketAttribute.local_port)
        self._accepting, self._stopped = anyio.CancelScope(), anyio.Event()
        self._group.start_soon(self._accept, self._listener, self._accepting)

    async def _accept(self, listener: Any, scope: anyio.CancelScope) -> None:
        with scope:
            await listener.serve(self._serve, self._group)
        self._stopped.set()

    async def refuse_while(self, condition: Callable[[], bool]) -> None:
        """Reset every connection, and listen no more: dials are refused until the condition is over."""
        await self._close()
        self.break_all()
        while condition():  # noqa: ASYNC110 - a refused dial is not seen here
            await anyio.sleep(0.01)
        await self._listen()

    def break_all(self) -> None:
        """Reset every connection there is."""
        for stream in tuple(self._open):
            arm_reset(stream.extra(anyio.abc.SocketAttribute.raw_socket))
            stream.extra(anyio.abc.SocketAttribute.raw_socket).shutdown(socket.SHUT_RDWR)

    async def _serve(self, stream: anyio.abc.SocketStream) -> None:
        with suppress(anyio.BrokenResourceError, anyio.ClosedResourceError, anyio.EndOfStream):
            await self._handle(stream)

    async def _handle(self, stream: anyio.abc.SocketStream) -> None:
        async with stream:
            if self.faults:
                said = self.faults.popleft()
                if said is None:
                    arm_reset(stream.extra(anyio.abc.SocketAttribute.raw_socket))
                    return
                with anyio.move_on_after(1):
                    await stream.receive()
                await stream.send(said)
                return
            self._open.add(stream)
            try:
                inner = await anyio.connect_tcp("127.0.0.1", self._target)
                async with inner, anyio.create_task_group() as group:
                    group.start_soon(self._pump, "up", stream, inner, group.cancel_scope)
                    group.start_soon(self._pump, "down", inner, stream, group.cancel_scope)
            finally:
                self._open.discard(stream)

    async def _pump(
        self, way: str, source: anyio.abc.SocketStream, target: anyio.abc.SocketStream, both: anyio.CancelScope
    ) -> None:
        target.extra(anyio.abc.SocketAttribute.raw_socket).setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            async for data in source:
                for begin in range(0, len(data), self.piece):
                    piece = data[begin : begin + self.piece]
                    if self.cut is not None and self.cut[0] == way:
                        left = self.cut[1]
                        await target.send(piece[:left])
                        self.cut = way, left - len(piece)
                        if left <= len(piece):
                            self.cut = None
                            self.break_all()
                            break
                        continue
                    await target.send(piece)
                    await anyio.sleep(self.pause)
        except (anyio.BrokenResourceError, anyio.ClosedResourceError):
            pass
        both.cancel()


@asynccontextmanager
async def behind_a_door(script: Script) -> AsyncIterator[Door]:
    async with gateway(script) as made:
        await made.app.manager["a"].catalog.refresh()
        async with Door(int(made.url.split(":")[2].partition("/")[0])).open() as door:
            yield door


LINKS = pytest.mark.parametrize(
    ("engine", "mode"), [("direct", "legacy"), ("httpx", "auto")], ids=["direct, legacy", "httpx, modern"]
)


@LINKS
async def test_dials_that_fail_first_cost_no_call(engine: str, mode: str) -> None:
    script = Script()
    async with behind_a_door(script) as door:
        door.faults.extend(fault for name, fault in FAULTS.items() if name != TLS)
        entry: dict[str, Any] = {"url": door.url, "engine": engine, "mode": mode, "lazy": True}
        async with Connection(entry, policy=QUICK) as connection:
            assert text_of(await connection.call_tool("a__charge", {"amount": 1})) == "charged 1"
        assert not door.faults
    assert script.executions["charge"] == 1


@pytest.mark.parametrize("engine", ["direct", "httpx"])
async def test_a_tls_port_is_a_wrong_url(engine: str) -> None:
    """At the first dial. On a link that has worked before, it is a fault like the others."""
    script = Script()
    async with behind_a_door(script) as door:
        door.faults.append(FAULTS[TLS])
        entry: dict[str, Any] = {"url": door.url, "engine": engine, "mode": "legacy", "lazy": True}
        async with Connection(entry, policy=QUICK) as connection:
            with pytest.raises(ConnectionFailed, match="https://"):
                await connection.call_tool("a__charge", {"amount": 1})
            await connection.reconnect()
            assert text_of(await connection.call_tool("a__charge", {"amount": 1})) == "charged 1"
    assert script.executions["charge"] == 1


@LINKS
@pytest.mark.parametrize("fault", FAULTS)
async def test_failed_dials_after_a_cut_are_free(fault: str, engine: str, mode: str) -> None:
    """The link is cut while the tool runs, and the next dials fail: the answer comes, of the run that there was."""
    script = Script()
    async with behind_a_door(script) as door:
        entry: dict[str, Any] = {"url": door.url, "engine": engine, "mode": mode}
        async with Connection(entry, policy=QUICK) as connection:
            await connection.list_tools()

            def cut(_: Any) -> None:
                door.faults.extend([FAULTS[fault]] * TIMES)
                door.break_all()

            script.on_execute = cut
            result = await connection.call_tool("a__slow_charge", {"seconds": 0.1})
            assert not result.is_error, result
    assert script.executions["slow_charge"] == 1


@LINKS
async def test_refused_dials_after_a_cut_are_free(engine: str, mode: str) -> None:
    """The gateway is away while the tool runs, and comes back: the answer is that of the run that there was."""
    script, ran = Script(), anyio.Event()
    async with behind_a_door(script) as door:
        entry: dict[str, Any] = {"url": door.url, "engine": engine, "mode": mode}
        async with Connection(entry, policy=QUICK) as connection:
            await connection.list_tools()

            def unheard() -> bool:
                return "refused" not in str(connection.last_failure)

            async def cut() -> None:
                await ran.wait()
                await door.refuse_while(unheard)

            script.on_execute = lambda _: ran.set()
            async with anyio.create_task_group() as group:
                group.start_soon(cut)
                result = await connection.call_tool("a__slow_charge", {"seconds": 0.1})
            assert not result.is_error, result
    assert script.executions["slow_charge"] == 1


# -- a slow link


PACES = pytest.mark.parametrize(("piece", "pause"), [(1, 0.0), (100, 0.002)], ids=["byte by byte", "slow"])


@LINKS
@PACES
async def test_a_slow_link_costs_no_call(piece: int, pause: float, engine: str, mode: str) -> None:
    script = Script()
    async with behind_a_door(script) as door:
        door.piece, door.pause = piece, pause
        entry: dict[str, Any] = {"url": door.url, "engine": engine, "mode": mode}
        async with Connection(entry, policy=QUICK) as connection:
            for times in (1, 2):
                result = await connection.call_tool("a__charge", {"amount": times, "note": "x" * 1000})
                assert text_of(result) == f"charged {times}"
            assert connection.epoch == 1
    assert script.executions["charge"] == 2


@LINKS
@pytest.mark.parametrize(
    ("way", "left"),
    [("up", 1), ("up", 300), ("up", 4000), ("down", 1), ("down", 100), ("down", 300)],
    ids=lambda value: str(value),
)
async def test_a_slow_link_that_is_cut_runs_it_once(way: str, left: int, engine: str, mode: str) -> None:
    """In the head and in the body of the request, before the answer, in its head and in its body."""
    script = Script()
    async with behind_a_door(script) as door:
        entry: dict[str, Any] = {"url": door.url, "engine": engine, "mode": mode}
        async with Connection(entry, policy=QUICK) as connection:
            await connection.list_tools()
            door.piece, door.pause, door.cut = 100, 0.002, (way, left)
            result = await connection.call_tool("a__charge", {"amount": 1, "note": "x" * 5000})
            assert text_of(result) == "charged 1"
            assert door.cut is None
    assert script.executions["charge"] == 1
