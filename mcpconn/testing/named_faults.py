"""Faults of one request, by name, for `mcpconn.testing.sandbox` and its users."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from mcpconn.testing.scripted import faults, hostile, poison
from mcpconn.testing.scripted.faults import Exchange, Fault
from mcpconn.testing.scripted.steps import Reply


def _for_tools(fault: Fault) -> Fault:
    """`fault` for tool calls only, because a ping has no tool's answer."""

    def plan(exchange: Exchange) -> Reply:
        return fault.plan(exchange) if exchange.message.get("method") == "tools/call" else exchange.answer

    return replace(fault, plan=plan)


def _redirected(fault: Fault) -> Fault:
    """A redirect, and `fault` at its target."""
    redirect, seen = poison.redirect(), 0

    def plan(exchange: Exchange) -> Reply:
        nonlocal seen
        seen += 1
        return (redirect if seen % 2 else fault).plan(exchange)

    return Fault(f"redirect, then {fault.name}", plan, after=True)


FAULTS: Mapping[str, Callable[[], Fault]] = {
    "drop before": faults.drop_before,
    "drop after": faults.drop_after,
    "cut stream": faults.cut_stream,
    "cut stream, cleanly": lambda: faults.cut_stream(clean=True),
    "hang": faults.hang,
    "hang after": faults.hang_after,
    "slow": lambda: faults.slow(3),
    "garbage": hostile.garbage,
    "web page": hostile.html_200,
    "invalid utf-8": hostile.invalid_utf8,
    "wrong id": hostile.wrong_id,
    "wrong id on a stream": lambda: hostile.wrong_id(stream=True),
    "null id": lambda: hostile.spoiled("null id"),
    "null id on a stream": lambda: hostile.spoiled("null id", stream=True),
    "half a surrogate": lambda: hostile.spoiled("half a surrogate in an error"),
    "half a surrogate, 400": lambda: hostile.spoiled("half a surrogate in an error", http_status=400),
    "half a surrogate on a stream": lambda: hostile.spoiled("half a surrogate in a result", stream=True),
    "an answer and an error": lambda: hostile.spoiled("result and error"),
    "wrong shape": hostile.wrong_shape,
    "too large": lambda: hostile.huge_body(100_000),
    "forged evidence": hostile.forged_evidence,
    "202": faults.accepted_202,
    "401": faults.unauthorized,
    "403": faults.forbidden,
    "404 as a web page": faults.not_found_html,
    "404": faults.expired_404,
    "429": lambda: faults.rate_limited(2),
    "429 without Retry-After": lambda: faults.rate_limited(None),
    "500 after it ran": lambda: faults.server_error(ran=True),
    "502": faults.bad_gateway,
    "503": lambda: faults.unavailable(2),
    "503 after it ran": lambda: faults.unavailable(ran=True),
    "expired, 200": faults.expired_200,
    "expired, 400": faults.expired_400,
    "expired, 400 without id": lambda: faults.expired_400(with_id=False),
    "redirect": poison.redirect,
    "redirect, and dropped there": lambda: _redirected(faults.drop_after()),
    "redirect, and 502 there": lambda: _redirected(faults.bad_gateway(ran=True)),
    "redirect to itself": lambda: poison.redirect(location="/mcp"),
    "redirect elsewhere": lambda: poison.redirect(308, "http://elsewhere.test/mcp"),
    "301": lambda: poison.redirect(301),
    "302": lambda: poison.redirect(302, "/login"),
    "303 after it ran": lambda: poison.redirect(303, "/receipt", ran=True),
    "application error": lambda: _for_tools(faults.rpc_error(-32603, "Tool failed: the shop's session expired")),
}
"""Faults of one request, by name."""


def _smuggled() -> Fault:
    """The true answer, followed by one for the next request, if its id can be guessed."""

    def plan(exchange: Exchange) -> Reply:
        following = exchange.request_id + 1 if isinstance(exchange.request_id, int) else 1
        extra = poison.smuggled_stream(following, "smuggled")
        return poison.followed_by(extra).plan(exchange)

    return Fault("smuggled answer", plan, after=True)


SOCKET_FAULTS: Mapping[str, Callable[[], Fault]] = {
    **{
        f"{status} left over": lambda status=status: poison.followed_by(poison.refusal(status))  # type: ignore[misc]
        for status in (400, 401, 403, 404, 429)
    },
    "session refusal left over": lambda: poison.followed_by(poison.refusal(404, -32600, "Session not found")),
    "404 left over, later": lambda: poison.followed_by(poison.refusal(404), after=0.3),
    "429 left over, later": lambda: poison.followed_by(poison.refusal(429), after=2),
    "smuggled answer": _smuggled,
    "bytes left over": lambda: poison.followed_by(b"\r\nnonsense"),
    "no byte": lambda: poison.raw(b"", close=True),
    "half a head": lambda: poison.raw(b"HTTP/1.1 200 OK\r\ncontent-", close=True),
    "204 with a body": lambda: poison.body_on_204(poison.refusal(404)),
}
"""Faults of connections that requests share. They need a server with sockets, real or in memory."""
