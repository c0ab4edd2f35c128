"""The ways in which servers refuse a request on a session that they have forgotten. Standard library only.

The first six are common, and mcpconn knows their texts. The others were seen on servers written by hand,
behind gateways, or on hosts whose framework answers first; no client can know them all. Each is a function
from the request's id to the reply, so that a test can go through all of them:

    script = Script(expiry="422")
    script.forget_sessions()
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from mcpconn.testing.scripted.steps import Reply, Reset, body_reply, encode, error_message, error_reply, sse_event

Expiry = str
"""A name in `EXPIRIES`: how a request on an unknown session is refused."""
Refuse = Callable[[object], Reply]

HTML = "<html><head><title>Oops</title></head><body><h1>Please start again</h1></body></html>"


def _body(status: int, text: str = "", content_type: str | None = None, **headers: str) -> Refuse:
    """A refusal without JSON-RPC."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda request_id: body_reply(status, text.encode(), content_type if text else None, named)


def _json(status: int, value: object) -> Refuse:
    """A refusal in JSON that is not JSON-RPC."""
    return lambda request_id: body_reply(status, encode(value), "application/json")


def _error(status: int, code: int, message: str, *, with_id: bool = True) -> Refuse:
    """A JSON-RPC error."""
    return lambda request_id: error_reply(status, request_id if with_id else None, code, message)


def _result(value: object) -> Refuse:
    """A result that has nothing to do with the request."""
    return lambda request_id: body_reply(
        200, encode({"jsonrpc": "2.0", "id": request_id, "result": value}), "application/json"
    )


def _events(data: bytes) -> Refuse:
    """An event stream that ends after `data`."""
    return lambda request_id: body_reply(200, data, "text/event-stream")


def _error_event(code: int, message: str) -> Refuse:
    """An event stream whose one event is a JSON-RPC error."""
    return lambda request_id: body_reply(
        200, sse_event(encode(error_message(request_id, code, message))), "text/event-stream"
    )


LISTED: Mapping[str, Refuse] = {
    "404": _error(404, -32600, "Session not found", with_id=False),
    "404-empty": _body(404),
    "404-text": _body(404, "Session not found", "text/plain"),
    "200": _error(200, -32602, "Invalid params: Invalid or expired session"),
    "400": _error(400, -32000, "Bad Request: No valid session ID provided"),
    "400-no-id": _error(400, -32000, "Bad Request: No valid session ID provided", with_id=False),
}
"""Refusals whose texts mcpconn knows: they name the session, or the specification defines them."""

UNLISTED: Mapping[str, Refuse] = {
    # 4xx: refused, with or without a text
    "400 and nothing": _body(400),
    "400 in plain text": _body(400, "Bad Request", "text/plain"),
    "400 as a web page": _body(400, HTML, "text/html"),
    "400 in JSON of its own": _json(400, {"error": "stale", "hint": "start over"}),
    "400 missing session ID": _error(400, -32600, "Bad Request: Missing session ID"),
    "400 no session": _error(400, -32000, "Bad Request: Mcp-Session-Id header is required"),
    "400 invalid params": _error(400, -32602, "Invalid request parameters"),
    "400 internal error": _error(400, -32603, "Internal error"),
    "400 in Japanese": _error(400, -32000, "セッションが見つかりません"),
    "401 and nothing": _body(401),
    "401 with a challenge": _body(401, "", None, www_authenticate='Bearer realm="mcp"'),
    "401 in words": _json(401, {"error": "who are you?"}),
    "402": _body(402, "payment required", "text/plain"),
    "403 and nothing": _body(403),
    "403 another user's session": _json(403, {"error": "session belongs to another user"}),
    "403 in plain text": _body(403, "Forbidden", "text/plain"),
    "403 in JSON-RPC": _error(403, -32003, "Not yours"),
    "404 as a web page": _body(404, HTML, "text/html"),
    "404 in plain text": _body(404, "nothing here", "text/plain"),
    "404 in JSON of its own": _json(404, {"detail": "Not Found"}),
    "404 method not found": _error(404, -32601, "Method not found"),
    "405": _body(405, "", None, allow="GET"),
    "406": _body(406, "Not Acceptable", "text/plain"),
    "408": _body(408),
    "409": _error(409, -32000, "Conflict"),
    "410 and nothing": _body(410),
    "410 in JSON-RPC": _error(410, -32001, "Gone"),
    "412": _body(412),
    "418": _body(418, "short and stout", "text/plain"),
    "421": _body(421),
    "422": _json(422, {"detail": [{"loc": ["header", "mcp-session-id"], "msg": "value is not valid"}]}),
    "424": _body(424),
    "440 login timeout": _body(440, HTML, "text/html"),
    # 5xx: the outcome is unknown
    "500 and nothing": _body(500),
    "500 as a web page": _body(500, HTML, "text/html"),
    "500 internal error": _error(500, -32603, "Internal error"),
    "500 not found": _error(500, -32002, "Not found"),
    "500 in Spanish": _error(500, -32603, "La sesión ha caducado"),
    "501": _body(501),
    "502 as a web page": _body(502, HTML, "text/html"),
    "503 for ever": _body(503, "upstream gone", "text/plain"),
    "504": _body(504),
    # 2xx: an error in JSON-RPC
    "200 internal error": _error(200, -32603, "Internal error"),
    "200 not found": _error(200, -32002, "Not found"),
    "200 server error": _error(200, -32000, "Server error"),
    "200 invalid request": _error(200, -32600, "Invalid Request"),
    "200 method not found": _error(200, -32601, "Method not found"),
    "200 invalid params": _error(200, -32602, "Invalid request parameters"),
    "200 timed out": _error(200, -32001, "Request timed out"),
    "200 no active session": _error(200, -32000, "No active session"),
    "200 not initialized": _error(200, -32002, "Session not initialized"),
    "200 a code of its own": _error(200, 4711, "Please log in first"),
    "200 in Chinese": _error(200, -32603, "会话已过期"),
    "200 in German": _error(200, 1, "Sitzung abgelaufen, bitte neu anmelden"),
    # 2xx: no answer at all
    "200 and nothing": _body(200),
    "200 in JSON, and nothing": lambda request_id: body_reply(200, b"", "application/json"),
    "200 null": _json(200, None),
    "200 an empty object": _json(200, {}),
    "200 in JSON of its own": _json(200, {"status": "error", "message": "stale"}),
    "200 a web page": _body(200, HTML, "text/html"),
    "200 in plain text": _body(200, "OK", "text/plain"),
    # 2xx: a result of another request
    "200 an empty result": _result({}),
    "200 a result in text": _result("expired"),
    "200 a handshake": _result({"protocolVersion": "2025-06-18", "capabilities": {}, "serverInfo": {"name": "a gate"}}),
    "202 and nothing": _body(202),
    "204": _body(204),
    "an empty event stream": _events(b""),
    "an event stream with a comment": _events(b": hello\n\n"),
    "an event stream with an error": _error_event(-32603, "Internal error"),
    "an event stream with a method not found": _error_event(-32601, "Method not found"),
    # elsewhere, or cut
    "302 to a login": _body(302, "", None, location="/login"),
    "307 to itself": _body(307, "", None, location="/mcp"),
    "a reset": lambda request_id: Reply(None, (), (Reset(),)),
}
"""Refusals with unknown texts: the loss of the session can only be inferred from their consequences."""

EXPIRIES: Mapping[str, Refuse] = {**LISTED, **UNLISTED}


def expired(name: Expiry, request_id: object) -> Reply:
    """Refuse a request because its session is gone.

    Raises:
        ValueError: there is no such expiry.
    """
    refuse = EXPIRIES.get(name)
    if refuse is None:
        raise ValueError(f"no such way to refuse a session: {name!r}; there are {', '.join(EXPIRIES)}")
    return refuse(request_id)
