"""`mcpconn serve --stdio`: one client over this process's own stdin and stdout."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from functools import partial
from typing import Any, cast

import anyio
from anyio.abc import ObjectSendStream

from mcpconn.gateway.app import App
from mcpconn.gateway.ending import Ending

CHUNK = 256 * 1024
"""Bytes that are read from stdin at once: a pipe of Linux holds 64 KiB, and a file any number."""
LAST_WORDS = 0.2
"""Seconds to write the last answers. A host kills a process 2 s after it sent SIGTERM (the SDK's client does)."""


async def serve_stdio(app: App, view: str) -> None:
    """Serve until the client closes stdin, or SIGTERM, SIGINT or SIGHUP comes. What runs then is answered at once.

    Hosts wait for 2 s before they kill, so there is no grace as over HTTP: a call that was handed to its server is
    `unknown`, any other one `not_run`.

    Args:
        app: The gateway.
        view: Name of the view that is served.
    """
    from mcp.server.stdio import stdio_server

    async with app:
        ending = Ending(app)
        endpoint = app.endpoint(view)
        await endpoint.settled()

        async def answer_the_rest() -> None:
            unfinished = ending.running
            app.drain(calls=True)
            if unfinished:
                await anyio.sleep(LAST_WORDS)

        async with AsyncExitStack() as stack:
            # Windows has neither these signals nor an event loop that waits for pipes: there the SDK reads.
            lines = None if sys.platform == "win32" else await stack.enter_async_context(_lines(answer_the_rest))
            read, write = await stack.enter_async_context(stdio_server(stdin=lines))
            await endpoint.server.run(read, write, endpoint.server.create_initialization_options())
    if (said := ending.summary()) is not None:
        sys.stderr.write(f"{said}\n")


@asynccontextmanager
async def _lines(at_end: Any) -> AsyncIterator[anyio.AsyncFile[str]]:
    """The lines of stdin. They end when the client closes it or a signal comes, after `at_end` has run.

    The SDK reads stdin in a thread that cannot be interrupted: after Ctrl-C the process would stay until the next line.
    So stdin is read here, by the event loop.
    """
    # As the SDK does: what else reads fd 0 in this process must not take the client's messages.
    wire = os.dup(0)
    os.set_inheritable(wire, False)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    send, receive = anyio.create_memory_object_stream[str](0)
    async with anyio.create_task_group() as group:

        async def read() -> None:
            async with send:
                await _until_signal(partial(_read, wire, send))
                with anyio.CancelScope(shield=True):
                    await at_end()

        group.start_soon(read)
        try:
            # The SDK only iterates over it.
            yield cast("anyio.AsyncFile[str]", receive)
        finally:
            group.cancel_scope.cancel()
            receive.close()


async def _read(wire: int, send: ObjectSendStream[str]) -> None:
    rest = bytearray()
    while chunk := await _chunk(wire):
        rest += chunk
        if b"\n" not in chunk:
            continue
        *lines, last = bytes(rest).split(b"\n")
        rest = bytearray(last)
        for line in lines:
            await send.send(line.decode("utf-8", "replace"))
    if rest:
        await send.send(rest.decode("utf-8", "replace"))


async def _chunk(wire: int) -> bytes:
    """What stdin holds; nothing at its end."""
    with suppress(PermissionError):  # epoll has no files and no /dev/null: reading them does not wait for a client
        await anyio.wait_readable(wire)
    return os.read(wire, CHUNK)


async def _until_signal(function: Any) -> None:
    """Run `function` until it returns or a signal comes. The next signal then ends the process."""
    # Signals that nohup has disabled stay ignored.
    known = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    numbers = [each for each in known if signal.getsignal(each) is not signal.SIG_IGN]
    with anyio.open_signal_receiver(*numbers) as signals:
        async with anyio.create_task_group() as group:

            async def heed() -> None:
                async for _ in signals:
                    group.cancel_scope.cancel()

            group.start_soon(heed)
            await function()
            group.cancel_scope.cancel()
