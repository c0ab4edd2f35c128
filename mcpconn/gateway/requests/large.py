"""Large answers to legacy clients: as a plain JSON response, not as one event of a stream.

The SDK's client refuses an event above 1 MiB and the call fails, although the tool ran. A JSON response has no such
limit, but the kind of a response is fixed by its head, and a client whose stream is cut before it has seen an event id
cannot take it up again. So the head of a stream is held back only for tools that are safe to repeat, and for those that
are known to return large answers.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import ClassVar

import anyio
from starlette.types import ASGIApp, Message, Receive, Scope, Send

LARGE = 1024 * 1024
"""Bytes of an event; `max_sse_event_size` of the SDK's client."""
DECISION = 1.5
"""Seconds for which every head is held back at most: until the tool of a call is known, and its annotations, which may
have to be listed first. Nothing is sent to a server before that."""
SAFE_HOLD = 2.0
"""Seconds for a tool that changes nothing."""
LARGE_HOLD = 30.0
"""Seconds for a tool that gave a large answer before."""
BEGINS_WITHIN = 0.5
"""Seconds that an unsafe tool waits for the first event of its stream. A client of an old version gets none."""
KNOWN = 1000
"""Tools that are remembered for their large answers."""
HOLD_KEY = "mcpconn.hold"
"""Where a request's `Hold` is left in its ASGI scope."""


class Hold:
    """For how long the head of one response is held back."""

    # By server and tool, those that gave a large answer: of this process, because it saves one failure at most.
    _large: ClassVar[OrderedDict[tuple[str, str], None]] = OrderedDict()

    def __init__(self) -> None:
        self._decided = anyio.Event()
        self.begun = anyio.Event()
        """Set when the first event has gone out."""
        self._seconds = 0.0
        self._tool: tuple[str, str] | None = None

    async def decide(self, tool: tuple[str, str] | None, *, safe: bool) -> None:
        """The request is known now. Returns when its stream has begun, unless that is held back.

        Args:
            tool: The server and the tool that is called; None for any other request.
            safe: Running the tool twice is harmless.
        """
        self._tool = tool
        if tool in self._large:
            self._seconds = LARGE_HOLD
        elif safe or tool is None:
            self._seconds = SAFE_HOLD
        self._decided.set()
        if not self._seconds:
            # A tool that may run once only is not called before its client could take up the stream again.
            with anyio.move_on_after(BEGINS_WITHIN):
                await self.begun.wait()

    async def over(self) -> None:
        """Return when the head may go."""
        with anyio.move_on_after(DECISION):
            await self._decided.wait()
        await anyio.sleep(self._seconds)

    def was_large(self) -> None:
        """The answer was large, whichever way it went."""
        if self._tool is not None:
            self._large[self._tool] = None
            if len(self._large) > KNOWN:
                self._large.popitem(last=False)


async def decide(scope: Scope, tool: tuple[str, str] | None, *, safe: bool) -> None:
    """Say what a request is, as `Hold.decide`. For requests that nothing is held back of, this does nothing."""
    hold = scope.get(HOLD_KEY)
    if hold is not None:
        await hold.decide(tool, safe=safe)


async def whole_if_large(app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
    """Run a request; answer with JSON if its answer is large and the head of its stream was held back until then."""
    hold = Hold()
    response = _Response(send, hold)

    async def release_later() -> None:
        await hold.over()
        await response.release()

    async with anyio.create_task_group() as group:
        group.start_soon(release_later)
        await app({**scope, HOLD_KEY: hold}, receive, response.send)
        group.cancel_scope.cancel()
    await response.release()


class _Response:
    """A response whose beginning may be held back."""

    def __init__(self, send: Send, hold: Hold) -> None:
        self._send = send
        self._hold = hold
        self._held: list[Message] | None = []
        """What was not sent yet; None once the kind of the response is settled."""
        self._replaced = False
        self._lock = anyio.Lock()

    async def send(self, message: Message) -> None:
        async with self._lock:
            if self._replaced:
                return
            if self._held is None:
                if len(message.get("body", b"")) > LARGE:
                    self._hold.was_large()
                await self._pass(message)
                return
            if message["type"] == "http.response.start":
                self._held.append(message)
                if not _is_stream(message):
                    await self._flush()
                return
            answer = _data(message.get("body", b""))
            if len(answer) > LARGE and (b'"result"' in answer[:200] or b'"result":' in answer[-200:]):
                await self._replace(answer)
                return
            self._held.append(message)
            if answer or not message.get("more_body"):
                await self._flush()

    async def release(self) -> None:
        """Send the held data."""
        async with self._lock:
            if not self._replaced:
                await self._flush()

    async def _flush(self) -> None:
        held, self._held = self._held or [], None
        for message in held:
            await self._pass(message)

    async def _pass(self, message: Message) -> None:
        await self._send(message)
        if message["type"] == "http.response.body":
            self._hold.begun.set()

    async def _replace(self, answer: bytes) -> None:
        assert self._held
        start = self._held[0]
        dropped = (b"content-type", b"cache-control", b"content-length", b"x-accel-buffering")
        headers = [pair for pair in start["headers"] if pair[0].lower() not in dropped]
        headers += [(b"content-type", b"application/json"), (b"content-length", str(len(answer)).encode())]
        self._hold.was_large()
        self._replaced, self._held = True, None
        await self._send({**start, "headers": headers})
        await self._send({"type": "http.response.body", "body": answer})


def _is_stream(start: Message) -> bool:
    return any(
        name.lower() == b"content-type" and value.startswith(b"text/event-stream") for name, value in start["headers"]
    )


def _data(event: bytes) -> bytes:
    """The data of a chunk that is one event; nothing if it has none."""
    for line in event.splitlines():
        if line.startswith(b"data:"):
            return line[5:].strip()
    return b""
