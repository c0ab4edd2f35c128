"""The go-ahead of a call: after it, and only after it, the call may have run.

A replica that forwards a call does not see how far the owner has come. If the owner is killed while the call still
waits for its server, the call did not run, but without a go-ahead this could not be determined, and its outcome would
be unknown. So the owner asks immediately before the call goes to the server, on the connection that the request came
on:

    owner                               replica that forwarded the call
    may it go out?  ----------------->  notes that the call may run from now on
    sends it to the server  <---------  yes

A forwarding replica that loses the owner before the question has arrived knows that the call did not run and, because
the owner waits for an answer that never comes, never will. It routes the call again. An owner that gets no answer does
not send the call. The round trip is made only for calls that are not safe to repeat.

A call that a client sent to its owner itself has a go-ahead, too, which is given locally: if the owner loses the
session before the call goes out, the call is routed again instead of being reported as unknown.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
from starlette.types import Message, Receive, Scope, Send

from mcpconn.gateway.fleet.membership import OwnershipLost

PATIENCE = 5.0
"""Seconds for the answer. It takes one round trip, unless the replica that forwarded the call is paused or cut off."""
YES = b"\x01"
"""The last byte of the request's body, sent when the question is answered."""
CONTENT_TYPE = b"application/vnd.mcpconn.forwarded"
"""Of an answer that consists of frames: the question has to go out before the client's answer has begun, or within
it."""
ASK, START, DATA, NOT_RUN = b"?", b"s", b"d", b"n"
"""Frames: the question; status and headers of the client's answer as JSON; a piece of its body; the owner lost the
session before the call went out."""
_HEAD = 5
"""Bytes of a frame's head: its kind, and the length of what follows."""
NOT_PASSED_ON = (
    "The answer to the question of this call was not passed on, because the replica of the gateway that received it is "
    "gone. It is not known whether the tool went on without it."
)
_KEY = "mcpconn.go_ahead"


class GoAhead:
    """The go-ahead of a call that needs no other replica."""

    def __init__(self) -> None:
        self.given = False
        """The call may have gone out."""
        self.withdrawn = False
        """The call did not go out, and will not."""
        self.lose: Callable[[], None] = _nothing
        """Ends the service of the request: the session was lost."""

    async def ask(self) -> None:
        """Return when the call may go out. Asking again, for a retry of the call, changes nothing.

        Raises:
            OwnershipLost: it may not.
        """
        if self.withdrawn:
            raise OwnershipLost
        self.given = True

    def withdraw(self) -> bool:
        """Keep the call from going out. Returns whether that succeeded; False: it may have gone out already."""
        self.withdrawn = not self.given
        return self.withdrawn

    def take_back(self) -> None:
        """The session was lost before the call went out, whether the go-ahead was given or not: it does not go out."""
        if not self.withdrawn:
            self.given, self.withdrawn = False, True
            self.lose()


def _nothing() -> None:
    """The request is not served."""


class AskedGoAhead(GoAhead):
    """The go-ahead of a call that another replica has forwarded, and that the other replica gives."""

    def __init__(self, question: Callable[[], Awaitable[None]]) -> None:
        """
        Args:
            question: Sends the question.
        """
        super().__init__()
        self._question = question
        self._answered = anyio.Event()
        self._yes = False

    def answer(self, yes: bool) -> None:
        """The other replica has answered, or is gone. Only the first answer counts."""
        if not self._answered.is_set():
            self._yes = yes
            self._answered.set()

    async def ask(self) -> None:
        if not (self.given or self.withdrawn):
            if not self._answered.is_set():
                await self._question()
            with anyio.move_on_after(PATIENCE):
                await self._answered.wait()
            if not self._yes:
                # Also when time is up: an answer that comes later must not count.
                self.withdrawn = True
        await super().ask()


def put_go_ahead(scope: Scope, go_ahead: GoAhead) -> None:
    """Leave a request's go-ahead in its ASGI scope, for the handlers behind."""
    scope[_KEY] = go_ahead


async def ask_go_ahead(request: Any, *, refused: Callable[[str], Exception] | None = None) -> None:
    """Await the go-ahead of a request, if it has one. To be called immediately before it goes out.

    Args:
        request: The HTTP request; None over stdio.
        refused: Makes the error that is raised instead of `OwnershipLost`.

    Raises:
        OwnershipLost: it may not go out.
    """
    go_ahead = None if request is None else request.scope.get(_KEY)
    try:
        if go_ahead is not None:
            await go_ahead.ask()
    except OwnershipLost as error:
        if refused is None:
            raise
        raise refused(NOT_PASSED_ON) from error


def take_back_go_ahead(request: Any) -> None:
    """As `GoAhead.take_back`, for a request that may have none."""
    go_ahead = None if request is None else request.scope.get(_KEY)
    if go_ahead is not None:
        go_ahead.take_back()


def frame(kind: bytes, content: bytes = b"") -> bytes:
    """A frame."""
    return kind + len(content).to_bytes(_HEAD - 1, "big") + content


class Frames:
    """Takes frames out of the pieces in which they arrive."""

    def __init__(self) -> None:
        self._held = bytearray()

    def feed(self, data: bytes) -> None:
        """More has arrived."""
        self._held += data

    def next(self) -> tuple[bytes, bytes] | None:
        """The next frame: its kind and content. None: it is not complete yet."""
        if len(self._held) < _HEAD:
            return None
        end = _HEAD + int.from_bytes(self._held[1:_HEAD], "big")
        if len(self._held) < end:
            return None
        found = bytes(self._held[:1]), bytes(self._held[_HEAD:end])
        del self._held[:end]
        return found


class FramedAnswer:
    """Sends an answer as frames; an ASGI `send`."""

    def __init__(self, send: Send) -> None:
        """
        Args:
            send: Takes the answer that holds the frames.
        """
        self._send = send
        # The question comes from another task than the answer.
        self._lock = anyio.Lock()
        self._over = False

    async def begin(self) -> None:
        """Send the head of the answer that holds the frames."""
        await self._send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", CONTENT_TYPE)]})

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            head = {
                "status": message["status"],
                "headers": [[name.decode("latin-1"), value.decode("latin-1")] for name, value in message["headers"]],
            }
            await self._put(frame(START, json.dumps(head).encode()))
        elif message["type"] == "http.response.body":
            body = message.get("body", b"")
            await self._put(frame(DATA, body) if body else b"", last=not message.get("more_body"))

    async def ask(self) -> None:
        """Send the question. After the end of the answer the other replica no longer listens, and nothing is sent."""
        await self._put(frame(ASK))

    async def not_run(self) -> None:
        """End the answer: the call did not run, and will not."""
        await self._put(frame(NOT_RUN), last=True)

    async def _put(self, data: bytes, *, last: bool = False) -> None:
        async with self._lock:
            if self._over:
                return
            self._over = last
            if data or last:
                await self._send({"type": "http.response.body", "body": data, "more_body": not last})


class AnsweringBody:
    """The body of a forwarded request, and behind it the answer to the question."""

    def __init__(self, receive: Receive, length: int) -> None:
        """
        Args:
            receive: The request's, of which nothing was received yet.
            length: Bytes of the body without the answer.
        """
        self._receive = receive
        self._left = length
        self._early = b""
        self._gone = anyio.Event()

    async def body(self) -> Message:
        """A `receive` for the body alone."""
        message = await self._receive()
        if message["type"] != "http.request":
            return message
        data: bytes = message.get("body", b"")
        body, self._early = data[: self._left], data[self._left :]
        self._left -= len(body)
        return {"type": "http.request", "body": body, "more_body": self._left > 0}

    async def rest(self) -> Message:
        """A `receive` for what follows the body: the other replica's end of the connection."""
        await self._gone.wait()
        return {"type": "http.disconnect"}

    async def watch(self, go_ahead: AskedGoAhead) -> None:
        """Give the answer to `go_ahead` when it arrives, or when the connection is gone."""
        data = self._early
        while True:
            if data[:1] == YES:
                go_ahead.answer(True)
            message = await self._receive()
            if message["type"] == "http.disconnect":
                break
            data = message.get("body", b"")
        go_ahead.answer(False)
        self._gone.set()
