"""One socket, with the state of HTTP/1.1 on it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import anyio
import h11
import httpx2
from anyio.lowlevel import checkpoint, checkpoint_if_cancelled

from mcpconn.wire.engine.channel import READ_SIZE, Channel, either, is_clean
from mcpconn.wire.engine.connect import Origin
from mcpconn.wire.fairness import TinyChunks, Turns
from mcpconn.wire.reasons import protocol_reason

HEAD_LIMIT = 100 * 1024
"""Maximum bytes of a response's head, or of one chunk's header, as in httpcore2."""
INFORMATIONAL_LIMIT = 100
"""Maximum number of 1xx responses before the final one. RFC 9110, 15.2, sets no limit; a server that never sends the
final one would keep the parser busy indefinitely."""

Timeouts = dict[str, float | None]
"""httpx2's: `connect`, `read` and `write`, in seconds; None for no limit."""


class HttpSocket:
    """A channel to one origin, used for one request after another."""

    __slots__ = (
        "_chunks",
        "_failure",
        "_http",
        "_mark",
        "_premature",
        "_read_timeout",
        "_response",
        "_spent",
        "_turns",
        "channel",
        "heard",
        "idle_since",
        "origin",
        "used",
    )

    def __init__(self, channel: Channel, origin: Origin) -> None:
        self.channel = channel
        self.origin = origin
        self.used = 0
        """Requests that were answered on it."""
        self.idle_since = 0.0
        """When the last of them was answered."""
        self.heard = False
        """Whether a byte of the current request's response has arrived."""
        self._http = h11.Connection(h11.CLIENT, max_incomplete_event_size=HEAD_LIMIT)
        self._spent = False
        """Whether it cannot be reused, regardless of the parser's state."""
        self._mark = 0
        """The channel's count of sent bytes before the current request."""
        self._premature = False
        """The response was sent before the request had arrived."""
        self._response: h11.Response | None = None
        """The response's head, if it came while the request was still being written."""
        self._failure: httpx2.HTTPError | None = None
        """The error in the body after the bytes that were returned last."""
        self._read_timeout: float | None = None
        self._turns = Turns()
        self._chunks = TinyChunks()

    # -- between requests

    def is_clean(self) -> bool:
        """Whether nothing has arrived since the last response: neither bytes of another one nor the end.

        What has is lost by asking, so a socket that is not clean must be closed. Below h11 (see `recycle`) nothing
        is buffered but in TLS, which is read as well.
        """
        return is_clean(self.channel)

    def recycle(self, now: float) -> bool:
        """Prepare for the next request. False if the socket cannot be reused.

        It cannot be reused if either side is not done or will close, or if bytes followed the response: h11 would keep
        them across `start_next_cycle`, and interpret them as the next response.
        """
        http = self._http
        trailing, ended = http.trailing_data
        if self._spent or http.our_state is not h11.DONE or http.their_state is not h11.DONE or trailing or ended:
            return False
        # h11 resets both sides. It keeps buffered bytes, which is why trailing data was refused above.
        http.start_next_cycle()
        self.used += 1
        self.idle_since = now
        return True

    # -- a request

    async def exchange(
        self, request: httpx2.Request, body: bytes, timeout: Timeouts, writing: Callable[[], Awaitable[None]]
    ) -> h11.Response:
        """Send a request; return the head of its response.

        Args:
            request: Its method, target and headers.
            body: All of its body.
            timeout: Seconds that may pass without progress.
            writing: Awaited before the first byte is sent.

        Raises:
            httpx2.LocalProtocolError: It cannot be sent. Nothing was written.
            httpx2.TransportError: There is no trustworthy response. Something may have been written.
        """
        # Head and body are encoded together before anything is sent, so that errors are detected while it is certain
        # that nothing was sent.
        data = self._serialised(request, body)
        self.heard = self._premature = False
        self._response = self._failure = None
        self._read_timeout = timeout.get("read")
        self._chunks = TinyChunks()
        # If the call is cancelled before anything is sent, it certainly has not run.
        await checkpoint_if_cancelled()
        # From here on the record says "written": slightly too early is safe, slightly too late is not.
        await writing()
        # The position in the byte stream where this request begins (see `_hear`).
        self._mark = self.channel.sent
        # The parser does not know if not everything was written.
        self._spent = not await self._write(data, timeout.get("write"))
        suspect = False
        if self.used and not self.heard and self._take_nowait():
            # Usually a server takes longer to answer than the write takes to return. Without other evidence (see
            # `_hear`), a refusal that is already here is not trusted.
            suspect = self._acknowledged() is None
        response = await self._head()
        if self._premature or (suspect and response.status_code >= 300):
            raise httpx2.RemoteProtocolError(
                f"HTTP {response.status_code} was sent before the request had arrived: it is an earlier request's"
            )
        # A success is trusted, but the socket is still not reused.
        self._spent = self._spent or suspect
        return response

    def _hear(self, data: bytes) -> None:
        """Pass received data to the parser.

        A response acknowledges the request that it answers, at the latest in the same TCP segment. If response bytes
        are here but no byte of the request has been acknowledged, they were sent before the request arrived. On a
        socket that has had a response before, they are left over from an earlier request and do not concern this one.
        (On a fresh socket there is no earlier request, and a server may refuse the connection itself.)
        """
        if data and not self.heard:
            self.heard = True
            self._premature = self.used > 0 and self._acknowledged() is False
        self._http.receive_data(data)

    def _acknowledged(self) -> bool | None:
        """Whether the server's system has received any byte of the current request. None if unknown."""
        return self.channel.acknowledged_since(self._mark)

    def _serialised(self, request: httpx2.Request, body: bytes) -> bytes:
        http = self._http
        try:
            head = h11.Request(method=request.method, target=request.url.raw_path, headers=request.headers.raw)
            parts = [http.send(head)]
            if body:
                parts.append(http.send(h11.Data(data=body)))
            parts.append(http.send(h11.EndOfMessage()))
        except h11.LocalProtocolError as error:
            raise httpx2.LocalProtocolError(protocol_reason(error)[0]) from None
        return b"".join(part for part in parts if part)

    async def _write(self, data: bytes, timeout: float | None) -> bool:
        """Write until everything is sent, or the server has refused the request or stopped reading.

        A server that refuses a large request answers before it has read it, and closes. Further writes would cause a
        reset, which could overtake the answer.

        Returns:
            Whether everything was written.
        """
        # Without copies, because a request may be as large as its arguments.
        rest = memoryview(data)
        try:
            while True:
                rest = rest[self.channel.send_nowait(rest) :]
                if self.channel.flush_nowait() and not rest:
                    return True
                if self._response is None and (arrived := self._take_nowait()) is not None:
                    if not arrived or self._refused():
                        return False
                    continue
                with _within(timeout, httpx2.WriteTimeout, "the request could not be written"):
                    await self._until_something_happens()
        except OSError:
            # Data that the server sent before it closed can still be read.
            return False
        except anyio.ClosedResourceError:
            raise httpx2.WriteError("the socket was closed on this side") from None

    def _take_nowait(self) -> bytes | None:
        """Pass received data to the parser, without waiting.

        Returns:
            The data; None if there is none, b"" if the server has closed, which is detected again when the response is
            read.
        """
        try:
            data = self.channel.receive_nowait()
        except OSError:
            return b""
        if data:
            self._hear(data)
        return data

    def _refused(self) -> bool:
        """Whether the data received so far shows that the server does not need the rest of the request."""
        while self._response is None:
            event = self._next_event()
            if event is h11.NEED_DATA:
                return False
            if not isinstance(event, (h11.Response, h11.InformationalResponse)):
                return True
            if isinstance(event, h11.Response):
                self._response = event
        return self._response.status_code >= 300

    async def _until_something_happens(self) -> None:
        """Return when more can be written, or data has arrived."""
        if self._response is not None:
            # It is not a refusal. Its rest is read after everything is written.
            await self.channel.writable()
            return
        await either(self.channel)

    # -- its response

    async def _head(self) -> h11.Response:
        if self._response is not None:
            return self._response
        # Otherwise a server that sends 100 Continue endlessly would keep the call busy until its deadline.
        for _ in range(INFORMATIONAL_LIMIT):
            event = await self._event()
            if isinstance(event, h11.Response):
                return event
            if not isinstance(event, h11.InformationalResponse) or event.status_code == 101:
                raise httpx2.RemoteProtocolError("the server asks for a different protocol")
        raise httpx2.RemoteProtocolError(f"more than {INFORMATIONAL_LIMIT} informational responses")

    async def piece(self) -> bytes | None:
        """The next bytes of the body; data that has already arrived is combined. None at its end."""
        # The bytes before the error were returned first, because an answer may be complete without the rest.
        if self._failure is not None:
            raise self._failure
        if self._http.their_state is not h11.SEND_BODY:
            return None
        event = await self._event()
        pieces: list[bytes] = []
        size = 0
        # The parser's events are the server's chunks, which may consist of a single byte.
        while isinstance(event, h11.Data):
            pieces.append(bytes(event.data))
            size += len(event.data)
            try:
                self._chunks.count(len(event.data))
                if size >= READ_SIZE:
                    break
                event = self._next_event()
            except httpx2.HTTPError as error:
                # The data before it may be a complete answer.
                self._failure = error
                break
            if self._turns.over():
                await checkpoint()
        return b"".join(pieces) if pieces else None

    async def _event(self) -> Any:
        """The parser's next event; reads from the socket if necessary."""
        while (event := self._next_event()) is h11.NEED_DATA:
            data = await self._receive()
            if not data and self._http.their_state is h11.SEND_RESPONSE:
                raise httpx2.RemoteProtocolError("Server disconnected without sending a response.")
            self._hear(data)
        return event

    def _next_event(self) -> Any:
        try:
            return self._http.next_event()
        except h11.RemoteProtocolError as error:
            text, cause = protocol_reason(error)
            raise httpx2.RemoteProtocolError(text) from cause

    async def _receive(self) -> bytes:
        try:
            while (data := self.channel.receive_nowait()) is None:
                if self._read_timeout is None:
                    await self.channel.readable()
                else:
                    with _within(self._read_timeout, httpx2.ReadTimeout, "nothing was received"):
                        await self.channel.readable()
                self._turns.waited()
        except OSError as error:
            # Without a cause, because the end of a socket must not be classified as the end of a session.
            raise httpx2.ReadError(str(error) or type(error).__name__) from None
        except anyio.ClosedResourceError:
            raise httpx2.ReadError("the socket was closed on this side") from None
        if self._turns.over():
            await checkpoint()
        return data


@contextmanager
def _within(seconds: float | None, error: type[httpx2.TimeoutException], what: str) -> Iterator[None]:
    """Raise `error` if the block takes longer."""
    try:
        with anyio.fail_after(seconds):
            yield
    except TimeoutError:
        raise error(f"{what} within {seconds:g} s") from None
