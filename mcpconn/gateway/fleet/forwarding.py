"""Sends a request to its owner, and determines whether it may have run there.

The body goes out only after the receiver has said `100 Continue` (RFC 9110, section 10.1.1), which it says after it has
checked the envelope and that it owns what is asked for. So a request that fails before that certainly did not run, and
may be sent elsewhere; one that fails later may have run. No HTTP client library distinguishes the two, so this client
uses h11.

A call that is not safe to repeat may have run only after its go-ahead (see `go_ahead`), which is sent as the last byte
of the request's body while the answer arrives.
"""

from __future__ import annotations

import ipaddress
import json
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress

import anyio
import h11
from anyio.abc import ByteStream

from mcpconn.gateway.fleet.go_ahead import ASK, CONTENT_TYPE, DATA, NOT_RUN, START, YES, Frames
from mcpconn.gateway.fleet.links import TCP, Links
from mcpconn.gateway.fleet.signing import Envelope, Signer
from mcpconn.observe import log

CONNECT = 2.0
"""Seconds to connect. Replicas are in one network."""
CONTINUE = 5.0
"""Seconds for the receiver to look at the envelope, which may cost it a look at the store. One that is paused says
nothing; its lease ends before that."""
CHUNK = 64 * 1024
ENVELOPE, SIGNATURE, PROOF = "mcpconn-fleet", "mcpconn-fleet-signature", "mcpconn-fleet-proof"
TIME = "mcpconn-fleet-time"
"""Headers."""
NOT_MINE = 421
"""Status: the receiver does not own what is asked for (RFC 9110, section 15.5.20). Nothing ran."""
_HOP = frozenset({b"connection", b"keep-alive", b"transfer-encoding", b"content-length", PROOF.encode(), b"date"})

Networks = Sequence[ipaddress.IPv4Network | ipaddress.IPv6Network]


class NotDelivered(Exception):
    """The request did certainly not run there."""


class _OtherTime(NotDelivered):
    """The receiver's clock differs. The next request to it is signed by that clock."""


class Lost(Exception):
    """The other replica is gone after it took the request: it may have run."""


class AddressRefused(Exception):
    """The address is in none of the fleet's networks. Nothing was sent."""


def checked(address: str, networks: Networks) -> tuple[str, int]:
    """The host and port of an owner's address.

    Raises:
        AddressRefused: it is not an IP address with a port, or in no configured network.
    """
    host, _, port = address.rpartition(":")
    try:
        found = ipaddress.ip_address(host.strip("[]"))
        number = int(port)
    except ValueError:
        raise AddressRefused(f"{address!r} is not an IP address with a port") from None
    if not 0 < number < 65536 or not any(found in network for network in networks):
        raise AddressRefused(f"{address} is in none of the fleet's networks")
    return str(found), number


class Sent:
    """How far a request has come."""

    def __init__(self) -> None:
        self.taken = False
        """The receiver has accepted the request."""
        self.may_run = False
        """The request may have run: it was taken, and its go-ahead given if it needs one."""
        self.since: float | None = None
        """When that began."""
        self._wire: _Wire | None = None

    def asked_on(self, wire: _Wire) -> None:
        """The receiver has the body, and asks for the go-ahead on this connection."""
        self._wire = wire

    async def go_ahead(self) -> None:
        """Give the go-ahead: when the receiver asks, or when the client is gone and will be told nothing.

        Raises:
            Lost: the receiver is gone.
        """
        if self.may_run or self._wire is None:
            return
        # First, because a write that is cut may have arrived.
        self.may_run, self.since = True, anyio.current_time()
        try:
            await self._wire.send(h11.Data(data=YES), h11.EndOfMessage())
        except (OSError, anyio.BrokenResourceError, anyio.ClosedResourceError) as error:
            raise Lost(type(error).__name__) from None


class Answer:
    """The answer of another replica, whose head has come."""

    def __init__(self, status: int, headers: list[tuple[bytes, bytes]], wire: _Wire | _FramedWire) -> None:
        self.status = status
        self.headers = headers
        self._wire = wire

    async def chunks(self) -> AsyncIterator[bytes]:
        """Its body, as it comes.

        Raises:
            Lost: it was cut.
            NotDelivered: the receiver lost the session before the call went out.
        """
        while True:
            event = await self._wire.next()
            if isinstance(event, h11.Data):
                yield bytes(event.data)
            elif isinstance(event, h11.EndOfMessage):
                return
            else:
                raise Lost("the answer was cut")


class Forwarding:
    """Sends requests to other replicas."""

    def __init__(self, signer: Signer, networks: Networks, *, links: Links = TCP) -> None:
        """
        Args:
            signer: Signs requests and checks answers.
            networks: Where replicas are.
            links: How they are reached.
        """
        self._signer = signer
        self._networks = networks
        self._links = links

    @asynccontextmanager
    async def send(
        self, address: str, envelope: Envelope, body: bytes, sent: Sent | None = None
    ) -> AsyncIterator[Answer]:
        """Send a request; the block has its answer.

        Args:
            address: The owner's, `HOST:PORT`.
            envelope: What is asked.
            body: The body of the client's request.
            sent: Told how far the request has come.

        Raises:
            NotDelivered: it did not run.
            Lost: it may have run.
            AddressRefused: nothing was sent.
        """
        sent = sent or Sent()
        try:
            async with AsyncExitStack() as stack:
                wire, host = await stack.enter_async_context(self._connected(address))
                try:
                    answer = await self._exchange(wire, host, envelope, body, sent)
                except _OtherTime:
                    wire, host = await stack.enter_async_context(self._connected(address))
                    answer = await self._exchange(wire, host, envelope, body, sent)
                yield answer
        except Lost as error:
            if sent.may_run:
                raise
            raise NotDelivered(f"{error}, before the go-ahead") from None

    @asynccontextmanager
    async def _connected(self, address: str) -> AsyncIterator[tuple[_Wire, str]]:
        host, port = checked(address, self._networks)
        try:
            with anyio.fail_after(CONNECT):
                stream = await self._links.connect(host, port)
        except (OSError, TimeoutError) as error:
            raise NotDelivered(f"{address} cannot be reached: {type(error).__name__}") from None
        async with stream:
            yield _Wire(stream), f"{host}:{port}"

    async def _exchange(self, wire: _Wire, host: str, envelope: Envelope, body: bytes, sent: Sent) -> Answer:
        text, signature, nonce = self._signer.sign(envelope)
        head = h11.Request(
            method="POST",
            target="/",
            headers=[
                ("host", host),
                (ENVELOPE, text),
                (SIGNATURE, signature),
                ("content-length", str(len(body) + len(YES) * envelope.asks)),
                ("connection", "close"),
                ("expect", "100-continue"),
            ],
        )
        event = await self._agreed(wire, head)
        if isinstance(event, h11.InformationalResponse):
            sent.taken, sent.may_run = True, not envelope.asks
            sent.since = anyio.current_time()
            event = await self._begun(wire, envelope, body, sent)
        if not isinstance(event, h11.Response):
            raise Lost("no answer came") if sent.taken else NotDelivered("the request was not taken")
        proof, now = _header(event, PROOF), _header(event, TIME)
        if now and self._signer.proven(nonce, event.status_code, proof, now):
            ahead = self._signer.follow_clock(envelope.to, now)
            log.warning("gateway.fleet_clocks_differ", replica=envelope.to, ahead=round(ahead))
            raise _OtherTime("its clock differs")
        if not self._signer.proven(nonce, event.status_code, proof):
            what = f"{host} is not a replica of this gateway"
            raise Lost(what) if sent.taken else NotDelivered(what)
        if event.status_code == NOT_MINE:
            raise NotDelivered("it is not the owner")
        if (b"content-type", CONTENT_TYPE) not in event.headers:
            return Answer(event.status_code, list(_end_to_end(event.headers)), wire)
        framed = _FramedWire(wire, sent)
        event = await framed.next()
        if not isinstance(event, h11.Response):
            raise Lost("no answer came")
        return Answer(event.status_code, list(_end_to_end(event.headers)), framed)

    @staticmethod
    async def _begun(wire: _Wire, envelope: Envelope, body: bytes, sent: Sent) -> h11.Event:
        """Send the body; return the head of the answer."""
        try:
            await wire.send(h11.Data(data=body), *([] if envelope.asks else [h11.EndOfMessage()]))
        except (OSError, anyio.BrokenResourceError) as error:
            raise Lost(type(error).__name__) from None
        if envelope.asks:
            sent.asked_on(wire)
        event = await wire.next()
        while isinstance(event, h11.InformationalResponse):
            event = await wire.next()
        return event

    async def _agreed(self, wire: _Wire, head: h11.Request) -> h11.Event | None:
        """Send the head, and return what the receiver says to it."""
        try:
            with anyio.fail_after(CONTINUE):
                await wire.send(head)
                return await wire.next()
        except (OSError, anyio.BrokenResourceError, TimeoutError, Lost) as error:
            raise NotDelivered(type(error).__name__) from None


class _Wire:
    """h11's client on a socket."""

    def __init__(self, stream: ByteStream) -> None:
        self._stream = stream
        self._connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=CHUNK)

    async def send(self, *events: h11.Event) -> None:
        for event in events:
            data = self._connection.send(event)
            if data:
                await self._stream.send(data)

    async def next(self) -> h11.Event:
        """The next event.

        Raises:
            Lost: there will be none.
        """
        try:
            while True:
                event = self._connection.next_event()
                if event is h11.PAUSED:
                    raise Lost("the answer has ended")
                if event is not h11.NEED_DATA:
                    assert not isinstance(event, type)
                    return event
                data = b""
                with suppress(anyio.EndOfStream):
                    data = await self._stream.receive(CHUNK)
                self._connection.receive_data(data)
        except (h11.RemoteProtocolError, OSError, anyio.BrokenResourceError) as error:
            raise Lost(type(error).__name__) from None


class _FramedWire:
    """The client's answer within an answer that consists of frames; see `go_ahead`."""

    def __init__(self, wire: _Wire, sent: Sent) -> None:
        self._wire = wire
        self._sent = sent
        self._frames = Frames()

    async def next(self) -> h11.Event:
        """The next event of the client's answer.

        Raises:
            Lost: there will be none.
            NotDelivered: the call did not run, and will not.
        """
        while True:
            if (found := self._frames.next()) is None:
                event = await self._wire.next()
                if not isinstance(event, h11.Data):
                    return event
                self._frames.feed(bytes(event.data))
                continue
            kind, content = found
            if kind == ASK:
                await self._sent.go_ahead()
            elif kind == NOT_RUN:
                raise NotDelivered("it lost the session before the call went out")
            elif kind == START:
                head = json.loads(content)
                return h11.Response(status_code=head["status"], headers=[(a, b) for a, b in head["headers"]])
            elif kind == DATA:
                return h11.Data(data=content)


def _header(event: h11.Response, name: str) -> str:
    return next((value for key, value in event.headers if key == name.encode()), b"").decode("latin-1")


def _end_to_end(headers: Iterable[tuple[bytes, bytes]]) -> Iterable[tuple[bytes, bytes]]:
    return ((bytes(name), bytes(value)) for name, value in headers if bytes(name) not in _HOP)
