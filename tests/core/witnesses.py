"""One line for each thing that `classify` must tell apart: what was seen, and what it amounts to.

The table is written down independently of the rules, and serves twice: as tests of `classify`, and as what a
changed rule has to get past (test_rule_mutations.py).
"""

from __future__ import annotations

import concurrent.futures
import errno
import socket
import ssl
from dataclasses import dataclass
from typing import Any

import anyio
import httpx2
from mcp import MCPError
from mcp.client.auth import OAuthFlowError, OAuthRegistrationError, OAuthTokenError

from mcpconn.auth.credentials import CredentialsRefused, CredentialsUnavailable
from mcpconn.core import Delivery, Evidence, FailureKind
from mcpconn.errors import ConfigError
from mcpconn.wire.child import CannotStart, ChildExited
from mcpconn.wire.messages import MessageTooLarge
from mcpconn.wire.proxied import ProxyRefused
from mcpconn.wire.reasons import WrongScheme

K, D = FailureKind, Delivery


@dataclass(frozen=True)
class Witness:
    """Evidence, and the failure that it must amount to."""

    kind: FailureKind
    delivery: Delivery
    proof: bool
    evidence: Evidence
    because: str
    """How the summary begins."""

    def __str__(self) -> str:
        evidence = self.evidence
        fields = {
            name: value
            for name in ("http_status", "code", "message", "content_type", "session_sent", "from_wire", "phase")
            if (value := getattr(evidence, name)) is not None
        }
        if evidence.exception is not None:
            fields["exception"] = repr(evidence.exception)
        return " ".join(f"{name}={value}" for name, value in fields.items()) or "nothing"


WITNESSES: list[Witness] = []
each: BaseException


def seen(because: str, kind: FailureKind, delivery: Delivery, proof: bool, **evidence: Any) -> None:
    """Add a line to the table."""
    WITNESSES.append(Witness(kind, delivery, proof, Evidence(**evidence), because))


def wire(code: int, message: str, **more: Any) -> dict[str, Any]:
    """A JSON-RPC error that was received."""
    return {"code": code, "message": message, "from_wire": True, **more}


def local(code: int, message: str, **more: Any) -> dict[str, Any]:
    """A JSON-RPC error that was made up on this side."""
    return {"code": code, "message": message, "from_wire": False, **more}


def raised(error: BaseException, **more: Any) -> dict[str, Any]:
    """A local exception."""
    return {"exception": error, **more}


# -- cancellation

CANCELLED = ("cancelled", K.CANCELLED, D.UNKNOWN, True)
HERE = ("cancelled on this side", K.CANCELLED, D.UNKNOWN, True)
seen(*CANCELLED, **raised(concurrent.futures.CancelledError()))
seen(*CANCELLED, **raised(KeyboardInterrupt()), http_status=503)
seen(*CANCELLED, **raised(InterruptedError("session not found")))
seen(*HERE, **local(-32000, "Request was cancelled"))
seen(*HERE, **local(-32600, "Request cancelled"))
seen(*HERE, **raised(RuntimeError("Request cancelled")))
ANSWERED = ("the server answered with an error", K.APPLICATION, D.UNKNOWN, True)
DOUBTFUL = ("the server answered with an error that may not be about the call", K.APPLICATION, D.UNKNOWN, False)
seen(*DOUBTFUL, **wire(-32000, "Request cancelled"))
seen("the server cannot answer now", K.UNAVAILABLE, D.UNKNOWN, False, http_status=503, message="Request cancelled")

# -- HTTP: the session

CUT_OFF = ("the session ended while the request was running", K.TRANSPORT_LOST, D.UNKNOWN, True)
seen(*CUT_OFF, **wire(-32603, "Session terminated before the request completed", http_status=500))
seen(*CUT_OFF, **wire(-32603, "Session terminated before the request completed", http_status=404, session_sent=True))
GONE = ("the server no longer knows the session", K.SESSION_EXPIRED, D.REJECTED, True)
seen(*GONE, **wire(-32600, "whatever", http_status=404, session_sent=True))
seen(*GONE, http_status=404, session_sent=True)
seen(*GONE, http_status=404, session_sent=True, content_type="")
seen(*GONE, **wire(-32601, "Not Found: Invalid session ID", http_status=404, session_sent=True))
seen(*GONE, http_status=404, session_sent=True, content_type="text/html", message="<p>Session not found, sorry</p>")
for status in (400, 401, 403, 404, 503):
    seen(*GONE, http_status=status, session_sent=True, message="Session not found", content_type="text/plain")
SAID = ("the server says it does not know the session", K.SESSION_EXPIRED, D.REJECTED, False)
for status in (400, 401, 402, 403, 404, 405, 499, 500, 502, 503, 504):
    seen(*SAID, http_status=status, message="Session not found", content_type="text/plain")
for status in (400, 401, 402, 403, 405, 499):
    # More than a refusal, even with a session id: a tool may have said it, and so it is no proof.
    seen(*SAID, http_status=status, session_sent=True, message="Checkout failed: session expired")
for status in (402, 405, 500, 502, 504):
    seen(*SAID, **wire(-32603, "Session not found", http_status=status, session_sent=True))
seen(*SAID, **wire(-32603, "Session not found", http_status=400))
DOWN = ("the server cannot answer now", K.UNAVAILABLE, D.UNKNOWN, False)
INTERNAL = ("the server reported an internal error", K.APPLICATION, D.UNKNOWN, False)
seen(*DOWN, http_status=503, session_sent=True, message="Checkout failed: session expired")
seen(*INTERNAL, **wire(-32603, "Checkout failed: session expired", http_status=500, session_sent=True))

# -- HTTP: credentials, limits

OAUTH = ("the authorization server refused the credentials", K.AUTH, D.REJECTED, False)
for words in (
    "Invalid OAuth error response",
    '{"error":"invalid_grant"}',
    "invalid_client",
    "unauthorized_client",
    "refresh_token is invalid",
    "Refresh token has been revoked",
):
    seen(*OAUTH, http_status=400, message=words)
seen(*OAUTH, http_status=404, message="no such OAuth endpoint", phase="dial")
MALFORMED = ("the server refused the request as malformed", K.PROTOCOL, D.REJECTED, False)
seen(*MALFORMED, http_status=402, message="oauth")
seen(*MALFORMED, **wire(-32600, "oauth", http_status=400))
UNAUTHORIZED = ("the server refused the credentials", K.AUTH, D.REJECTED, False)
seen(*UNAUTHORIZED, http_status=401, message="token expired", session_sent=True)
seen(*UNAUTHORIZED, **wire(-32010, "Unauthorized", http_status=401))
seen(*UNAUTHORIZED, http_status=401, message="invalid_grant")
PROXY_CREDENTIALS = ("the proxy requires other credentials", K.CONFIG, D.REJECTED, False)
seen(*PROXY_CREDENTIALS, http_status=407)
seen(*PROXY_CREDENTIALS, http_status=407, session_sent=True, message="Proxy Authentication Required")
FORBIDDEN = ("the credentials do not allow this call", K.AUTH, D.REJECTED, False)
seen(*FORBIDDEN, http_status=403, message="insufficient_scope", session_sent=True)
seen("too many requests", K.RATE_LIMITED, D.REJECTED, True, http_status=429, session_sent=True, message="slow down")

# -- HTTP: not found

METHOD = ("the server does not know this method", K.APPLICATION, D.REJECTED, True)
seen(*METHOD, **wire(-32601, "Method not found", http_status=404, era="modern"))
seen(*METHOD, **wire(-32601, "Method not found", http_status=404, era="modern", session_sent=False, phase="call"))
METHOD_OR_SESSION = ("the server does not know this method, or not this session", K.APPLICATION, D.REJECTED, False)
seen(*METHOD_OR_SESSION, **wire(-32601, "Method not found", http_status=404, session_sent=True))
seen(*METHOD_OR_SESSION, **wire(-32601, "Method not found", http_status=404, session_sent=True, phase="dial"))
SESSION_OR_ROUTE = (
    "the server did not find the session, or has no such route",
    K.SESSION_EXPIRED,
    D.REJECTED,
    False,
)
for phase in ("call", "probe", "idle", None):
    seen(
        *SESSION_OR_ROUTE,
        http_status=404,
        session_sent=True,
        content_type="application/json",
        message='{"detail":"Not Found"}',
        phase=phase,
    )
seen(*SESSION_OR_ROUTE, http_status=404, session_sent=True, content_type="application/problem+json", message="{}")
NO_ROUTE = ("a proxy has no route to the server", K.UNAVAILABLE, D.UNKNOWN, False)
seen(*NO_ROUTE, http_status=404, message="404 page not found", content_type="text/plain", session_sent=True)
seen(*NO_ROUTE, http_status=404, message="404 page not found", content_type="text/plain", phase="dial")
seen(*NO_ROUTE, http_status=404, content_type="text/html", session_sent=True, phase="dial")
seen(*NO_ROUTE, http_status=404, message="nothing here", session_sent=True, phase="dial")
seen(*NO_ROUTE, http_status=404, message="{}", content_type="application/json", session_sent=True, phase="dial")
seen(*NO_ROUTE, **local(-32601, "Method not found", http_status=404, session_sent=True))
GONE_AWAY = ("nothing is there any more", K.UNAVAILABLE, D.UNKNOWN, False)
for phase in ("call", "probe", "idle"):
    seen(*GONE_AWAY, http_status=404, content_type="text/html", phase=phase)
    seen(*GONE_AWAY, http_status=404, content_type="application/json", message="{}", phase=phase)
seen(*GONE_AWAY, **wire(-32600, "no", http_status=404, phase="call"))
seen(*GONE_AWAY, **local(-32601, "Not Found", http_status=404, phase="call"))
NOTHING_THERE = ("there is no MCP server at this URL", K.CONFIG, D.REJECTED, True)
seen(*NOTHING_THERE, http_status=404, content_type="text/html", phase="dial")
seen(*NOTHING_THERE, http_status=404, content_type="", phase="dial")
seen(*NOTHING_THERE, **local(-32601, "Not Found", http_status=404, phase="dial"))

# -- HTTP: the rest

seen("the server timed out", K.TIMEOUT, D.UNKNOWN, False, http_status=408)
CUT_OFF = ("the request was cut off", K.TIMEOUT, D.UNKNOWN, False)
seen(*CUT_OFF, http_status=499)
seen(*CUT_OFF, **wire(-32000, "gone", http_status=499))
seen(*INTERNAL, **wire(-32603, "boom", http_status=500))
seen(*INTERNAL, **wire(-32002, "boom", http_status=500))
for status in (400, 422, 499):
    seen(*INTERNAL, **wire(-32603, "boom", http_status=status, session_sent=True))
seen(*DOWN, http_status=500, content_type="text/html")
seen(*DOWN, **local(-32603, "Server returned an error response", http_status=500))
seen(*DOWN, **wire(-32603, "boom", http_status=501))
seen(*DOWN, http_status=503, message="Connection refused", session_sent=True)
seen(*DOWN, http_status=500, from_wire=True)
seen(*DOWN, http_status=599)
ACCEPTED = ("the server answered a request with 202 Accepted", K.PROTOCOL, D.UNKNOWN, False)
seen(*ACCEPTED, **local(-32600, "server answered a request with 202 Accepted", http_status=202))
seen(*ACCEPTED, http_status=202, content_type="text/html")
REDIRECT = ("the URL redirects elsewhere", K.CONFIG, D.REJECTED, False)
for status in (301, 307, 308):
    seen(*REDIRECT, http_status=status, content_type="text/html")
SENT_ON = ("the server answered with a redirect", K.CONFIG, D.UNKNOWN, False)
for status in (300, 302, 303, 399):
    seen(*SENT_ON, http_status=status)
seen(*SENT_ON, **wire(-32000, "Unknown session", http_status=399))
seen(*SENT_ON, **wire(-32603, "no", http_status=399))
for code in (-32600, -32000, -32700, -32020, -32021, -32022):
    seen(*MALFORMED, **wire(code, "Bad Request: Missing session ID", http_status=400, session_sent=True))
seen(*MALFORMED, http_status=400, session_sent=True)
seen(*MALFORMED, http_status=410, session_sent=True, content_type="application/json", message="{}")
seen(*MALFORMED, http_status=413)
seen(*MALFORMED, http_status=498)
REFUSED = ("the server refused the request", K.APPLICATION, D.REJECTED, False)
seen(*REFUSED, **local(-32603, "made up", http_status=400))
seen(*REFUSED, **wire(-32602, "Invalid params", http_status=400))
seen(*REFUSED, **wire(-32602, "Invalid params", http_status=422))
WEB_PAGE = ("the URL serves a web page, not an MCP server", K.CONFIG, D.UNKNOWN, False)
seen(*WEB_PAGE, http_status=200, content_type="text/html; charset=utf-8")
seen(*WEB_PAGE, http_status=200, content_type="text/plain", message="Session not found")
seen(*WEB_PAGE, http_status=299, content_type="text/html")
seen(*WEB_PAGE, **local(-32000, "Unexpected content type: text/html"))
seen(*WEB_PAGE, **raised(ValueError("Unexpected content type: text/html")))
seen(*DOUBTFUL, **wire(-32000, "Unexpected content type: text/html", http_status=200, content_type="application/json"))
CALL_FAILED = ("the call failed", K.APPLICATION, D.UNKNOWN, True)
seen(*CALL_FAILED, http_status=199, content_type="text/html")
seen(*CALL_FAILED, http_status=200, content_type="")
seen(*CALL_FAILED, http_status=200, content_type=" Application/JSON; charset=utf-8")
seen(*CALL_FAILED, http_status=200, content_type="text/event-stream ; x")
seen(*CALL_FAILED, http_status=200, content_type="application/json", message="Session not found")

# -- JSON-RPC

seen(*SAID, **wire(-32602, "Invalid params: Invalid or expired session", http_status=200))
seen(*SAID, **wire(-32004, "Unknown session"))
seen(*SAID, **local(-32001, "Session not found"))
seen(*SAID, **raised(MCPError(-32001, "Session not found")))
SPEAKS = ("the server's error mentions a lost session, among other things", K.SESSION_EXPIRED, D.UNKNOWN, False)
seen(*SPEAKS, **wire(-32603, "Tool failed: the shop's session expired"))
seen(*SPEAKS, **wire(1, "Your session has expired. Please log in again.", http_status=200))
ENDED = ("the transport ended", K.TRANSPORT_LOST, D.UNKNOWN, True)
seen(*ENDED, **local(-32000, "Connection closed"))
seen(*ENDED, **local(-32000, "MCP error -32000: Connection closed"))
seen(*ENDED, **raised(MCPError(-32000, "Connection closed")))
seen(*ENDED, **raised(RuntimeError("Connection closed")))
DROPPED = ("the server dropped the request", K.TRANSPORT_LOST, D.UNKNOWN, False)
seen(*DROPPED, **wire(-32000, "Connection closed"))
seen(*DROPPED, **wire(-32603, "Transport closed"))
seen(*DROPPED, **local(-32603, "Transport closed"))
STREAM = ("the event stream ended before the answer", K.TRANSPORT_LOST, D.UNKNOWN, False)
seen(*STREAM, **local(-32000, "SSE stream ended and reconnection attempts were exhausted"))
seen(*DOUBTFUL, **wire(-32603, "SSE stream ended"))
seen(*DOUBTFUL, **wire(-32000, "the SSE stream ended"))
seen(*DOUBTFUL, **wire(-32000, "SSE stream ended"))
seen(*DOUBTFUL, **local(-32603, "SSE stream ended"))
seen(*DOUBTFUL, **local(-32000, "no such stream"))
LATE = ("no answer in time", K.TIMEOUT, D.UNKNOWN, False)
seen(*LATE, **local(-32001, "Request timed out"))
seen(*LATE, **local(408, "Timed out while waiting for response to CallToolRequest. Waited 30.0 seconds."))
seen(*DOUBTFUL, **wire(-32001, "Request timed out"))
UNREADABLE = ("the answer could not be read", K.PROTOCOL, D.UNKNOWN, False)
seen(*UNREADABLE, **local(-32700, "Failed to parse JSON-RPC message"))
seen(*UNREADABLE, **local(-32600, "Server answered with something else"))
seen(*DOUBTFUL, **wire(-32700, "Failed to parse JSON-RPC message"))
seen(*DOUBTFUL, **local(-32701, "Failed to parse"))
seen(*DOUBTFUL, **local(-32700, "We failed to parse"))
seen(*REDIRECT, **local(-32600, "Redirect to https://example.com"))
seen(*DOUBTFUL, **wire(-32600, "Redirect to https://example.com"))
seen(*ANSWERED, **local(-32601, "Redirect to https://example.com"))
seen(*DOUBTFUL, **local(-32600, "No redirect to anywhere"))
OPAQUE = ("the server answered with an error that could not be parsed", K.UNAVAILABLE, D.UNKNOWN, False)
seen(*OPAQUE, **local(-32603, "Server returned an error response"))
seen(*DOUBTFUL, **wire(-32603, "Server returned an error response"))
seen(*ANSWERED, **local(-32602, "Server returned an error response"))
seen(*DOUBTFUL, **local(-32603, "Server returned an error response!"))
VERSIONS = ("the versions do not fit", K.PROTOCOL, D.UNKNOWN, False)
for code in (-32020, -32021, -32022):
    seen(*VERSIONS, **wire(code, "no", http_status=200))
seen(*DOUBTFUL, **wire(-32023, "no"))
seen(*ANSWERED, **wire(-32602, "Missing parameter"))
seen(*ANSWERED, **wire(0, ""))
for code in (-32769, -31999, -32601, -32602, -32002, 4711):
    seen(*ANSWERED, **wire(code, "no", http_status=200))
for code in (-32768, -32000, -32600, -32603, -32700, -32001):
    seen(*DOUBTFUL, **wire(code, "no", http_status=200))
seen(*ANSWERED, **raised(MCPError(-32002, "Resource not found")))

# -- exceptions

UNUSABLE = ("its configuration cannot be used", K.CONFIG, D.NOT_SENT, True)
seen(*UNUSABLE, **raised(ConfigError("server 'a': unknown key 'session not found'"), phase="dial", written=False))
seen("the call failed", K.APPLICATION, D.UNKNOWN, True, **raised(ConfigError("a callback's own"), phase="call"))
UNTRUSTED = ("the server's certificate is not trusted", K.CONFIG, D.NOT_SENT, True)
seen(*UNTRUSTED, **raised(ssl.SSLCertVerificationError("self-signed certificate")))
seen(
    "the credentials are not available now",
    K.UNAVAILABLE,
    D.NOT_SENT,
    False,
    **raised(CredentialsUnavailable("the authorization server does not answer")),
)
PROXY = ("the proxy refused the request", K.CONFIG, D.NOT_SENT, True)
seen(*PROXY, **raised(ProxyRefused("the proxy refused the connection: HTTP 407")))
SCHEME = ("the URL's scheme is not the server's", K.CONFIG, D.NOT_SENT, True)
seen(*SCHEME, **raised(WrongScheme("the server does not speak TLS")))
OUT_OF_REACH = ("the server cannot be reached", K.UNAVAILABLE, D.NOT_SENT, False)
for each in (
    httpx2.ConnectError("All connection attempts failed"),
    httpx2.ConnectTimeout(""),
    httpx2.PoolTimeout(""),
    httpx2.ProxyError("502"),
    ConnectionRefusedError("Connection refused"),
    socket.gaierror("Name or service not known"),
):
    seen(*OUT_OF_REACH, **raised(each))
URL = ("the URL cannot be used", K.CONFIG, D.NOT_SENT, True)
seen(*URL, **raised(httpx2.UnsupportedProtocol("no scheme")))
seen(*URL, **raised(httpx2.InvalidURL("no")))
UNWRITTEN = ("the request could not be written", K.PROTOCOL, D.NOT_SENT, True)
seen(*UNWRITTEN, **raised(httpx2.LocalProtocolError("Illegal header value")))
STILLBORN = ("the server process exited before the handshake", K.TRANSPORT_LOST, D.NOT_SENT, True)
seen(*STILLBORN, **raised(ChildExited(1, []), phase="dial"))
seen(*STILLBORN, **raised(ChildExited(0, [], certain=False), phase="dial"))
seen(*ENDED, **raised(ChildExited(-9, []), phase="idle"))
seen(*ENDED, **raised(ChildExited(None, [])))
LAUNCHED = ("the process that was started has ended, and its pipes are still open", K.TRANSPORT_LOST, D.UNKNOWN, False)
seen(*LAUNCHED, **raised(ChildExited(0, [], certain=False), phase="idle"))
seen(*LAUNCHED, **raised(ChildExited(1, [], certain=False)))
for each in (
    anyio.ClosedResourceError(),
    anyio.BrokenResourceError(),
    anyio.EndOfStream(),
    anyio.IncompleteRead(),
):
    seen(*ENDED, **raised(each))
    seen(*ENDED, **raised(each, phase="dial"))
CUT = ("the connection was cut", K.TRANSPORT_LOST, D.UNKNOWN, False)
for each in (
    httpx2.ReadError(""),
    httpx2.WriteError(""),
    httpx2.RemoteProtocolError("peer closed connection without sending complete message body"),
    ConnectionResetError(),
    BrokenPipeError(),
):
    seen(*CUT, **raised(each))
    seen(*CUT, **raised(each, http_status=200, content_type="application/json"))
NO_LOGIN = ("the authorization failed", K.AUTH, D.REJECTED, True)
for each in (
    OAuthFlowError("no"),
    OAuthTokenError("no"),
    OAuthRegistrationError("no"),
    CredentialsRefused("log in again"),
):
    seen(*NO_LOGIN, **raised(each, phase="dial"))
for each in (TimeoutError(), httpx2.ReadTimeout("")):
    seen(*LATE, **raised(each))
UNUSABLE = ("the answer cannot be used", K.PROTOCOL, D.UNKNOWN, False)
for each in (
    MessageTooLarge("the answer is larger than 5 bytes"),
    httpx2.DecodingError("Error -3 while decompressing data"),
    httpx2.StreamClosed(),
):
    seen(*UNUSABLE, **raised(each))
SPAWN = ("the command cannot be started", K.CONFIG, D.NOT_SENT, True)
seen(*SPAWN, **raised(CannotStart(FileNotFoundError(errno.ENOENT, "No such file or directory")), phase="dial"))
seen(*SPAWN, **raised(CannotStart(ValueError("embedded null byte"))))
NO_ROOM = ("no process can be started now", K.UNAVAILABLE, D.NOT_SENT, False)
seen(*NO_ROOM, **raised(CannotStart(OSError(errno.EMFILE, "Too many open files")), phase="dial"))
seen(*NO_ROOM, **raised(CannotStart(BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable"))))
for each in (FileNotFoundError("nosuch"), PermissionError()):
    seen(*CALL_FAILED, **raised(each, phase="call"))
PHRASE = ("an error says the session is not known", K.SESSION_EXPIRED, D.REJECTED, False)
seen(*PHRASE, **raised(RuntimeError("Invalid or expired session")))
seen(*PHRASE, **raised(RuntimeError("unknown session ID"), phase="dial"))
seen(*PHRASE, **raised(RuntimeError("Session terminated"), http_status=200))
seen(*PHRASE, message="unknown session ID")
MENTION = ("an error mentions a lost session, among other things", K.SESSION_EXPIRED, D.UNKNOWN, False)
seen(*MENTION, **raised(RuntimeError("Checkout failed: session expired")))
seen(*MENTION, message="the session not found here")
REFUSED_HANDSHAKE = ("the server refused the handshake", K.PROTOCOL, D.REJECTED, True)
for code in (-32600, -32601, -32602, -32022):
    seen(*REFUSED_HANDSHAKE, **wire(code, "no", phase="dial"))
    seen(*REFUSED_HANDSHAKE, **wire(code, "no", phase="dial", http_status=200))
    seen(*REFUSED_HANDSHAKE, **wire(code, "no", phase="dial", http_status=404, session_sent=False))
seen(*REFUSED_HANDSHAKE, **wire(-32600, "no", phase="dial", http_status=499))
seen(*DOWN, **wire(-32600, "no", phase="dial", http_status=501))
seen(*INTERNAL, **wire(-32600, "no", phase="dial", http_status=500))
seen(*DOUBTFUL, **wire(-32603, "no", phase="dial"))
seen(*ANSWERED, **local(-32601, "no", phase="dial"))
seen(*ANSWERED, **wire(-32601, "no", phase="dial", session_sent=True))
HANDSHAKE = ("the handshake failed", K.PROTOCOL, D.UNKNOWN, True)
seen(*HANDSHAKE, **raised(RuntimeError("Unsupported protocol version"), phase="dial"))
seen(*CALL_FAILED, phase="dial")
seen(*CALL_FAILED, **raised(RuntimeError("Unsupported protocol version"), phase="call"))
seen(*CALL_FAILED, **raised(RuntimeError("Session terminated before the dinner")))
seen(*CALL_FAILED, **raised(RuntimeError()))
seen(*CALL_FAILED)

# -- how servers say it: every way, and what only sounds like it

SAYINGS = """
invalid session|expired session|unknown session|invalid or expired session|expired or unknown session
unknown or invalid session id|Invalid MCP-session|Unknown Mcp-Session-Id|session expired|session was expired
session has expired|session is closing|session user mismatch|Session ID not found|session id expired
session with id 'df859b7e' could not be found.|MCP session with ID abc7 not found|no valid session ID provided
could not find session 7|Bad Request: Server not initialized|Session terminated|session is not initialized
the session not found|this session expired|your session expired|session 7 not found|session id a.b:c_9-x expired
session "x y" not found|session 'x y' not found|session (x7) not found|session <x7> not found|no active session
no such session|session belongs to another user|session belongs to a different user|session opened by another user
session owned by another user
unknown session: 7|unknown session 7|the server not initialized|invalid session 7!|MCP error -32000: session expired
MCP error: session expired|MCP error 7: session expired|error: session expired|not found: session expired
unauthorized: session expired|forbidden:session expired|invalid params: invalid or expired session
invalid request: no valid session|internal error: session expired|error: bad request: session not found.
session not found or expired|session not found or has expired|mcp session expired
""".replace("\n", "|")
"""Refusals: they name a session, and say nothing else."""
MENTIONS = """
the session not found here|Checkout failed: session expired|session expired while charging|shop session expired
session with id of the checkout not found|session expired. please log in|error session expired|an invalid session
invalid session and more|no valid session for this customer|could not find session of the day|tool: unknown session
session expired!!|session expired?|session not found: gone
session terminated by admin: invalid session|server not initialized yet|unknown mcp session provider
no session: no active session|a b session expired|invalid or broken session: session expired
""".replace("\n", "|")
"""They name a session, among other things."""
OTHER_SAYINGS = """
session|invalid|valid session|expired token|sessions are fine|no session|found session|session started
session terminated by admin|session with id 7|could not be found|the server is not initialized|session idle
invalid-session|valid or good session|Tool failed to execute|Missing parameter|Connection refused|401 Unauthorized
session  expired|session id is closed|could not find it|no valid reason|server not found
session not started|session has begun|session user list|tool with id 7 not found|session with id 7 not running
a valid session|you should not find session 7|session terminated.by|session belongs to me
session belongs to another customer|session of another user
session opened by hand|no inactive session|not initialized|missing session ID|session ID required
session seven eight not found|session "" not found|session was found|session is fine
""".replace("\n", "|")


def sayings(text: str) -> list[str]:
    """The phrases of one of the lists."""
    return [each.strip() for each in text.split("|") if each.strip()]


for words in sayings(SAYINGS):
    seen(*SAID, **wire(-32000, words))
    seen(*PHRASE, **raised(RuntimeError(words.upper())))
for words in sayings(MENTIONS):
    seen(*SPEAKS, **wire(-32000, words))
    seen(*MENTION, **raised(RuntimeError(words.upper())))
for words in sayings(OTHER_SAYINGS):
    seen(*DOUBTFUL, **wire(-32000, words))
    seen(*CALL_FAILED, **raised(RuntimeError(words)))
seen(*SPEAKS, **wire(-32000, f"session with id {'x' * 80} not found"))
seen(*DOUBTFUL, **wire(-32000, f"session with id {'x' * 81} not found"))
seen(*SAID, **wire(-32000, f"session with id {'x' * 79}7 not found"))
