"""Ways a scripted server can fail on command. Standard library only.

`script.inject(faults.drop_after())` arms one. A fault either stands for something in front of
the server (nothing runs, the request need not even be valid) or spoils the answer to a
request the server accepted and ran (`after` is true).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from mcpconn.testing.scripted.expiries import Expiry, expired
from mcpconn.testing.scripted.steps import (
    Close,
    Hang,
    Message,
    Reply,
    Reset,
    Send,
    Sleep,
    Step,
    body_reply,
    encode,
    error_message,
    quiet,
)

SSE_HEADERS = (("content-type", "text/event-stream"), ("cache-control", "no-cache, no-transform"))


@dataclass(frozen=True)
class Exchange:
    """One request as a fault sees it."""

    message: Message
    """The JSON-RPC request; empty for GET and DELETE."""
    answer: Reply
    """What the server would have answered. Playing its steps runs the request."""
    opening: bytes = b""
    """The event that opens this answer's event stream, if the server's streams carry event ids."""

    @property
    def request_id(self) -> object:
        """The id of the JSON-RPC request."""
        return self.message.get("id")

    def run(self) -> Iterator[Step]:
        """Run the request and send nothing."""
        return quiet(self.answer.steps)


@dataclass(frozen=True)
class Fault:
    """A named fault; `plan` makes the reply. To write your own, pass a plan."""

    name: str
    plan: Callable[[Exchange], Reply]
    after: bool = False
    """Whether the fault needs a request the server accepted. Others never let it run."""
    spoils: bool = False
    """Whether something that is not an answer to this request is sent completely in place of the answer."""


def replaced(name: str, reply: Reply, *, ran: bool = True) -> Fault:
    """A fixed answer in place of the real one."""

    def steps(exchange: Exchange) -> Iterator[Step]:
        yield from exchange.run()
        yield from reply.steps

    def plan(exchange: Exchange) -> Reply:
        return Reply(reply.status, reply.headers, steps(exchange)) if ran else reply

    return Fault(name, plan, after=ran)


def _silenced(name: str, ending: Step, *, ran: bool) -> Fault:
    """No answer at all."""

    def steps(exchange: Exchange) -> Iterator[Step]:
        if ran:
            yield from exchange.run()
        yield ending

    return Fault(name, lambda exchange: Reply(None, (), steps(exchange)), after=ran)


def status(
    code: int,
    *,
    body: bytes = b"",
    content_type: str | None = None,
    headers: Mapping[str, str] | None = None,
    ran: bool = False,
) -> Fault:
    """Answer with this HTTP status; with `ran`, only after the request has been carried out."""
    return replaced(f"status {code}", body_reply(code, body, content_type, headers), ran=ran)


def _page(code: int, text: str, headers: Mapping[str, str] | None = None, *, ran: bool = False) -> Fault:
    """Answer like a proxy: an HTML page."""
    page = f"<html><body><h1>{code} {text}</h1></body></html>".encode()
    return status(code, body=page, content_type="text/html", headers=headers, ran=ran)


def unauthorized() -> Fault:
    """401 that asks for a bearer token."""
    return status(401, headers={"www-authenticate": 'Bearer error="invalid_token"'})


def forbidden() -> Fault:
    """403 without a body."""
    return status(403)


def rate_limited(retry_after: float | str | None = 1) -> Fault:
    """429, with Retry-After unless it is None."""
    return status(429, headers=_retry_after(retry_after))


def unavailable(retry_after: float | str | None = None, *, ran: bool = False) -> Fault:
    """503 as an HTML page."""
    return _page(503, "Service Unavailable", _retry_after(retry_after), ran=ran)


def bad_gateway(*, ran: bool = False) -> Fault:
    """502 as an HTML page."""
    return _page(502, "Bad Gateway", ran=ran)


def server_error(*, ran: bool = False) -> Fault:
    """500 as an HTML page."""
    return _page(500, "Internal Server Error", ran=ran)


def not_found_html() -> Fault:
    """404 as an HTML page, which says nothing about any session."""
    return _page(404, "Not Found")


def _retry_after(value: float | str | None) -> Mapping[str, str]:
    return {} if value is None else {"retry-after": str(value)}


def expired_404(body: bool = True) -> Fault:
    """404 for a lost session: a JSON-RPC error without id, or an empty body."""
    return Fault("expired 404", lambda exchange: expired("404" if body else "404-empty", None))


def expired_200() -> Fault:
    """A lost session as a JSON-RPC error in a successful HTTP answer."""
    return Fault("expired 200", lambda exchange: expired("200", exchange.request_id))


def expired_400(with_id: bool = True) -> Fault:
    """A lost session as a JSON-RPC error with status 400."""
    flavour: Expiry = "400" if with_id else "400-no-id"
    return Fault("expired 400", lambda exchange: expired(flavour, exchange.request_id))


def drop_before() -> Fault:
    """Reset the connection; nothing ran."""
    return _silenced("drop before", Reset(), ran=False)


def drop_after() -> Fault:
    """Carry out the request, then reset the connection without an answer."""
    return _silenced("drop after", Reset(), ran=True)


def hang() -> Fault:
    """Never answer; nothing ran."""
    return _silenced("hang", Hang(), ran=False)


def hang_after() -> Fault:
    """Carry out the request and never answer."""
    return _silenced("hang after", Hang(), ran=True)


def cut_stream(*, clean: bool = False, reset: bool = False) -> Fault:
    """Begin an event stream, carry out the request, and end the connection before the answer.

    The body is left truncated. With `clean` it ends properly instead, as if the answer had
    been forgotten; with `reset` the connection is aborted. If the script's streams carry event
    ids, the client has received one and can resume.
    """

    def steps(exchange: Exchange) -> Iterator[Step]:
        yield Send(exchange.opening)
        yield from exchange.run()
        if reset:
            yield Reset()
        elif not clean:
            yield Close()

    return Fault("cut stream", lambda exchange: Reply(200, SSE_HEADERS, steps(exchange)), after=True)


def slow(seconds: float) -> Fault:
    """Carry out the request, then hold the answer back for this long."""

    def steps(exchange: Exchange) -> Iterator[Step]:
        held: list[Step] = []
        for step in exchange.answer.steps:
            if isinstance(step, Sleep):
                yield step
            else:
                held.append(step)
        yield Sleep(seconds)
        yield from held

    def plan(exchange: Exchange) -> Reply:
        return Reply(exchange.answer.status, exchange.answer.headers, steps(exchange))

    return Fault("slow", plan, after=True)


def accepted_202() -> Fault:
    """Carry out the request and answer 202 without a body, which is not a valid answer to a request."""
    return status(202, ran=True)


def rpc_error(code: int, message: str, data: object = None, *, http_status: int = 200, ran: bool = True) -> Fault:
    """A JSON-RPC error with the request's id."""

    def steps(exchange: Exchange) -> Iterator[Step]:
        if ran:
            yield from exchange.run()
        yield Send(encode(error_message(exchange.request_id, code, message, data)))

    def plan(exchange: Exchange) -> Reply:
        return Reply(http_status, (("content-type", "application/json"),), steps(exchange))

    return Fault(f"error {code}", plan, after=ran)
