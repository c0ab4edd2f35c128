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
"""Bytes of a response's head, or of one chunk's header. httpcore2's figure."""
INFORMATIONAL_LIMIT = 100
"""Responses 1xx before the final one. RFC 9110, 15.2, sets no limit; a server that never comes to the point would
keep the parser busy for ever."""

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
        """Whether a byte of the present request's response has come."""
        self._http = h11.Connection(h11.CLIENT, max_incomplete_event_size=HEAD_LIMIT)
        self._spent = False
        """It cannot be used for another request, whatever the parser says."""
        self._mark = 0
        """What the channel had sent before the present request."""
        self._premature = False
        """The response was sent before the request had arrived."""
        self._response: h11.Response | None = None
        """The response's head, if it came while the request was still being written."""
        self._failure: httpx2.HTTPError | None = None
        """What is wrong with the body behind the bytes that were handed over last."""
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
        """Make ready for the next request. False if the socket cannot be used again.

        It cannot if either side is not done, or wants to close, or if bytes followed the response: h11 would keep
        them over `start_next_cycle`, and take them for the next response.
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
            writing: Awaited before the first byte leaves.

        Raises:
            httpx2.LocalProtocolError: It cannot be sent. Nothing was written.
            httpx2.TransportError: There is no response that could be trusted. Something may have been written.
        """
        # Head and body in one piece, before anything leaves: what cannot be sent is found out while that is certain.
        data = self._serialised(request, body)
        self.heard = self._premature = False
        self._response = self._failure = None
        self._read_timeout = timeout.get("read")
        self._chunks = TinyChunks()
        # Cancelled before anything left, the call is certain not to have run.
        await checkpoint_if_cancelled()
        # The record says "written" from here on. It is a moment too early rather than a moment too late.
        await writing()
        # The position in the byte stream where this request begins (see `_hear`).
        self._mark = self.channel.sent
        # If not all was written, the parser does not know of it.
        self._spent = not await self._write(data, timeout.get("write"))
        suspect = False
        if self.used and not self.heard and self._take_nowait():
            # A server takes longer to answer than the write to return, as a rule. If no more is known (see
            # `_hear`), a refusal that is there by now is not believed.
            suspect = self._acknowledged() is None
        response = await self._head()
        if self._premature or (suspect and response.status_code >= 300):
            raise httpx2.RemoteProtocolError(
                f"HTTP {response.status_code} was sent before the request had arrived: it is an earlier request's"
            )
        # A success is believed, and the socket is still not used again.
        self._spent = self._spent or suspect
        return response

    def _hear(self, data: bytes) -> None:
        """Hand what has arrived to the parser.

        A response carries an acknowledgement of the request that it answers: both are in one TCP segment, at the
        latest. If the first bytes are here and nothing of the request has been acknowledged, they had been sent before
        the request arrived. On a socket that has had a response already they are a left-over of an earlier request, and
        say nothing about this one. (On a fresh socket there is no earlier one, and a server may refuse at the door.)
        """
        if data and not self.heard:
            self.heard = True
            self._premature = self.used > 0 and self._acknowledged() is False
        self._http.receive_data(data)

    def _acknowledged(self) -> bool | None:
        """Whether the server's system has received anything of the present request. None if that is unknown."""
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
        """Write until everything has left, or the server has refused the request, or reads no more.

        A server that refuses a large request answers before it has read it, and closes. To go on writing would end
        in a reset, and the reset could overtake the answer.

        Returns:
            Whether everything was written.
        """
        # No copies: a request may be as large as its arguments.
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
            # What the server said before it closed can still be read.
            return False
        except anyio.ClosedResourceError:
            raise httpx2.WriteError("the socket was closed on this side") from None

    def _take_nowait(self) -> bytes | None:
        """Hand what has arrived to the parser, without a wait.

        Returns:
            It; None if there is nothing, b"" if the server has closed. That will be noticed again where the response
            is read.
        """
        try:
            data = self.channel.receive_nowait()
        except OSError:
            return b""
        if data:
            self._hear(data)
        return data

    def _refused(self) -> bool:
        """Whether what has arrived so far says that nobody waits for the rest of the request."""
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
        """Return when more can be written, or something has arrived."""
        if self._response is not None:
            # It is no refusal. The rest of it is read when all is written.
            await self.channel.writable()
            return
        await either(self.channel)

    # -- its response

    async def _head(self) -> h11.Response:
        if self._response is not None:
            return self._response
        # A server that sends 100 Continue for ever would otherwise keep the call until its deadline, at full load.
        for _ in range(INFORMATIONAL_LIMIT):
            event = await self._event()
            if isinstance(event, h11.Response):
                return event
            if not isinstance(event, h11.InformationalResponse) or event.status_code == 101:
                raise httpx2.RemoteProtocolError("the server wants to speak another protocol")
        raise httpx2.RemoteProtocolError(f"more than {INFORMATIONAL_LIMIT} informational responses")

    async def piece(self) -> bytes | None:
        """The next bytes of the body: what has arrived already is put together. None at its end."""
        # The bytes before the fault were handed over first: an answer may be complete without the rest.
        if self._failure is not None:
            raise self._failure
        if self._http.their_state is not h11.SEND_BODY:
            return None
        event = await self._event()
        pieces: list[bytes] = []
        size = 0
        # The parser's events are the chunks of the server, which may have a byte each.
        while isinstance(event, h11.Data):
            pieces.append(bytes(event.data))
            size += len(event.data)
            try:
                self._chunks.count(len(event.data))
                if size >= READ_SIZE:
                    break
                event = self._next_event()
            except httpx2.HTTPError as error:
                # What came before it may be a whole answer.
                self._failure = error
                break
            if self._turns.over():
                await checkpoint()
        return b"".join(pieces) if pieces else None

    async def _event(self) -> Any:
        """The parser's next event, read from the socket as need be."""
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
            # No cause: to the classification, the end of a socket must not look like the end of a session.
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
