"""Clients that hold a socket and do little with it: how many there may be, and how slow each may be.

uvicorn has one limit for this, `limit_concurrency`. Once it is reached, uvicorn answers 503 to every request on every
connection, so that a crowd of idle sockets locks out the clients that are already connected. Here only the connection
that is one too many is refused, and those that were accepted before it are served.

A client that sends half a request head, or that does not read its answer, would otherwise keep its socket, and what is
buffered for it, for as long as it likes. uvicorn has no time limit for either.
"""

from __future__ import annotations

import asyncio
import json
import socket
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle

from mcpconn.gateway.http.joined import JoinedWrites
from mcpconn.observe import log

CONNECTIONS = 20_000
"""Connections at once. A session has two: its stream and its calls."""
HEAD_PATIENCE = 30.0
"""Seconds for a request's head to arrive once its first byte is there. It is 64 KiB at most, and usually one packet."""
SLOW_PATIENCE = 60.0
"""Seconds between two looks at what a slow reader has taken."""
SLOW_BYTES = 16 * 1024
"""Bytes that a reader has to take between two looks, 273 a second: a tenth of what a modem of 1994 did. A socket that
was paused at asyncio's high-water mark of 64 KiB resumes at 16 KiB, so this is seen three times before that."""
UNREAD = 48 * 1024 * 1024
"""Bytes that may wait for all slow readers together. The system takes up to 4 MB of an answer (Linux's `tcp_wmem`), and
until its last byte was written what it was made from is referenced: the message, its JSON and its event. With 20
answers of 8 MB, each byte that waited here stood for seven in memory."""
LINGER = 1.0
"""Seconds for which a refused connection is kept, so that its client can read why. Closing a socket that has unread
input resets it, and the answer would be lost."""
LINGERING = 256
"""Refused connections that are kept for `LINGER` at once. Any more are reset without an answer."""
RETRY_AFTER = 5
"""Seconds after which a refused client may try again."""


@dataclass
class SocketLimits:
    """The limits of one listener, and what counts towards them now."""

    connections: int = CONNECTIONS
    """Connections at once."""
    head_patience: float = HEAD_PATIENCE
    """Seconds for a request's head to arrive."""
    slow_patience: float = SLOW_PATIENCE
    """Seconds between two looks at a slow reader."""
    slow_bytes: int = SLOW_BYTES
    """Bytes that a slow reader has to take between two looks."""
    unread: int = UNREAD
    """Bytes that may wait for all slow readers together."""
    refused: int = 0
    """Connections that were one too many."""
    cut: int = 0
    """Connections that were cut because their client did not read, or did not finish a request's head."""
    lingering: int = 0
    """Refused connections that are kept until their client has read why."""
    paused: dict[Any, None] = field(default_factory=dict)
    """Connections with more to write than their client takes, the one that waits longest first."""


class GuardedProtocol(H11Protocol):
    """uvicorn's protocol, with these limits."""

    limits: SocketLimits
    _refused = False
    _head_timer: asyncio.TimerHandle | None = None
    _slow_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.transport = JoinedWrites(transport, self.loop)
        _send_at_once(transport)
        if len(self.connections) > self.limits.connections:
            self._refuse()
            return
        # uvicorn begins to count an idle connection's time after its first answer, so one that never asks stayed open.
        self.timeout_keep_alive_task = self.loop.call_later(self.timeout_keep_alive, self.timeout_keep_alive_handler)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._refused:
            self.limits.lingering -= 1
        self._stop_head_timer()
        self._stop_slow_timer()
        super().connection_lost(exc)
        # Without an exception uvicorn does it; with one the timer would keep the connection's memory until it fires.
        self._unset_keepalive_if_required()

    # -- one too many

    def _refuse(self) -> None:
        """Say why, and close; what was accepted before goes on."""
        self._refused = True
        self.limits.refused += 1
        # It does not count as one of those that are served.
        self.connections.discard(self)
        self.limits.lingering += 1
        if self.limits.lingering > LINGERING:
            self.transport.abort()
            return
        self._say(503, "Service Unavailable", "Too many connections are open", f"retry-after: {RETRY_AFTER}\r\n")

    def _say(self, status: int, phrase: str, text: str, more: str = "") -> None:
        """Answer in place of the application, and close once the client could read it."""
        body = json.dumps({"jsonrpc": "2.0", "id": None, "error": {"code": -32600, "message": text}})
        head = f"HTTP/1.1 {status} {phrase}\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n"
        self.transport.write(f"{head}{more}connection: close\r\n\r\n{body}".encode())
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self.loop.call_later(LINGER, self.transport.abort)

    # -- a head that does not come to its end

    def data_received(self, data: bytes) -> None:
        if self._refused:
            return
        super().data_received(data)
        self._watch_head()

    def _watch_head(self) -> None:
        if self.conn.their_state is not h11.IDLE or not self.conn.trailing_data[0] or not self._is_idle():
            self._stop_head_timer()
        elif self._head_timer is None:
            self._head_timer = self.loop.call_later(self.limits.head_patience, self._head_is_late)

    def _head_is_late(self) -> None:
        self._head_timer = None
        if self.transport.is_closing():
            return
        self.limits.cut += 1
        self._refused = True
        self.limits.lingering += 1
        self.connections.discard(self)
        text = f"The request's head did not arrive within {self.limits.head_patience:g} s"
        self._say(408, "Request Timeout", text)

    def _stop_head_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _is_idle(self) -> bool:
        # uvicorn's annotation leaves out that there is no cycle before the first request.
        cycle: RequestResponseCycle | None = self.cycle
        return cycle is None or cycle.response_complete

    # -- an answer that is not read

    def pause_writing(self) -> None:
        # asyncio calls this when more than its high-water mark waits for the client.
        super().pause_writing()
        self.limits.paused[self] = None
        self._look_later()
        self._make_room()

    def resume_writing(self) -> None:
        self._stop_slow_timer()
        super().resume_writing()

    def _make_room(self) -> None:
        """Cut those that have waited longest, until no more waits for all of them than may."""
        waiting = {each: each.transport.get_write_buffer_size() for each in self.limits.paused}
        total = sum(waiting.values())
        for each, size in waiting.items():
            if total <= self.limits.unread:
                return
            total -= size
            each.cut_off("too much waits for all slow readers")

    def _look_later(self) -> None:
        waiting = self.transport.get_write_buffer_size()
        self._slow_timer = self.loop.call_later(self.limits.slow_patience, self._look, waiting)

    def _look(self, before: int) -> None:
        # Nothing is added while writing is paused, so what is missing from the buffer was taken.
        if before - self.transport.get_write_buffer_size() >= self.limits.slow_bytes:
            self._look_later()
        else:
            self.cut_off(f"it read less than {self.limits.slow_bytes} bytes in {self.limits.slow_patience:g} s")

    def cut_off(self, reason: str) -> None:
        """Drop the connection and what waits for it. A session and its calls go on, as after any other cut."""
        self._stop_slow_timer()
        self.limits.cut += 1
        log.warning("gateway.reader_cut", reason=reason)
        self.transport.abort()

    def _stop_slow_timer(self) -> None:
        self.limits.paused.pop(self, None)
        if self._slow_timer is not None:
            self._slow_timer.cancel()
            self._slow_timer = None


def _send_at_once(transport: asyncio.Transport) -> None:
    """Switch Nagle's algorithm off, which holds a write back until the client has acknowledged the one before.

    A client acknowledges up to 40 ms late, so an answer in two writes took that long. asyncio does this itself only for
    sockets that were made with `proto=IPPROTO_TCP`; a socket of our own or a supervisor's, and what it accepts, has 0.
    """
    made = transport.get_extra_info("socket")
    if made is not None and made.family in (socket.AF_INET, socket.AF_INET6):
        with suppress(OSError):  # the client has gone already
            made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
