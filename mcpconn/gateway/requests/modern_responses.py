"""Responses to requests of modern clients that ask for nothing before their answer: no progress, no log messages.

For every request the SDK's server starts two tasks and a queue, to write a stream if something comes before the answer
and to see its client go. Nothing comes before these answers, so they are served without either. If one takes long, it
is watched, and becomes a stream that shows proxies that it goes on, as the SDK's does after as many seconds.
"""

from __future__ import annotations

import anyio
from mcp_types import LOG_LEVEL_META_KEY
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mcpconn.gateway.fleet.replies import event
from mcpconn.gateway.http.asgi import header
from mcpconn.gateway.requests.large import RESPONSE_KEY, Noticed
from mcpconn.gateway.requests.large_tools import LARGE, remember
from mcpconn.gateway.requests.responses import PING, STREAM, Releases
from mcpconn.observe import log

WATCHED = 0.25
"""Seconds after which a response is watched: its client's end cancels the request. Nearly all have ended by then."""
EARLY = (b'"progressToken"', LOG_LEVEL_META_KEY.encode(), b'"subscriptions/listen"', b"\\u")
"""What a body contains if something may come before its answer. (The last: any of the others may be written so.)"""


def says_nothing_early(scope: Scope, body: bytes) -> bool:
    """Whether a request asks for nothing before its answer, and takes a stream if that comes late."""
    return "text/event-stream" in (header(scope, b"accept") or "") and not any(each in body for each in EARLY)


class ModernResponse:
    """The response to one such request."""

    def __init__(self, receive: Receive, send: Send, releases: Releases) -> None:
        """
        Args:
            receive: The request's.
            send: Takes the response.
            releases: Has it watched when it is due.
        """
        self._receive = receive
        self._send = send
        self._lock = anyio.Lock(fast_acquire=True)
        self._running = anyio.CancelScope()
        self._watching: anyio.CancelScope | None = None
        self._streams = False
        self._noticed = Noticed()
        self._began = anyio.current_time()
        self.over = False
        self.due = self._began + WATCHED
        releases.add(self)

    async def run(self, app: ASGIApp, scope: Scope) -> None:
        """Serve the request. Returns early if its client goes.

        Args:
            app: Answers with JSON, and reads no more than the body.
            scope: The request's ASGI scope.
        """
        try:
            with self._running:
                await app({**scope, RESPONSE_KEY: self._noticed}, self._receive, self._write)
        finally:
            self._finish()
            # It stays among what is due for a while, and must not keep the request's body until then.
            del self._receive, self._send

    async def tick(self) -> None:
        """Its time has come: watch it until it is over."""
        if self.over:
            return
        receive = self._receive
        with anyio.CancelScope() as self._watching:
            async with anyio.create_task_group() as group:
                group.start_soon(self._ping)
                while (await receive())["type"] != "http.disconnect":
                    pass
                self._running.cancel()
                group.cancel_scope.cancel()

    async def _ping(self) -> None:
        at = self._began
        try:
            while True:
                at += PING
                await anyio.sleep_until(at)
                async with self._lock:
                    if not self._streams:
                        self._streams = True
                        await self._send({"type": "http.response.start", "status": 200, "headers": [*STREAM]})
                    await self._send({"type": "http.response.body", "body": b": ping\r\n\r\n", "more_body": True})
        except Exception as error:
            # It must not end the task that ticks for all responses. This client has gone.
            log.debug("gateway.response_not_sent", error=repr(error))
            self._running.cancel()

    async def _write(self, message: Message) -> None:
        async with self._lock:
            # No stream may begin between a head and its body, and no ping may follow the answer.
            self._finish()
            if not self._streams:
                await self._send(message)
            elif message["type"] == "http.response.body":
                # All of the answer: the SDK's server does not send one in parts.
                if len(message["body"]) > LARGE:
                    remember(self._noticed.tool)
                await self._send({"type": "http.response.body", "body": event(message["body"])})

    def _finish(self) -> None:
        self.over = True
        if self._watching is not None:
            self._watching.cancel()
