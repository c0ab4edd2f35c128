"""Answers that no client should trust: malformed, mislabelled, oversized or lying. Standard library only.

The request has been carried out in every case, so a client that reads "it did not run" out
of such an answer is wrong.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from itertools import repeat
from typing import Any

from mcpconn.testing.scripted.faults import SSE_HEADERS, Exchange, Fault, replaced, rpc_error
from mcpconn.testing.scripted.steps import CHUNK, Reply, Send, Step, body_reply, encode, result_message, sse_event
from mcpconn.testing.scripted.tools import RpcError, ScriptedTool, Spoiled

_JSON = (("content-type", "application/json"),)
_TEXT_RESULT = '{"jsonrpc":"2.0","id":%s,"result":{"resultType":"complete","content":[{"type":"text","text":"'
_ERROR = '{"jsonrpc":"2.0","id":%s,"error":{"code":-32603,"message":"'
_ERROR_END = '"}}'
_TEXT_RESULT_END = '"}]}}'


def _after(
    name: str, headers: tuple[tuple[str, str], ...], body: Callable[[Exchange], Iterator[bytes]], status: int = 200
) -> Fault:
    """Carry out the request, then send the pieces of `body`."""

    def steps(exchange: Exchange) -> Iterator[Step]:
        yield from exchange.run()
        for piece in body(exchange):
            yield Send(piece)

    return Fault(name, lambda exchange: Reply(status, headers, steps(exchange)), after=True)


def _padded(prefix: str, suffix: str, size: int) -> Iterator[bytes]:
    """A body of exactly `size` bytes (or prefix and suffix alone, if longer), in pieces."""
    yield prefix.encode()
    left = max(0, size - len(prefix) - len(suffix))
    while left:
        piece = min(left, CHUNK)
        yield b"a" * piece
        left -= piece
    yield suffix.encode()


def garbage() -> Fault:
    """A JSON answer that ends in the middle."""
    return spoiled("cut")


def html_200() -> Fault:
    """A web page with status 200, as a login portal would send."""
    return replaced("html 200", body_reply(200, b"<html><body>Please log in</body></html>", "text/html"))


def wrong_id(*, stream: bool = False) -> Fault:
    """A well-formed answer to a request that was never sent."""
    return spoiled("foreign id", stream=stream)


_FOREIGN = {"resultType": "complete", "content": [], "structuredContent": {"call_id": "another caller's"}}
_NO = {"code": -32602, "message": "Invalid params"}

SPOILED: Mapping[str, Callable[[object], bytes]] = {
    "foreign id": lambda _: encode(result_message("nobody-asked", _FOREIGN)),
    "foreign id of an error": lambda _: encode({"jsonrpc": "2.0", "id": 1_000_000, "error": _NO}),
    "null id": lambda _: encode({"jsonrpc": "2.0", "id": None, "error": _NO}),
    "null id of a result": lambda _: encode(result_message(None, _FOREIGN)),
    "no id": lambda _: encode({"jsonrpc": "2.0", "error": _NO}),
    "half a surrogate in an error": lambda request_id: _raw(request_id, b'"error":{"code":-32602,"message":"\\ud83d"}'),
    "half a surrogate in a result": lambda request_id: _raw(request_id, b'"result":{"content":[],"a":"\\ud83d"}'),
    "5,000 digits": lambda request_id: _raw(request_id, b'"result":{"content":[],"a":' + b"7" * 5000 + b"}"),
    "result and error": lambda request_id: _raw(request_id, b'"result":{"content":[]},"error":%s' % encode(_NO)),
    "result of no object": lambda request_id: _raw(request_id, b'"result":"fine"'),
    "2 MB": lambda request_id: _raw(request_id, b'"result":{"content":[],"a":"' + b"x" * 2_000_000 + b'"}'),
    "no JSON": lambda _: b"the receipt is in the mail",
    "cut": lambda request_id: _raw(request_id, b'"result":{"content":[{"type":"text","te')[:-1],
}
"""What is sent in place of an answer, by name: functions of the request's id. "2 MB" is only invalid for a client with
a lower limit."""


def _raw(request_id: object, members: bytes) -> bytes:
    return b'{"jsonrpc":"2.0","id":%s,%s}' % (encode(request_id), members)


def spoiled(how: str, *, stream: bool = False, http_status: int = 200) -> Fault:
    """One of `SPOILED` in place of the answer, as a JSON body, or as an event of a stream that then ends."""

    def body(exchange: Exchange) -> Iterator[bytes]:
        data = SPOILED[how](exchange.request_id)
        yield sse_event(data) if stream else data

    return replace(_after(how, SSE_HEADERS if stream else _JSON, body, http_status), spoils=True)


def many_values(count: int, *, item: str = '{"type":"text","text":""}') -> Fault:
    """A valid answer whose content has this many items: 16 MB of `{}` are half a gigabyte of dicts."""

    def body(exchange: Exchange) -> Iterator[bytes]:
        yield b'{"jsonrpc":"2.0","id":%s,"result":{"content":[' % encode(exchange.request_id)
        for first in range(0, count, 1000):
            items = ",".join([item] * min(1000, count - first)).encode()
            yield items if first == 0 else b"," + items
        yield b"]}}"

    return _after("many values", _JSON, body)


def _spoiled_tool(arguments: Mapping[str, Any]) -> object:
    raise Spoiled(SPOILED[arguments["how"]])


def _refused_tool(arguments: Mapping[str, Any]) -> object:
    raise RpcError(arguments["code"], arguments["message"], arguments.get("data"))


def lying_tools() -> tuple[ScriptedTool, ...]:
    """Tools that do their work and then deny it, on any transport.

    `spoiled` (`how`) answers with one of `SPOILED`, `refused` (`code`, `message`, `data`) with a JSON-RPC error.
    """
    return (
        ScriptedTool("spoiled", _spoiled_tool, {}, "Not idempotent; answers with what is no answer."),
        ScriptedTool("refused", _refused_tool, {}, "Not idempotent; answers with an error."),
    )


def wrong_shape(text: str = "session not found") -> Fault:
    """A well-formed answer whose result is not a tool's: `text` in place of a list."""

    def body(exchange: Exchange) -> Iterator[bytes]:
        yield encode(result_message(exchange.request_id, {"resultType": "complete", "content": text}))

    return _after("wrong shape", _JSON, body)


def duplicate_response() -> Fault:
    """The same answer twice on one event stream."""

    def body(exchange: Exchange) -> Iterator[bytes]:
        for text in ("first", "second"):
            result = {"resultType": "complete", "content": [{"type": "text", "text": text}], "isError": False}
            yield sse_event(encode(result_message(exchange.request_id, result)))

    return _after("duplicate response", SSE_HEADERS, body)


def huge_body(size: int) -> Fault:
    """A valid JSON answer of `size` bytes."""

    def body(exchange: Exchange) -> Iterator[bytes]:
        return _padded(_TEXT_RESULT % json.dumps(exchange.request_id), _TEXT_RESULT_END, size)

    return _after("huge body", _JSON, body)


def huge_error(size: int = 10_000_000) -> Fault:
    """A JSON-RPC error whose text makes the answer `size` bytes long."""

    def body(exchange: Exchange) -> Iterator[bytes]:
        return _padded(_ERROR % json.dumps(exchange.request_id), _ERROR_END, size)

    return _after("huge error", _JSON, body)


def endless_body() -> Fault:
    """A JSON answer that never ends."""

    def body(exchange: Exchange) -> Iterator[bytes]:
        yield (_TEXT_RESULT % json.dumps(exchange.request_id)).encode()
        yield from repeat(b"a" * CHUNK)

    return _after("endless body", _JSON, body)


def endless_event() -> Fault:
    """An event stream whose first event never ends."""

    def body(exchange: Exchange) -> Iterator[bytes]:
        yield b"event: message\r\ndata: "
        yield from repeat(b"a" * CHUNK)

    return _after("endless event", SSE_HEADERS, body)


def invalid_utf8() -> Fault:
    """A JSON answer with bytes that are not UTF-8."""

    def body(exchange: Exchange) -> Iterator[bytes]:
        yield (_TEXT_RESULT % json.dumps(exchange.request_id)).encode()
        yield b"\xff\xfe\xc3\x28" + _TEXT_RESULT_END.encode()

    return replace(_after("invalid utf-8", _JSON, body), spoils=True)


def forged_evidence(data: object = None, *, code: int = -32000, message: str = "Connection closed") -> Fault:
    """A JSON-RPC error whose `data` claims to know that nothing ran, though it did."""
    if data is None:
        data = {"mcpconn": {"executed": False, "sent": False}, "not_executed": True, "retry": True}
    return rpc_error(code, message, data)
