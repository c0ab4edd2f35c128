"""The server's side of one HTTP/1.1 connection, over any byte stream."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Protocol

import anyio

from mcpconn.testing.scripted.script import Script
from mcpconn.testing.scripted.steps import Close, Feed, Follow, Hang, Raw, Reply, Reset, Send, Sleep

if TYPE_CHECKING:
    import h11


class _GoneError(Exception):
    """The connection has ended, by either side."""


class Peer(Protocol):
    """The other end of a connection, as a server sees it."""

    async def receive(self) -> bytes:
        """What has arrived; b"" if the other end has closed. Raises OSError if it has reset the connection."""

    async def send(self, data: bytes) -> None:
        """Send all of it. Raises OSError if the other end is gone."""

    def arm_reset(self) -> None:
        """Have `close` reset the connection."""

    def close(self) -> None:
        """End the connection."""


class Conversation:
    """One accepted connection and the requests that arrive on it."""

    def __init__(self, peer: Peer, script: Script) -> None:
        # Imported late, because `mcpconn.testing` imports this module, and few users serve anything.
        global h11
        import h11

        self.scope = anyio.CancelScope()
        self.closed = anyio.Event()
        self._peer = peer
        self._script = script
        self._http = h11.Connection(h11.SERVER)

    async def run(self) -> None:
        """Serve requests until either side ends the connection; a cancelled connection is reset."""
        try:
            with self.scope:
                try:
                    while await self._serve_one():
                        pass
                except (_GoneError, OSError, h11.RemoteProtocolError):
                    return
                except BaseException:
                    self._peer.arm_reset()
                    raise
        finally:
            self._peer.close()
            self.closed.set()

    async def _serve_one(self) -> bool:
        """Serve one request; whether the connection can be used again."""
        request = await self._next_event()
        if not isinstance(request, h11.Request):
            return False
        body = bytearray()
        while not isinstance(event := await self._next_event(), h11.EndOfMessage):
            if not isinstance(event, h11.Data):
                return False
            body += event.data
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in request.headers}
        reply = self._script.decide(request.method.decode("ascii"), headers, bytes(body))
        try:
            raw = await self._play(reply)
        finally:
            reply.close_steps()
        if raw:
            # The raw bytes bypassed this side's parser, so a new one starts with what the client has sent since.
            waiting, _ = self._http.trailing_data
            self._http = h11.Connection(h11.SERVER)
            if waiting:
                self._http.receive_data(waiting)
            return True
        if self._http.our_state is not h11.DONE or self._http.their_state is not h11.DONE:
            return False
        self._http.start_next_cycle()
        return True

    async def _next_event(self) -> object:
        while (event := self._http.next_event()) is h11.NEED_DATA:
            self._http.receive_data(await self._peer.receive())
        return event

    async def _play(self, reply: Reply) -> bool:
        """Take the steps of a reply; whether it was sent as raw bytes. Raises `_GoneError` when the connection ends."""
        begun = raw = False
        for step in reply.steps:
            if isinstance(step, Raw):
                raw = True
                if not (step.unasked and self._http.trailing_data[0]):
                    await self._peer.send(step.data)
            elif isinstance(step, Send):
                if not begun:
                    begun = True
                    await self._begin(reply)
                await self._send(h11.Data(data=step.data))
            elif isinstance(step, Sleep):
                await self._until(_sleeper(step.seconds))
            elif isinstance(step, Hang):
                await self._until(anyio.sleep_forever)
            elif isinstance(step, Follow):
                await self._follow(step.feed)
            elif isinstance(step, Reset):
                self._peer.arm_reset()
                raise _GoneError
            elif isinstance(step, Close):
                raise _GoneError
        if raw:
            return True
        if not begun:
            await self._begin(reply)
        await self._send(h11.EndOfMessage())
        return False

    async def _begin(self, reply: Reply) -> None:
        if reply.status is None:
            raise _GoneError
        await self._send(h11.Response(status_code=reply.status, headers=list(reply.headers)))

    async def _follow(self, feed: Feed) -> None:
        """Forward what a feed receives until it is closed."""
        while True:
            changed = anyio.Event()
            feed.wake = changed.set
            while feed.pending:
                await self._send(h11.Data(data=feed.pending.popleft()))
            if feed.closed:
                return
            if not changed.is_set():
                await self._until(changed.wait)

    async def _until(self, wait: Callable[[], Awaitable[object]]) -> None:
        """Wait for something, but only as long as the client stays connected."""
        gone = False

        async def watch(scope: anyio.CancelScope) -> None:
            nonlocal gone
            try:
                while data := await self._peer.receive():
                    # A pipelined request waits until this one is answered.
                    self._http.receive_data(data)
            except OSError:
                pass
            gone = True
            scope.cancel()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(watch, tasks.cancel_scope)
            await wait()
            tasks.cancel_scope.cancel()
        if gone:
            raise _GoneError

    async def _send(self, event: h11.Event) -> None:
        await self._peer.send(self._http.send(event) or b"")


def _sleeper(seconds: float) -> Callable[[], Awaitable[None]]:
    return lambda: anyio.sleep(seconds)
