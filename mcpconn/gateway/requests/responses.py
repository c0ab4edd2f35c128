"""Responses to legacy clients: one JSON object, or a stream of events that begins when it has to.

JSON is cheaper for both sides, and has no limit: the SDK's client refuses an event above 1 MiB, and the call fails
although the tool ran. But what comes before an answer needs a stream, and a client whose connection is cut before it
has seen an event id cannot ask for its answer again. So the head of a response is held back until the answer is there,
for as long as that costs nothing: for requests and tools that are safe to repeat, for tools that are known to return
large answers, and for those whose name says that they return much. The stream of any other tool begins before it is
called.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from math import ceil
from typing import Protocol

import anyio
from anyio.abc import TaskGroup
from mcp_types import JSONRPCError, JSONRPCMessage, JSONRPCNotification, JSONRPCRequest, JSONRPCResponse
from starlette.types import Message, Receive, Send

from mcpconn.gateway.clients.events import SessionEvents, dump
from mcpconn.gateway.fleet.replies import event
from mcpconn.gateway.requests.large_tools import LARGE, Tool, is_known, remember, returns_much
from mcpconn.observe import log

DECISION = 1.5
"""Seconds for which every head is held back at most: until the tool of a call is known, and its annotations, which may
have to be listed first. Nothing is sent to a server before that."""
SAFE_HOLD = 2.0
"""Seconds for a tool that changes nothing."""
LARGE_HOLD = 30.0
"""Seconds for a tool that gave a large answer before."""
KEPT = 100
"""Notifications that are kept while the head of a tool with large answers is held back; later ones are dropped."""
PING = 15.0
"""Seconds between two comments in a stream, so that no proxy takes it for idle. As the SDK's server."""
TURN = 0.25
"""Seconds between two looks at what is due. Heads are held so much longer at most."""
SOONEST = 0.25
"""Seconds until something of a new response is due, at the earliest."""
COME_BACK = 2500
"""Milliseconds after which a client whose stream was cut reconnects. The SDK's client tries twice and gives up, so a
restarting gateway has 5 s."""

STREAM = (
    (b"content-type", b"text/event-stream"),
    (b"cache-control", b"no-cache, no-transform"),
    (b"connection", b"keep-alive"),
    # nginx would gather the events otherwise.
    (b"x-accel-buffering", b"no"),
)


class Response:
    """The response to one request."""

    def __init__(
        self,
        send: Send,
        request: JSONRPCRequest,
        releases: Releases,
        *,
        events: SessionEvents,
        headers: Mapping[str, str],
        resumable: bool,
    ) -> None:
        """
        Args:
            send: Takes the response.
            request: What is answered.
            releases: Begins the stream when its head has been held back for long enough.
            events: The session's.
            headers: Headers of either form.
            resumable: The client understands an event that has no message, and can take up any stream.
        """
        self._send: Send | None = send
        self._events = events
        self._headers = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]
        self._stream = str(request.id)
        # Its number is given now, because events are numbered in the order in which they are sent.
        self._first = events.begin(request) if resumable else None
        self._streams = False
        self._keeps = False
        self._kept: list[JSONRPCNotification] = []
        self._tool: Tool | None = None
        self._lock = anyio.Lock(fast_acquire=True)
        self._waiting: anyio.CancelScope | None = None
        self.due = anyio.current_time() + DECISION
        """When something has to be sent at the latest, on the loop's clock."""
        releases.add(self)

    @property
    def over(self) -> bool:
        """Nothing more is sent."""
        return self._send is None

    async def decide(self, tool: Tool | None, *, safe: bool) -> None:
        """The request is known now. Returns when its stream has begun, unless that is held back.

        Args:
            tool: The server and the tool that is called; None for any other request.
            safe: Running the tool twice is harmless.
        """
        self._tool = tool
        if is_known(tool):
            # Notifications do not release the head.
            self._keeps = True
            self.due = anyio.current_time() + LARGE_HOLD
        elif safe or tool is None or returns_much(tool[1]):
            self.due = anyio.current_time() + SAFE_HOLD
        else:
            async with self._lock:
                await self._begin()

    async def message(self, message: JSONRPCMessage) -> None:
        """Send a message that belongs to the request."""
        # Whoever sends it may be cancelled, but half a response would leave the client waiting.
        with anyio.CancelScope(shield=True):
            async with self._lock:
                dumped = dump(message)
                answer = isinstance(message, JSONRPCResponse | JSONRPCError)
                if not self._streams:
                    if answer and (not self._kept or len(dumped) > LARGE):
                        await self._whole(dumped)
                        return
                    if self._keeps and isinstance(message, JSONRPCNotification):
                        if len(self._kept) < KEPT:
                            self._kept.append(message)
                        return
                    await self._begin()
                await self._event(message, dumped, last=answer)

    async def finished(self, receive: Receive) -> None:
        """Return when the response is complete, or its client has gone."""
        with anyio.CancelScope() as self._waiting:
            while not self.over and (await receive())["type"] != "http.disconnect":
                pass

    async def end(self) -> None:
        """End the response without an answer."""
        async with self._lock:
            await self._begin()
            await self._write({"type": "http.response.body", "body": b""})
            self._finish()

    def cut(self) -> None:
        """Send nothing from now on. If the answer is still to come, its client is not there for it."""
        self._events.left(self._stream)
        self._finish()

    async def tick(self) -> None:
        """Its time has come: begin the stream, or tell who is between that it goes on."""
        async with self._lock:
            if self._streams:
                await self._write({"type": "http.response.body", "body": b": ping\r\n\r\n", "more_body": True})
                self.due = anyio.current_time() + PING
            else:
                await self._begin()

    async def _whole(self, dumped: bytes) -> None:
        self._events.answered(self._stream)
        if len(dumped) > LARGE:
            remember(self._tool)
        length = (b"content-length", str(len(dumped)).encode())
        headers = [(b"content-type", b"application/json"), length, *self._headers]
        await self._write({"type": "http.response.start", "status": 200, "headers": headers})
        await self._write({"type": "http.response.body", "body": dumped})
        self._finish()

    async def _begin(self) -> None:
        if self._streams:
            return
        self._streams = True
        self.due = anyio.current_time() + PING
        await self._write({"type": "http.response.start", "status": 200, "headers": [*STREAM, *self._headers]})
        if self._first is not None:
            body = f"id: {self._first}\r\ndata: \r\nretry: {COME_BACK}\r\n\r\n".encode()
            await self._write({"type": "http.response.body", "body": body, "more_body": True})
        kept, self._kept = self._kept, []
        for message in kept:
            await self._event(message, dump(message), last=False)

    async def _event(self, message: JSONRPCMessage, dumped: bytes, *, last: bool) -> None:
        event_id = await self._events.store_event(self._stream, message, dumped)
        if last and len(dumped) > LARGE:
            remember(self._tool)
        # Nothing follows the answer, so the response ends with it.
        body = b"id: %b\r\n%b" % (event_id.encode(), event(dumped))
        await self._write({"type": "http.response.body", "body": body, "more_body": not last})
        if last:
            self._finish()

    async def _write(self, message: Message) -> None:
        if self._send is None:
            return
        try:
            await self._send(message)
        except Exception as error:
            # It must not become the failure of the request, which goes on: its client can ask for the answer.
            log.debug("gateway.response_not_sent", error=repr(error))
            self._finish()

    def _finish(self) -> None:
        # It stays among what is due for a while, and must not keep the request in memory until then.
        self._send = None
        self._kept = []
        if self._waiting is not None:
            self._waiting.cancel()


class Due(Protocol):
    """A response that has something to do when its time has come."""

    due: float
    """When, on the loop's clock."""

    @property
    def over(self) -> bool:
        """There is nothing more to do."""

    async def tick(self) -> None:
        """Do it."""


class Releases:
    """Does what responses have due: one task for all of them.

    Otherwise each call would start a task and a timer, and nearly all of them would be cancelled unused.
    """

    def __init__(self) -> None:
        self._turns: dict[int, list[Due]] = {}
        self._added = anyio.Event()

    def add(self, response: Due) -> None:
        """Do what it has due when its time has come."""
        if not self._turns:
            self._added.set()
        self._turns.setdefault(ceil(response.due / TURN), []).append(response)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Releases]:
        """Look at what is due for as long as the block runs."""
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
            soonest = anyio.current_time() + SOONEST
            await anyio.sleep_until(min(turn * TURN, soonest))
            if turn * TURN > soonest:
                continue
            for response in self._turns.pop(turn):
                if response.over:
                    continue
                if response.due > turn * TURN:
                    self.add(response)
                else:
                    # In a task of its own, because a client that reads slowly makes it wait.
                    group.start_soon(self._tick, response)

    async def _tick(self, response: Due) -> None:
        await response.tick()
        if not response.over:
            self.add(response)
