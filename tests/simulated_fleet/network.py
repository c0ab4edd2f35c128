"""The network between clients, replicas and servers: exchanges in memory that can be cut at any moment."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import suppress
from typing import Any

import anyio
import anyio.lowlevel
import httpx2
from starlette.types import Message

from tests.simulated_fleet.links import HOP, MemoryPort, Pipe
from tests.simulated_fleet.processes import Process
from tests.simulated_fleet.scopes import http_scope


class Exchange:
    """One HTTP request and its answer, between two processes."""

    def __init__(self, *processes: Process | None) -> None:
        self.processes = processes
        self._sending, self._receiving = anyio.create_memory_object_stream[Message](math.inf)
        self.left = anyio.Event()
        """The client is gone, or so it seems to the server."""
        self.broken = False

    def give(self, message: Message) -> None:
        """Send a part of the answer."""
        if not self.broken:
            with suppress(anyio.ClosedResourceError, anyio.BrokenResourceError):
                self._sending.send_nowait(message)

    def cut(self) -> None:
        """Reset the connection."""
        self.broken = True
        self.left.set()
        self._sending.close()

    async def take(self, request: httpx2.Request) -> Message:
        """The next part of the answer.

        Raises:
            httpx2.ReadError: there will be none.
        """
        try:
            message = await self._receiving.receive()
        except anyio.EndOfStream:
            raise httpx2.ReadError("Connection reset by peer", request=request) from None
        await anyio.sleep(HOP)
        return message


class _Body(httpx2.AsyncByteStream):
    def __init__(self, exchange: Exchange, request: httpx2.Request, done: Callable[[Exchange], None]) -> None:
        self._exchange, self._request, self._done = exchange, request, done

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while True:
            message = await self._exchange.take(self._request)
            if message.get("body"):
                yield message["body"]
            if not message.get("more_body"):
                return

    async def aclose(self) -> None:
        self._exchange.left.set()
        self._done(self._exchange)


class Network:
    """Everybody's connections."""

    def __init__(self) -> None:
        self.exchanges: set[Exchange] = set()
        self.ports: dict[int, MemoryPort] = {}
        self.pipes: set[Pipe] = set()
        self.apart: set[Process] = set()
        """Replicas that no other replica can reach, nor they them."""
        self._next = 9000

    def cut(self, process: Process) -> None:
        """Reset all connections of a process."""
        for exchange in [each for each in self.exchanges if process in each.processes]:
            exchange.cut()
            self.exchanges.discard(exchange)
        self.cut_links(process)

    def serves(self, process: Process) -> bool:
        """Whether a client's request to a process is under way."""
        return any(each.processes[1] is process for each in self.exchanges)

    def cut_links(self, process: Process) -> None:
        """Reset its connections with other replicas."""
        for pipe in [each for each in self.pipes if process in (each.process, each.peer.process)]:
            pipe.cut()

    def open_port(self, process: Process) -> MemoryPort:
        self._next += 1
        self.ports[self._next] = port = MemoryPort(self, process, self._next)
        return port

    async def ask(
        self,
        request: httpx2.Request,
        client: Process | None,
        server: Process | None,
        serve: Callable[[Exchange], Awaitable[None]],
    ) -> httpx2.Response:
        """Make a request.

        Args:
            request: The request, its body read.
            client: The process that makes it; None: one that never dies.
            server: The process that answers; the same.
            serve: Answers, in a task of the server's.
        """
        exchange = Exchange(client, server)
        self.exchanges.add(exchange)
        await anyio.sleep(HOP)
        (server or OUTSIDE).run(_served, serve, exchange)
        try:
            head = await exchange.take(request)
        except BaseException:
            exchange.left.set()
            self.exchanges.discard(exchange)
            raise
        return httpx2.Response(
            head["status"],
            headers=head["headers"],
            stream=_Body(exchange, request, self.exchanges.discard),
            request=request,
        )


OUTSIDE = Process("outside")
"""Clients and servers."""


async def _served(serve: Callable[[Exchange], Awaitable[None]], exchange: Exchange) -> None:
    try:
        await serve(exchange)
    except Exception:  # what a server does with it: its client sees a connection that breaks
        exchange.cut()
    finally:
        exchange._sending.close()


class AppTransport(httpx2.AsyncBaseTransport):
    """A client's way to the replicas, through a balancer that tries the next one if one refuses."""

    def __init__(
        self, network: Network, choose: Callable[[], Any], travel: Callable[[httpx2.Request], Awaitable[None]]
    ) -> None:
        """
        Args:
            network: The network.
            travel: Takes the time that a request takes to the balancer, or raises an error: it was lost.
            choose: A replica that accepts connections: it has a `process` and an `app`. None: there is none.
        """
        self._network, self._choose, self._travel = network, choose, travel

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        body = await request.aread()
        await self._travel(request)
        replica = self._choose()
        if replica is None:
            raise httpx2.ConnectError("All connection attempts failed", request=request)
        scope = http_scope(request.method, request.url.path, request.headers.raw)

        async def serve(exchange: Exchange) -> None:
            await replica.app(scope, _receiver(body, exchange), _sender(exchange))

        return await self._network.ask(request, None, replica.process, serve)


def _receiver(body: bytes, exchange: Exchange) -> Callable[[], Awaitable[Message]]:
    given = False

    async def receive() -> Message:
        nonlocal given
        if given:
            await exchange.left.wait()
            return {"type": "http.disconnect"}
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return receive


def _sender(exchange: Exchange) -> Callable[[Message], Awaitable[None]]:
    async def send(message: Message) -> None:
        await anyio.lowlevel.checkpoint()
        exchange.give(message)

    return send


class ServerTransport(httpx2.AsyncBaseTransport):
    """One replica's way to one server. The server goes on when the replica is paused or gone."""

    def __init__(
        self,
        network: Network,
        process: Process,
        inner: httpx2.AsyncBaseTransport,
        seen: Callable[[Process, str, Mapping[str, str]], None],
    ) -> None:
        """
        Args:
            network: The network.
            process: The replica's.
            inner: The server.
            seen: Told of each request that reaches it.
        """
        self._network, self._process, self._seen = network, process, seen
        self._inner = inner
        self.down = False
        self.hangs = False

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        await request.aread()
        await anyio.lowlevel.checkpoint()
        while self.hangs:  # noqa: ASYNC110 - in virtual time
            await anyio.sleep(0.1)
        if self.down or self._process.dead:
            raise httpx2.ConnectError("All connection attempts failed", request=request)

        async def serve(exchange: Exchange) -> None:
            async with anyio.create_task_group() as group:

                async def watch() -> None:
                    await exchange.left.wait()
                    group.cancel_scope.cancel()

                group.start_soon(watch)
                self._seen(self._process, request.method, request.headers)
                response = await self._inner.handle_async_request(request)
                exchange.give(
                    {"type": "http.response.start", "status": response.status_code, "headers": response.headers.raw}
                )
                async for chunk in response.stream:  # type: ignore[union-attr]
                    exchange.give({"type": "http.response.body", "body": chunk, "more_body": True})
                exchange.give({"type": "http.response.body", "body": b""})
                group.cancel_scope.cancel()

        return await self._network.ask(request, self._process, None, serve)
