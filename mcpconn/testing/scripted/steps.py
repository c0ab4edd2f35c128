"""What a scripted server does with one exchange, as data: steps, replies and event streams.

Nothing here performs I/O. A `Reply` is played by `HttpServer` over a socket, by
`ScriptTransport` inside the process, or by the stdio server over a pipe. Only the standard
library is used, so the stdio server starts fast.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

Message = dict[str, Any]
"""One decoded JSON-RPC message."""

CHUNK = 64 * 1024
"""Size of the pieces in which large scripted bodies are produced."""


@dataclass(frozen=True)
class Send:
    """Send body bytes. The first `Send` also sends the status line and headers, even when empty."""

    data: bytes


@dataclass(frozen=True)
class Raw:
    """Put bytes on the socket unchanged, in one piece.

    A reply that has such a step sends no status line of its own; the bytes stand for all of the response, and for
    whatever follows it. Only players with a socket, real or in memory, can do this.
    """

    data: bytes
    unasked: bool = False
    """Skipped if another request has arrived meanwhile, because a client could not distinguish these bytes from its
    answer."""


@dataclass(frozen=True)
class Sleep:
    """Wait this many seconds before the next step."""

    seconds: float


@dataclass(frozen=True)
class Reset:
    """Abort the connection: the peer gets a TCP reset and anything unsent is lost."""


@dataclass(frozen=True)
class Close:
    """Close the connection without ending the body, so the peer sees a truncated answer."""


@dataclass(frozen=True)
class Hang:
    """Stay silent until the peer gives up."""


class Feed:
    """The bytes still to be written to one open event stream."""

    def __init__(self) -> None:
        self.pending: deque[bytes] = deque()
        self.closed = False
        self.graceful = False
        self.wake: Callable[[], None] = _nothing
        """Called after every change; the player waiting on this feed sets it."""

    def push(self, data: bytes) -> None:
        """Queue bytes for the stream."""
        self.pending.append(data)
        self.wake()

    def close(self, *, graceful: bool = False) -> None:
        """End the stream once the queued bytes are written."""
        self.closed = True
        self.graceful = graceful
        self.wake()


@dataclass(frozen=True)
class Follow:
    """Send whatever the feed receives until the feed is closed."""

    feed: Feed


Step = Send | Raw | Sleep | Reset | Close | Hang | Follow
"""One thing a server does while it answers."""


@dataclass(frozen=True)
class Reply:
    """The answer to one HTTP request.

    `steps` is lazy and played once: a tool runs at the moment the player asks for the step
    that depends on it, so a reply abandoned earlier has run nothing. Players call
    `close_steps` when they stop, which lets generators release what they hold.
    `status` is None when no status line will ever be sent.
    """

    status: int | None
    headers: tuple[tuple[str, str], ...] = ()
    steps: Iterable[Step] = field(default=())

    def close_steps(self) -> None:
        """Release the generator behind `steps`, if there is one."""
        close = getattr(self.steps, "close", None)
        if close is not None:
            close()


@dataclass(frozen=True)
class Verbatim:
    """A message of the server that is sent as exactly these bytes."""

    data: bytes


def _nothing() -> None:
    """Do nothing: the wake-up of a feed without a reader."""


def encode(message: object) -> bytes:
    """Serialise one JSON value compactly."""
    return json.dumps(message, separators=(",", ":")).encode()


def sse_event(data: bytes, *, event_id: str = "", retry_ms: int | None = None) -> bytes:
    """Frame one server-sent event."""
    lines = [b"event: message"]
    if event_id:
        lines.append(f"id: {event_id}".encode())
    if retry_ms is not None:
        lines.append(f"retry: {retry_ms}".encode())
    lines.append(b"data: " + data if data else b"data:")
    return b"\r\n".join(lines) + b"\r\n\r\n"


def result_message(request_id: object, result: Mapping[str, Any]) -> Message:
    """A successful JSON-RPC response."""
    return {"jsonrpc": "2.0", "id": request_id, "result": dict(result)}


def error_message(request_id: object, code: int, message: str, data: object = None) -> Message:
    """A JSON-RPC error response."""
    error: Message = {"code": code, "message": message}
    if data is not None:
        error["data"] = data
    return {"jsonrpc": "2.0", "id": request_id, "error": error}


def error_reply(
    status: int,
    request_id: object,
    code: int,
    message: str,
    data: object = None,
    headers: Mapping[str, str] | None = None,
) -> Reply:
    """A JSON-RPC error as a complete HTTP answer."""
    body = encode(error_message(request_id, code, message, data))
    return body_reply(status, body, "application/json", headers)


def body_reply(status: int, body: bytes, content_type: str | None, headers: Mapping[str, str] | None = None) -> Reply:
    """A complete HTTP answer whose body is known in advance."""
    head = [("content-length", str(len(body)))]
    if content_type is not None:
        head.append(("content-type", content_type))
    head.extend((headers or {}).items())
    return Reply(status, tuple(head), (Send(body),))


def quiet(steps: Iterable[Step]) -> Iterator[Step]:
    """The same steps with everything that would reach the peer left out."""
    for step in steps:
        if isinstance(step, Sleep):
            yield step
