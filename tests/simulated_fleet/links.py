"""Connections between replicas: streams in memory, and an HTTP server on them."""

from __future__ import annotations

import math
from contextlib import suppress
from typing import TYPE_CHECKING

import anyio
import anyio.lowlevel
import h11
from anyio.abc import ByteStream
from starlette.types import ASGIApp, Message

from tests.simulated_fleet.processes import Process
from tests.simulated_fleet.scopes import http_scope

if TYPE_CHECKING:
    from tests.simulated_fleet.network import Network

HOP = 0.0002
"""Seconds that bytes take from one machine to another."""


class Pipe(ByteStream):
    """One end of a connection between two replicas."""

    peer: Pipe

    def __init__(self, network: Network, process: Process) -> None:
        self.process = process
        self._network = network
        self._sending, self._receiving = anyio.create_memory_object_stream[bytes](math.inf)
        self._reset = False

    async def send(self, item: bytes) -> None:
        await anyio.sleep(HOP)
        if self._reset or self.process.dead:
            raise anyio.BrokenResourceError
        with suppress(anyio.BrokenResourceError, anyio.ClosedResourceError):
            self.peer._sending.send_nowait(bytes(item))

    async def receive(self, max_bytes: int = 65536) -> bytes:
        data = await self._receiving.receive()
        if self._reset:
            raise anyio.BrokenResourceError
        return data

    async def send_eof(self) -> None:
        self.peer._sending.close()

    async def aclose(self) -> None:
        self.peer._sending.close()
        self._network.pipes.discard(self)

    def cut(self) -> None:
        """Reset the connection."""
        for end in (self, self.peer):
            end._reset = True
            end._sending.close()
            self._network.pipes.discard(end)


class MemoryPort:
    """A replica's port for the others; a `mcpconn.gateway.fleet.links.Port`."""

    def __init__(self, network: Network, process: Process, number: int) -> None:
        self.number = number
        self.process = process
        self._network = network
        self._incoming, self._accepted = anyio.create_memory_object_stream[Pipe](math.inf)

    def accept(self, pipe: Pipe) -> None:
        self._incoming.send_nowait(pipe)

    async def serve(self, app: ASGIApp) -> None:
        async with anyio.create_task_group() as group:
            async for pipe in self._accepted:
                group.start_soon(_answer, pipe, app)

    async def aclose(self) -> None:
        self._network.ports.pop(self.number, None)
        self._incoming.close()


class MemoryLinks:
    """The way from one replica to the others; `mcpconn.gateway.fleet.links.Links`."""

    def __init__(self, network: Network, process: Process) -> None:
        self._network, self._process = network, process

    def listen(self, host: str, port: int) -> MemoryPort:
        return self._network.open_port(self._process)

    async def connect(self, host: str, port: int) -> ByteStream:
        await anyio.sleep(HOP)
        there = self._network.ports.get(port)
        if there is None or there.process.dead or self._process.dead:
            raise ConnectionRefusedError("Connection refused")
        if {self._process, there.process} & self._network.apart:
            # Nothing comes back: the caller's own time limit ends it.
            await anyio.sleep_forever()
        mine, theirs = Pipe(self._network, self._process), Pipe(self._network, there.process)
        mine.peer, theirs.peer = theirs, mine
        self._network.pipes |= {mine, theirs}
        there.accept(theirs)
        return mine


async def _answer(pipe: Pipe, app: ASGIApp) -> None:
    """Serve one HTTP/1.1 request on a connection, as uvicorn would."""
    async with pipe:
        with suppress(h11.RemoteProtocolError, anyio.BrokenResourceError, anyio.ClosedResourceError):
            wire = h11.Connection(h11.SERVER, max_incomplete_event_size=64 * 1024)

            async def following() -> h11.Event | type[h11.NEED_DATA] | type[h11.PAUSED]:
                while (event := wire.next_event()) is h11.NEED_DATA:
                    data = b""
                    with suppress(anyio.EndOfStream):
                        data = await pipe.receive()
                    wire.receive_data(data)
                return event

            asked = await following()
            if not isinstance(asked, h11.Request):
                return
            ended = False

            async def receive() -> Message:
                nonlocal ended
                if ended:
                    with suppress(anyio.EndOfStream, anyio.BrokenResourceError):
                        await pipe.receive()
                    return {"type": "http.disconnect"}
                if wire.they_are_waiting_for_100_continue:
                    await pipe.send(wire.send(h11.InformationalResponse(status_code=100, headers=[])) or b"")
                event: object = None
                with suppress(h11.RemoteProtocolError, anyio.BrokenResourceError):
                    event = await following()
                if isinstance(event, h11.Data):
                    return {"type": "http.request", "body": bytes(event.data), "more_body": True}
                ended = True
                if isinstance(event, h11.EndOfMessage):
                    return {"type": "http.request", "body": b"", "more_body": False}
                return {"type": "http.disconnect"}

            async def send(message: Message) -> None:
                await anyio.lowlevel.checkpoint()
                with suppress(anyio.BrokenResourceError):
                    if message["type"] == "http.response.start":
                        head = h11.Response(status_code=message["status"], headers=message["headers"])
                        await pipe.send(wire.send(head) or b"")
                        return
                    if body := message.get("body"):
                        await pipe.send(wire.send(h11.Data(data=body)) or b"")
                    if not message.get("more_body"):
                        await pipe.send(wire.send(h11.EndOfMessage()) or b"")

            path = asked.target.decode("ascii")
            await app(http_scope(asked.method.decode("ascii"), path, list(asked.headers.raw_items())), receive, send)
