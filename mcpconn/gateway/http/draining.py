"""The shutdown of an HTTP server: no request that was written before its connection was closed is lost.

uvicorn closes idle sockets as soon as it stops. A request that is already in the socket's buffer gets a reset, and its
client does not know whether it ran. Here an idle connection stays open for a while: the next request on it is served,
with `Connection: close` in the answer. A connection that stays idle is closed for writing only when its buffer is
empty, and requests that arrive after that are counted.
"""

from __future__ import annotations

import select
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from mcpconn.gateway.http.sockets import GuardedProtocol, SocketLimits

IDLE = 10.0
"""Seconds after SIGTERM for which an idle connection may still bring a request. Active clients send one within seconds;
others open another connection."""
LINGER = 1.0
"""Seconds for which a connection that was closed for writing is still read, to count late requests."""
LOOK_AGAIN = 0.05
"""Seconds until a connection is looked at again that has something to read."""


class Drain:
    """The progress of the shutdown."""

    def __init__(self, idle: float = IDLE) -> None:
        """
        Args:
            idle: Seconds for which an idle connection stays open once the end has begun.
        """
        self.begun = False
        self.idle = idle
        self.late = 0
        """Connections on which something came after they had been closed."""
        self.served = 0
        """Requests that were answered since the end began."""

    def begin(self, idle: float | None = None) -> None:
        """The end begins. Connections are told by uvicorn."""
        self.begun = True
        if idle is not None:
            self.idle = idle

    def says_close(self, app: ASGIApp) -> ASGIApp:
        """`app`, whose answers say `Connection: close` from the beginning of the end on."""

        async def closing(scope: Scope, receive: Receive, send: Send) -> None:
            async def told(message: Message) -> None:
                if self.begun and message["type"] == "http.response.start":
                    self.served += 1
                    kept = [pair for pair in message.get("headers", ()) if pair[0].lower() != b"connection"]
                    message = {**message, "headers": [*kept, (b"connection", b"close")]}
                await send(message)

            await app(scope, receive, told if scope["type"] == "http" else send)

        return closing

    def protocol(self, limits: SocketLimits | None = None) -> type[H11Protocol]:
        """uvicorn's protocol, with this end.

        Args:
            limits: How many connections there may be, and how slow each.
        """
        return type("DrainingProtocol", (_Protocol,), {"drain": self, "limits": limits or SocketLimits()})


class _Protocol(GuardedProtocol):
    drain: Drain
    _shut = False
    """This side is closed for writing."""

    def shutdown(self) -> None:
        # A response that has begun says nothing of the end, so its connection is as good as an idle one afterwards.
        if self._is_idle():
            self._end_later(self.drain.idle)

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.drain.begun and not self.transport.is_closing():
            self._end_later(self.drain.idle)

    def data_received(self, data: bytes) -> None:
        if self._shut:
            self.drain.late += 1
            self.transport.close()
            return
        super().data_received(data)

    def _end_later(self, seconds: float) -> None:
        self._unset_keepalive_if_required()
        self.timeout_keep_alive_task = self.loop.call_later(seconds, self._end)

    def timeout_keep_alive_handler(self) -> None:
        # The same at the end of an idle connection's time while the process goes on serving.
        self._end()

    def _end(self) -> None:
        """Close for writing, unless a request has come meanwhile or is in the buffer."""
        if self.transport.is_closing() or not self._is_idle():
            return
        if _readable(self.transport):
            self._end_later(LOOK_AGAIN)
            return
        self._shut = True
        if self.transport.can_write_eof():
            self.transport.write_eof()
            self.loop.call_later(LINGER, self.transport.close)
        else:
            self.transport.close()


def _readable(transport: Any) -> bool:
    """Whether there is something in the socket's buffer that has not been read. The other side's end counts as none."""
    socket = transport.get_extra_info("socket")
    if socket is None or socket.fileno() < 0:
        return False
    poll = select.poll()
    poll.register(socket.fileno(), select.POLLIN | select.POLLRDHUP)
    events = poll.poll(0)
    return bool(events) and not events[0][1] & (select.POLLRDHUP | select.POLLHUP | select.POLLERR)
