"""Bytes on a socket that belong to no request, and redirects. They can make a client take one answer for another.

A faulty server or proxy may send more than one response to one request. The rest stays
on the socket, and a client that uses the socket again reads it as the answer to its next request. These work only with
a real socket (`HttpServer`) or one in memory (`MemoryTransport`). Standard library only.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping
from http import HTTPStatus

from mcpconn.testing.scripted.faults import Exchange, Fault
from mcpconn.testing.scripted.steps import (
    Close,
    Raw,
    Reply,
    Send,
    Sleep,
    Step,
    encode,
    error_message,
    result_message,
    sse_event,
)


def response(status: int, body: bytes = b"", headers: Mapping[str, str] | None = None) -> bytes:
    """A whole HTTP/1.1 response, with Content-Length."""
    phrase = HTTPStatus(status).phrase
    named = {"content-length": str(len(body)), **(headers or {})}
    lines = [f"HTTP/1.1 {status} {phrase}", *(f"{name}: {value}" for name, value in named.items()), "", ""]
    return "\r\n".join(lines).encode() + body


def refusal(status: int, code: int | None = None, message: str = "") -> bytes:
    """A refusal to be left on a socket: without a body, or with a JSON-RPC error that has no id."""
    if code is None:
        return response(status)
    return response(status, encode(error_message(None, code, message)), {"content-type": "application/json"})


def smuggled_stream(request_id: object, text: str) -> bytes:
    """An answer to be left on a socket: an event stream that ends, with a tool's result for this request id."""
    result = {"resultType": "complete", "content": [{"type": "text", "text": text}], "isError": False}
    body = sse_event(encode(result_message(request_id, result)))
    return response(200, body, {"content-type": "text/event-stream"})


def followed_by(extra: bytes, *, after: float | None = None) -> Fault:
    """The true answer, followed by `extra`.

    Args:
        extra: What follows the answer, in the same packet.
        after: Seconds until it follows, in a packet of its own, unless the next request has arrived by then. None:
            at once.
    """

    def steps(exchange: Exchange) -> Iterator[Step]:
        answer = yield from _whole(exchange)
        if after is None:
            yield Raw(answer + extra)
        else:
            yield Raw(answer)
            yield Sleep(after)
            yield Raw(extra, unasked=True)

    return Fault("poisoned socket", lambda exchange: Reply(None, (), steps(exchange)), after=True)


def body_on_204(body: bytes) -> Fault:
    """The true answer to a notification or request is 204, which has no body, but `body` follows it."""

    def steps(exchange: Exchange) -> Iterator[Step]:
        yield from exchange.run()
        yield Raw(response(204)[:-4].replace(b"\r\ncontent-length: 0", b"") + b"\r\n\r\n" + body)

    return Fault("204 with a body", lambda exchange: Reply(None, (), steps(exchange)), after=True)


def raw(data: bytes, *, ran: bool = True, close: bool = False) -> Fault:
    """Exactly these bytes as an answer.

    Args:
        data: What is sent.
        ran: Carry the request out first.
        close: Close the connection afterwards.
    """

    def steps(exchange: Exchange) -> Iterator[Step]:
        if ran:
            yield from exchange.run()
        yield Raw(data)
        if close:
            yield Close()

    return Fault("raw bytes", lambda exchange: Reply(None, (), steps(exchange)), after=ran)


def redirect(status: int = 307, location: str = "/mcp/", *, ran: bool = False) -> Fault:
    """A redirect. 307 to the same path with a slash is what Starlette answers when the slash is missing."""

    def steps(exchange: Exchange) -> Iterator[Step]:
        if ran:
            yield from exchange.run()

    headers = (("location", location), ("content-length", "0"))
    return Fault(f"redirect {status}", lambda exchange: Reply(status, headers, steps(exchange)), after=ran)


def _whole(exchange: Exchange) -> Generator[Step, None, bytes]:
    """Run the request, and return its answer as the bytes of one response."""
    body = bytearray()
    for step in exchange.answer.steps:
        if isinstance(step, Send):
            body += step.data
        elif isinstance(step, Sleep):
            yield step
    named = {name: value for name, value in exchange.answer.headers if name != "content-length"}
    return response(exchange.answer.status or 200, bytes(body), named)
