"""Requests to an ASGI application without a socket, and servers for it to show."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import anyio
from starlette.types import ASGIApp, Message

HOST = "127.0.0.1:8000"


@dataclass
class Answer:
    """A response, read to its end."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode()

    def json(self) -> Any:
        return json.loads(self.body)


def scope_of(method: str, path: str, headers: Mapping[str, str], client: str, root: str) -> dict[str, Any]:
    fields = {"host": HOST, **headers}
    return {
        "type": "http",
        "method": method,
        "path": root + path,
        "raw_path": (root + path).encode(),
        "root_path": root,
        "query_string": b"",
        "scheme": "http",
        "server": ("127.0.0.1", 8000),
        "client": (client, 50000),
        "headers": [(name.lower().encode(), value.encode()) for name, value in fields.items() if value],
    }


async def ask(
    app: ASGIApp,
    path: str,
    *,
    method: str = "GET",
    headers: Mapping[str, str] | None = None,
    body: bytes = b"",
    client: str = "127.0.0.1",
    root: str = "",
) -> Answer:
    """One request, and its whole answer."""
    messages: list[Message] = []
    sent = False

    async def receive() -> Message:
        nonlocal sent
        if sent:
            await anyio.sleep_forever()
        sent = True
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: Message) -> None:
        messages.append(message)

    await app(scope_of(method, path, headers or {}, client, root), receive, send)
    start = messages[0]
    return Answer(
        start["status"],
        {name.decode(): value.decode() for name, value in start["headers"]},
        b"".join(message.get("body", b"") for message in messages[1:]),
    )


class Events:
    """A stream of server-sent events that is being read."""

    def __init__(self, receive: Any) -> None:
        self._receive = receive
        self._rest = ""

    async def next(self) -> tuple[str, Any]:
        """The next event's name and data. Comments are passed over."""
        while True:
            while "\n\n" not in self._rest:
                self._rest += (await self._receive.receive()).decode()
            event, _, self._rest = self._rest.partition("\n\n")
            if not event.startswith(":"):
                name, data = event.split("\n")
                return name.removeprefix("event: "), json.loads(data.removeprefix("data: "))


@asynccontextmanager
async def events(app: ASGIApp, *, headers: Mapping[str, str] | None = None) -> AsyncIterator[Events]:
    """Open `/events`, and close it like a browser that leaves."""
    put, take = anyio.create_memory_object_stream[bytes](100)
    left = anyio.Event()

    async def receive() -> Message:
        await left.wait()
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        if message.get("body"):
            await put.send(message["body"])

    async with put, take, anyio.create_task_group() as group:

        async def serve() -> None:
            await app(scope_of("GET", "/events", headers or {}, "127.0.0.1", ""), receive, send)

        group.start_soon(serve)
        yield Events(take)
        left.set()
