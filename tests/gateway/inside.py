"""A gateway inside the process, without sockets, so that virtual time works: bare clients in front, a script behind."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import httpx2
from anyio.abc import TaskGroup
from anyio.streams.memory import MemoryObjectReceiveStream
from mcp import Client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.memory import create_client_server_memory_streams
from starlette.types import ASGIApp, Message

from mcpconn import Manager
from mcpconn.gateway import App
from mcpconn.testing import Script, ScriptTransport
from mcpconn.testing.clock import virtual_clock

FRONTS = ("legacy", "modern", "stdio")
"""A bare legacy client and a bare modern one over HTTP, and a legacy one over stdin and stdout."""
URL = "http://127.0.0.1:9000/mcp"


class AsgiTransport(httpx2.AsyncBaseTransport):
    """Makes requests to an ASGI application in the process; unlike httpx2's own, it does not wait for a body's end."""

    def __init__(self, app: ASGIApp, group: TaskGroup) -> None:
        self._app, self._group = app, group

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        body = await request.aread()
        sending, receiving = anyio.create_memory_object_stream[Message](math.inf)
        left = anyio.Event()
        scope = {
            "type": "http",
            "method": request.method,
            "path": request.url.path,
            "query_string": request.url.query,
            "root_path": "",
            "headers": [(name.lower(), value) for name, value in request.headers.raw],
            "client": ("127.0.0.1", 1),
        }
        given = False

        async def receive() -> Message:
            nonlocal given
            if given:
                await left.wait()
                return {"type": "http.disconnect"}
            given = True
            return {"type": "http.request", "body": body, "more_body": False}

        async def send(message: Message) -> None:
            await anyio.lowlevel.checkpoint()
            sending.send_nowait(message)

        async def run() -> None:
            with sending:
                await self._app(scope, receive, send)

        self._group.start_soon(run)
        try:
            start = await receiving.receive()
        except BaseException:
            left.set()
            raise
        return httpx2.Response(
            start["status"], headers=start["headers"], stream=_Body(receiving, left), request=request
        )


class _Body(httpx2.AsyncByteStream):
    def __init__(self, receiving: MemoryObjectReceiveStream[Message], left: anyio.Event) -> None:
        self._receiving, self._left = receiving, left

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for message in self._receiving:
            if message.get("body"):
                yield message["body"]
            if not message.get("more_body"):
                return

    async def aclose(self) -> None:
        self._left.set()


class Inside:
    """The gateway, and what it serves."""

    def __init__(self, app: App, transport: ScriptTransport, group: TaskGroup) -> None:
        self.app, self.transport, self._group = app, transport, group

    @asynccontextmanager
    async def client(self, front: str, **options: Any) -> AsyncIterator[Client]:
        """A bare client in front, connected."""
        if front == "stdio":
            async with Client(_Stdio(self.app, self._group), mode="legacy", **options) as client:
                yield client
            return
        async with httpx2.AsyncClient(transport=AsgiTransport(self.app, self._group), timeout=None) as http:
            mode: Any = "legacy" if front == "legacy" else "auto"
            async with Client(streamable_http_client(URL, http_client=http), mode=mode, **options) as client:
                yield client


class _Stdio:
    """What `mcpconn serve --stdio` does, with streams in place of stdin and stdout."""

    def __init__(self, app: App, group: TaskGroup) -> None:
        self._app, self._group = app, group

    async def __aenter__(self) -> Any:
        self._streams = create_client_server_memory_streams()
        ours, (read, write) = await self._streams.__aenter__()
        server = self._app.endpoint("").server
        await self._app.endpoint("").settled()
        self._group.start_soon(server.run, read, write, server.create_initialization_options())
        return ours

    async def __aexit__(self, *exc: Any) -> None:
        await self._streams.__aexit__(*exc)


@asynccontextmanager
async def inside(script: Script, *, transport: ScriptTransport | None = None, **options: Any) -> AsyncIterator[Inside]:
    """A gateway before a scripted server called a."""
    transport = transport or ScriptTransport(script)
    entry = {"url": "http://scripted/mcp", "http_transport": transport}
    async with (
        Manager({"a": entry}, clock=virtual_clock(1)) as manager,
        App(manager, **options) as app,
        anyio.create_task_group() as group,
    ):
        yield Inside(app, transport, group)
        group.cancel_scope.cancel()
