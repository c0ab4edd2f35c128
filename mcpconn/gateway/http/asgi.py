"""Small pieces of ASGI that the layers of the gateway share: headers, bodies that are read twice, replies."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import anyio
from starlette.types import ASGIApp, Message, Receive, Scope, Send


def header(scope: Scope, name: bytes) -> str | None:
    """The value of a request header; `name` in lower case, as ASGI has it."""
    return next((value.decode("latin-1") for key, value in scope["headers"] if key == name), None)


def with_header(scope: Scope, name: bytes, value: str | None) -> Scope:
    """A copy of `scope` with one header replaced, or removed if `value` is None."""
    headers = [pair for pair in scope["headers"] if pair[0] != name]
    if value is not None:
        headers.append((name, value.encode("latin-1")))
    return {**scope, "headers": headers}


def replay(body: bytes, receive: Receive) -> Receive:
    """A `receive` that returns `body` first, and then the server's messages (the client's disconnect)."""
    given = False

    async def again() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return again


def on_start(send: Send, change: Callable[[Message], Message | None]) -> Send:
    """A `send` that passes the start of a response through `change`; None drops the whole response."""
    dropped = False

    async def changed(message: Message) -> None:
        nonlocal dropped
        if message["type"] == "http.response.start":
            replaced = change(message)
            dropped = replaced is None
            if replaced is not None:
                await send(replaced)
        elif not dropped:
            await send(message)

    return changed


async def refuse(
    send: Send, status: int, message: str, *, code: int = -32600, headers: tuple[tuple[str, str], ...] = ()
) -> None:
    """Answer with a JSON-RPC error that belongs to no request, as the SDK's own server does."""
    body = json.dumps({"jsonrpc": "2.0", "id": None, "error": {"code": code, "message": message}}).encode()
    fields = (("content-type", "application/json"), ("content-length", str(len(body))), *headers)
    await send(
        {
            "type": "http.response.start",
            "status": status,
            "headers": [(name.encode("latin-1"), value.encode("latin-1")) for name, value in fields],
        }
    )
    await send({"type": "http.response.body", "body": body})


async def request(
    app: ASGIApp, scope: Scope, *, method: str, headers: dict[bytes, str], body: bytes = b""
) -> tuple[int, dict[bytes, str]]:
    """Make a request to `app` on behalf of a client, and read the whole answer.

    Args:
        app: The application.
        scope: A request of that client, with its path, address and user.
        method: The HTTP method.
        headers: All headers but `host` and those of authentication, which come from `scope`.
        body: The request's body.

    Returns:
        The status and the headers of the answer.
    """
    kept = [pair for pair in scope["headers"] if pair[0] in (b"host", b"authorization", b"origin")]
    made = [*kept, *((name, value.encode("latin-1")) for name, value in headers.items())]
    answered: tuple[int, dict[bytes, str]] = (500, {})
    read = False

    async def receive() -> Message:
        nonlocal read
        if read:
            # There is no disconnect: the whole answer is awaited.
            await anyio.sleep_forever()
        read = True
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: Message) -> None:
        nonlocal answered
        if message["type"] == "http.response.start":
            fields = {name.lower(): value.decode("latin-1") for name, value in message["headers"]}
            answered = message["status"], fields

    await app({**scope, "method": method, "headers": made}, receive, send)
    return answered


class Streams:
    """Streaming responses that are open now, so that all of them can be ended at once."""

    def __init__(self) -> None:
        self._open: set[anyio.CancelScope] = set()
        self._over = False

    def end(self) -> None:
        """End each response with a clean last chunk, and from now on every new one at once.

        A response that is cut off counts as an error for its client, and some clients abandon a stream after two.
        """
        self._over = True
        for scope in tuple(self._open):
            scope.cancel()

    async def run(self, app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
        """Run a streaming request, until it ends or all are ended."""
        begun = ended = False

        async def watching(message: Message) -> None:
            nonlocal begun, ended
            begun = True
            ended = message["type"] == "http.response.body" and not message.get("more_body")
            await send(message)

        # Not a task that waits for the end: each idle client has a stream, and a task for each would be memory.
        with anyio.CancelScope() as ending:
            self._open.add(ending)
            try:
                if self._over:
                    ending.cancel()
                await app(scope, receive, watching)
            finally:
                self._open.discard(ending)
        if begun and not ended and self._over:
            await send({"type": "http.response.body", "body": b"", "more_body": False})


async def until(event: anyio.Event, app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
    """Run a streaming request; when `event` is set, end its response as `Streams` does."""
    streams = Streams()
    async with anyio.create_task_group() as group:

        async def end() -> None:
            await event.wait()
            streams.end()

        group.start_soon(end)
        await streams.run(app, scope, receive, send)
        group.cancel_scope.cancel()


async def within_lifespan(app: AbstractAsyncContextManager[Any], receive: Receive, send: Send) -> None:
    """Run `app` for as long as its server runs, by the lifespan protocol of ASGI."""
    await receive()
    started = False
    try:
        async with app:
            await send({"type": "lifespan.startup.complete"})
            started = True
            await receive()
    except Exception as error:
        if not started:
            await send({"type": "lifespan.startup.failed", "message": str(error)})
        raise
    await send({"type": "lifespan.shutdown.complete"})
