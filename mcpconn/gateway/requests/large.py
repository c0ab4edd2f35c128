"""Large answers to legacy clients: as a plain JSON response, not as one event of a stream.

The SDK's client refuses an event above 1 MiB and the call fails, although the tool ran. A JSON response has no such
limit, but the kind of a response is fixed by its head, and a client whose stream is cut before it has seen an event id
cannot take it up again. So the head of a stream is held back only for tools that are safe to repeat, for those that are
known to return large answers, and for those whose name says that they return much.

In the modern era the SDK's server answers with JSON unless something else goes out first. So a tool that is known for
large answers sends no progress and no log messages there.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from math import ceil
from typing import Any

import anyio
from anyio.abc import TaskGroup
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mcpconn.gateway.clients.sessions import REQUEST_KEY
from mcpconn.gateway.requests.large_tools import Tool, is_known, remember, returns_much
from mcpconn.observe import log

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
HOLD_KEY = "mcpconn.hold"
"""Where a request's `Hold` is left in its ASGI scope."""
KEPT = 100
"""Notifications that are kept while the head of a tool with large answers is held back; later ones are dropped."""
TURN = 0.25
"""Seconds between two looks at what is held back. Heads are held so much longer at most."""
HEAD = 1024
"""Bytes of an event that come before its data at most: its id, which has the request's id in it, and its kind."""


class Hold:
    """For how long the head of one response is held back."""

    def __init__(self, releases: Releases, release: Callable[[], Awaitable[None]]) -> None:
        """
        Args:
            releases: Sends the head when its time has come.
            release: Sends it.
        """
        self._release: Callable[[], Awaitable[None]] | None = release
        self._begun = False
        self._waiting: anyio.Event | None = None
        self.due = anyio.current_time() + DECISION
        """When the head goes out at the latest, on the loop's clock."""
        self.keeps = False
        """Notifications do not release the head."""
        releases.add(self)
        self._tool: Tool | None = None

    async def decide(self, tool: Tool | None, *, safe: bool) -> None:
        """The request is known now. Returns when its stream has begun, unless that is held back.

        Args:
            tool: The server and the tool that is called; None for any other request.
            safe: Running the tool twice is harmless.
        """
        self._tool = tool
        if is_known(tool):
            self.keeps = True
            self.due = anyio.current_time() + LARGE_HOLD
        elif safe or tool is None or returns_much(tool[1]):
            self.due = anyio.current_time() + SAFE_HOLD
        else:
            await self.release()
            if not self._begun:
                self._waiting = anyio.Event()
                # A tool that may run once only is not called before its client could take up the stream again.
                with anyio.move_on_after(BEGINS_WITHIN):
                    await self._waiting.wait()

    def begin(self) -> None:
        """The first event has gone out."""
        self._begun = True
        if self._waiting is not None:
            self._waiting.set()

    async def release(self) -> None:
        """Send the head, unless it has gone."""
        release, self._release = self._release, None
        if release is not None:
            await release()

    @property
    def held(self) -> bool:
        """Whether the head is still to be sent."""
        return self._release is not None

    async def release_late(self) -> None:
        """The same outside of the request's own task. An error is the request's: it meets it with its next event."""
        try:
            await self.release()
        except Exception as error:
            log.debug("gateway.head_not_sent", error=repr(error))

    def end(self) -> None:
        """The response is complete."""
        # The hold stays among the releases until it is due, and must not keep a large answer in memory until then.
        self._release = None

    def was_large(self) -> None:
        """The answer was large, whichever way it went."""
        remember(self._tool)


class Releases:
    """Sends heads when they have been held back for long enough: one task for all responses.

    Otherwise each call would start a task and a timer, and nearly all of them would be cancelled unused.
    """

    def __init__(self) -> None:
        self._turns: dict[int, list[Hold]] = {}
        self._added = anyio.Event()

    def add(self, hold: Hold) -> None:
        """Release a head when it is due."""
        turn = ceil(hold.due / TURN)
        if not self._turns:
            self._added.set()
        self._turns.setdefault(turn, []).append(hold)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Releases]:
        """Release heads for as long as the block runs."""
        async with anyio.create_task_group() as group:
            group.start_soon(self._run, group)
            try:
                yield self
            finally:
                group.cancel_scope.cancel()

    async def _run(self, group: TaskGroup) -> None:
        while True:
            if not self._turns:
                self._added = anyio.Event()
                await self._added.wait()
            turn = min(self._turns)
            # What is added from now on is due no sooner than this, so no later look is too late for it.
            soonest = anyio.current_time() + DECISION
            await anyio.sleep_until(min(turn * TURN, soonest))
            if turn * TURN > soonest:
                continue
            for hold in self._turns.pop(turn):
                if not hold.held:
                    continue
                if hold.due > turn * TURN:
                    self.add(hold)
                else:
                    # In a task of its own, because a client that reads slowly makes it wait.
                    group.start_soon(hold.release_late)


async def decide(scope: Scope, tool: Tool | None, *, safe: bool) -> bool:
    """Say what a request is, as `Hold.decide`. Returns whether nothing may go out before its answer (modern era)."""
    hold: Hold | Noticed | None = scope.get(HOLD_KEY)
    if isinstance(hold, Hold):
        await hold.decide(tool, safe=safe)
    elif hold is not None:
        hold.tool = tool
        return is_known(tool)
    return False


async def whole_if_large(releases: Releases, app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
    """Run a request; answer with JSON if its answer is large and the head of its stream was held back until then.

    Args:
        releases: Sends the head when it has been held back for long enough.
        app: Serves the request.
        scope: The request. Its `REQUEST_KEY` has its id and method, if they are known.
        receive: Reads its body.
        send: Takes its response.
    """
    request_id, _ = scope.get(REQUEST_KEY, (None, None))
    response = _Response(send, releases, request_id)
    inside = {**scope, HOLD_KEY: response.hold}
    try:
        await app(inside, receive, response.send)
        await response.release()
    finally:
        response.hold.end()
        # The SDK's server keeps the last request of each session until the next one comes.
        del inside[HOLD_KEY]


class _Response:
    """A response whose beginning may be held back, and which ends with the answer of its request."""

    def __init__(self, send: Send, releases: Releases, request_id: Any) -> None:
        self._send = send
        self._answer = _beginnings(request_id)
        self._held: list[Message] | None = []
        """What was not sent yet; None once the kind of the response is settled."""
        self._over = False
        """The response is complete, and what the SDK's server still sends is dropped."""
        self._lock = anyio.Lock()
        self.hold = Hold(releases, self.release)

    async def send(self, message: Message) -> None:
        async with self._lock:
            if self._over:
                return
            if self._held is None:
                if len(message.get("body", b"")) > LARGE:
                    self.hold.was_large()
                await self._pass(message)
                return
            if message["type"] == "http.response.start":
                self._held.append(message)
                if not _is_stream(message):
                    await self._flush()
                return
            answer = _data(message.get("body", b""))
            if len(answer) > LARGE and not _asks(answer):
                await self._replace(answer)
                return
            if self.hold.keeps and answer.startswith(_NOTIFICATION):
                if len(self._held) < KEPT:
                    self._held.append(message)
                return
            self._held.append(message)
            if answer or not message.get("more_body"):
                await self._flush()

    async def release(self) -> None:
        """Send the held data."""
        async with self._lock:
            if not self._over:
                await self._flush()

    async def _flush(self) -> None:
        held, self._held = self._held or [], None
        for message in held:
            await self._pass(message)

    async def _pass(self, message: Message) -> None:
        if self._over:
            return
        if message["type"] != "http.response.body":
            await self._send(message)
            return
        if message.get("more_body") and self._is_answer(message["body"]):
            # Nothing follows the answer. The SDK's server ends the stream only after its tasks for it have ended, and
            # the client would wait for that, and be woken once more.
            message = {**message, "more_body": False}
        self._over = not message.get("more_body")
        await self._send(message)
        self.hold.begin()

    def _is_answer(self, event: bytes) -> bool:
        return self._answer is not None and event.startswith(self._answer, event.find(b"\ndata: ", 0, HEAD) + 1)

    async def _replace(self, answer: bytes) -> None:
        assert self._held
        start = self._held[0]
        dropped = (b"content-type", b"cache-control", b"content-length", b"x-accel-buffering")
        headers = [pair for pair in start["headers"] if pair[0].lower() not in dropped]
        headers += [(b"content-type", b"application/json"), (b"content-length", str(len(answer)).encode())]
        self.hold.was_large()
        self._over, self._held = True, None
        await self._send({**start, "headers": headers})
        await self._send({"type": "http.response.body", "body": answer})


async def noticing(app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
    """Run a request of a modern client, and remember its tool if the answer is large and an event of a stream."""
    noticed = Noticed()

    async def notice(message: Message) -> None:
        if len(message.get("body", b"")) > LARGE:
            remember(noticed.tool)
        await send(message)

    await app({**scope, HOLD_KEY: noticed}, receive, notice)


class Noticed:
    """The tool that a modern client's request calls, once it is known."""

    __slots__ = ("tool",)

    def __init__(self) -> None:
        self.tool: Tool | None = None


_NOTIFICATION = b'{"jsonrpc":"2.0","method":"notifications/'
"""The beginning of a notification, as pydantic writes the SDK's model. A question has an id before its method."""


def _asks(message: bytes) -> bool:
    """Whether a message is a question of the server's, and no answer."""
    return b'"method":' in message[:200]


def _beginnings(request_id: Any) -> tuple[bytes, bytes] | None:
    """The beginnings of the `data` of an event that is the answer to a request; None if its id is not known."""
    if request_id is None:
        return None
    # As pydantic writes the SDK's models: its fields in their order, without spaces. Otherwise nothing is recognized,
    # and the stream ends when the SDK's server ends it.
    beginning = b'data: {"jsonrpc":"2.0","id":%b,' % json.dumps(request_id).encode()
    return beginning + b'"result":', beginning + b'"error":'


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
