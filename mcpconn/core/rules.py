"""From evidence to failure: one table of rules, read from the top; the first match decides.

The rules are ordered by reliability: cancellation, then the HTTP exchange, then the JSON-RPC error, then the local
exception. The text of an error alone proves nothing: a phrase is only a suspicion, and the probe that follows provides
the proof. So the list of phrases can be broad.

Servers refuse forgotten sessions in more ways than any list can contain. So the rules define which answers are clearly
the application's own, and every other answer is a suspicion.

A request whose bytes never left this process is NOT_SENT, regardless of the rule. One whose bytes did leave is not,
even if its errors contain a "connection refused", which may come from the caller or from a retry.
"""

from __future__ import annotations

from mcpconn.core.attempt import CUT_OFF, NOT_PROCESSED
from mcpconn.core.conditions import (
    is_lost_by_status,
    is_own_answer,
    is_refused_handshake,
    is_spoken,
    is_unknown_method,
)
from mcpconn.core.failures import Delivery, FailureKind, Trouble
from mcpconn.core.rule import Rule, proof, suspicion
from mcpconn.core.sdk_words import CANCELLED, CLOSED, CUT, NO_JSON, REDIRECTED, REFUSED, STREAM_CUT, UNREADABLE

OAUTH_WORDS = (
    "oauth",
    "invalid_grant",
    "invalid_client",
    "unauthorized_client",
    "refresh_token",
    "refresh token",
)
NOT_SENT_ERRORS = (
    "ConnectError",
    "ConnectTimeout",
    "PoolTimeout",
    "ProxyError",
    "ConnectionRefusedError",
    "gaierror",
)
CUT_ERRORS = ("NetworkError", "RemoteProtocolError", "ConnectionError")
ENDED_ERRORS = ("ClosedResourceError", "BrokenResourceError", "EndOfStream", "IncompleteRead")
PROTOCOL_CODES = (-32020, -32021, -32022)
"""Header mismatch, missing client capability, unsupported protocol version (2026-07-28)."""

CANCELLATION: tuple[Rule, ...] = (
    proof("cancelled", FailureKind.CANCELLED, Delivery.UNKNOWN, lambda seen: seen.cancelled),
    proof(
        "cancelled on this side",
        FailureKind.CANCELLED,
        Delivery.UNKNOWN,
        lambda seen: seen.local and not seen.status and seen.text in CANCELLED,
    ),
)

HTTP: tuple[Rule, ...] = (
    # First, because with any status this text means that the request was running.
    proof(
        "the session ended while the request was running",
        FailureKind.TRANSPORT_LOST,
        Delivery.UNKNOWN,
        lambda seen: seen.text == CUT,
    ),
    proof("the server no longer knows the session", FailureKind.SESSION_EXPIRED, Delivery.REJECTED, is_lost_by_status),
    suspicion(
        "the server says it does not know the session",
        FailureKind.SESSION_EXPIRED,
        Delivery.REJECTED,
        lambda seen: (400 <= seen.status < 500 and seen.names_session) or (seen.status >= 500 and seen.refuses_session),
    ),
    suspicion(
        "the authorization server refused the credentials",
        FailureKind.AUTH,
        Delivery.REJECTED,
        lambda seen: seen.status in (400, 404) and seen.code is None and any(word in seen.text for word in OAUTH_WORDS),
    ),
    suspicion(
        "the server refused the credentials", FailureKind.AUTH, Delivery.REJECTED, lambda seen: seen.status == 401
    ),
    suspicion(
        "the proxy requires other credentials",
        FailureKind.CONFIG,
        Delivery.REJECTED,
        lambda seen: seen.status == 407,
    ),
    suspicion(
        "the credentials do not allow this call", FailureKind.AUTH, Delivery.REJECTED, lambda seen: seen.status == 403
    ),
    proof("too many requests", FailureKind.RATE_LIMITED, Delivery.REJECTED, lambda seen: seen.status == 429),
    proof("the server refused the handshake", FailureKind.PROTOCOL, Delivery.REJECTED, is_refused_handshake),
    suspicion(
        "the server does not know this method, or not this session",
        FailureKind.APPLICATION,
        Delivery.REJECTED,
        lambda seen: is_unknown_method(seen) and bool(seen.evidence.session_sent),
    ),
    proof("the server does not know this method", FailureKind.APPLICATION, Delivery.REJECTED, is_unknown_method),
    suspicion(
        "the server did not find the session, or has no such route",
        FailureKind.SESSION_EXPIRED,
        Delivery.REJECTED,
        lambda seen: (
            seen.status == 404
            and bool(seen.evidence.session_sent)
            and seen.media_type.endswith("json")
            and seen.evidence.phase != "dial"
        ),
    ),
    suspicion(
        "a proxy has no route to the server",
        FailureKind.UNAVAILABLE,
        Delivery.UNKNOWN,
        lambda seen: seen.status == 404 and (bool(seen.evidence.session_sent) or "page not found" in seen.text),
    ),
    suspicion(
        "nothing is there any more",
        FailureKind.UNAVAILABLE,
        Delivery.UNKNOWN,
        lambda seen: seen.status == 404 and seen.evidence.phase in ("call", "probe", "idle"),
    ),
    proof("there is no MCP server at this URL", FailureKind.CONFIG, Delivery.REJECTED, lambda seen: seen.status == 404),
    suspicion("the server timed out", FailureKind.TIMEOUT, Delivery.UNKNOWN, lambda seen: seen.status == 408),
    suspicion(
        "the server reported an internal error",
        FailureKind.APPLICATION,
        Delivery.UNKNOWN,
        lambda seen: (
            seen.evidence.from_wire is True
            and ((seen.status == 500 and seen.code is not None) or (400 <= seen.status < 500 and seen.code == -32603))
        ),
    ),
    suspicion(
        "the server cannot answer now", FailureKind.UNAVAILABLE, Delivery.UNKNOWN, lambda seen: seen.status >= 500
    ),
    suspicion("the request was cut off", FailureKind.TIMEOUT, Delivery.UNKNOWN, lambda seen: seen.status in CUT_OFF),
    suspicion(
        "the server answered a request with 202 Accepted",
        FailureKind.PROTOCOL,
        Delivery.UNKNOWN,
        lambda seen: seen.status == 202,
    ),
    suspicion(
        "the URL redirects elsewhere", FailureKind.CONFIG, Delivery.REJECTED, lambda seen: seen.status in NOT_PROCESSED
    ),
    # 303 is the answer after a request was processed; 302 is used for both cases; the others make no sense after a
    # POST.
    suspicion(
        "the server answered with a redirect",
        FailureKind.CONFIG,
        Delivery.UNKNOWN,
        lambda seen: 300 <= seen.status < 400,
    ),
    suspicion(
        "the server refused the request as malformed",
        FailureKind.PROTOCOL,
        Delivery.REJECTED,
        lambda seen: (
            seen.status >= 400 and (seen.code is None or seen.code in (-32600, -32000, -32700, *PROTOCOL_CODES))
        ),
    ),
    suspicion(
        "the server refused the request", FailureKind.APPLICATION, Delivery.REJECTED, lambda seen: seen.status >= 400
    ),
    suspicion(
        "the URL serves a web page, not an MCP server",
        FailureKind.CONFIG,
        Delivery.UNKNOWN,
        lambda seen: (
            (200 <= seen.status < 300 and seen.media_type not in ("", "application/json", "text/event-stream"))
            or (seen.local and seen.text.startswith(NO_JSON))
        ),
    ),
)

JSONRPC: tuple[Rule, ...] = (
    suspicion(
        "the server says it does not know the session",
        FailureKind.SESSION_EXPIRED,
        Delivery.REJECTED,
        lambda seen: seen.code is not None and seen.refuses_session,
    ),
    suspicion(
        "the server's error mentions a lost session, among other things",
        FailureKind.SESSION_EXPIRED,
        Delivery.UNKNOWN,
        lambda seen: seen.code is not None and seen.names_session,
    ),
    # The SDK uses -32000 "Connection closed" for the end of a transport. A server that is shutting down sends the same
    # error for requests that it drops, and then it is no proof.
    proof(
        "the transport ended",
        FailureKind.TRANSPORT_LOST,
        Delivery.UNKNOWN,
        lambda seen: seen.local and seen.text in CLOSED,
    ),
    suspicion(
        "the server dropped the request",
        FailureKind.TRANSPORT_LOST,
        Delivery.UNKNOWN,
        lambda seen: seen.text in ("connection closed", "transport closed"),
    ),
    suspicion(
        "the event stream ended before the answer",
        FailureKind.TRANSPORT_LOST,
        Delivery.UNKNOWN,
        lambda seen: seen.local and seen.code == -32000 and seen.text.startswith(STREAM_CUT),
    ),
    suspicion(
        "no answer in time",
        FailureKind.TIMEOUT,
        Delivery.UNKNOWN,
        # -32001 is "Session not found" from a server and "timed out" from the SDK; 408 was SDK 1.x's code.
        lambda seen: seen.local and seen.code in (-32001, 408),
    ),
    suspicion(
        "the answer could not be read",
        FailureKind.PROTOCOL,
        Delivery.UNKNOWN,
        lambda seen: seen.local and seen.code in (-32700, -32600) and seen.text.startswith(UNREADABLE),
        quote=False,
    ),
    suspicion(
        "the URL redirects elsewhere",
        FailureKind.CONFIG,
        Delivery.REJECTED,
        lambda seen: seen.local and seen.code == -32600 and seen.text.startswith(REDIRECTED),
    ),
    suspicion(
        "the server answered with an error that could not be parsed",
        FailureKind.UNAVAILABLE,
        Delivery.UNKNOWN,
        lambda seen: seen.local and seen.code == -32603 and seen.text == REFUSED,
    ),
    suspicion(
        "the versions do not fit", FailureKind.PROTOCOL, Delivery.UNKNOWN, lambda seen: seen.code in PROTOCOL_CODES
    ),
    proof("the server answered with an error", FailureKind.APPLICATION, Delivery.UNKNOWN, is_own_answer),
    suspicion(
        "the server answered with an error that may not be about the call",
        FailureKind.APPLICATION,
        Delivery.UNKNOWN,
        lambda seen: seen.code is not None,
    ),
)

LOCAL: tuple[Rule, ...] = (
    proof(
        "its configuration cannot be used",
        FailureKind.CONFIG,
        Delivery.NOT_SENT,
        lambda seen: seen.is_own(Trouble.CONFIGURATION) and seen.evidence.phase == "dial",
    ),
    proof(
        "the server's certificate is not trusted",
        FailureKind.CONFIG,
        Delivery.NOT_SENT,
        lambda seen: seen.is_a("SSLCertVerificationError"),
    ),
    proof(
        "the proxy refused the request",
        FailureKind.CONFIG,
        Delivery.NOT_SENT,
        lambda seen: seen.is_own(Trouble.PROXY_REFUSED),
    ),
    proof(
        "the URL's scheme is not the server's",
        FailureKind.CONFIG,
        Delivery.NOT_SENT,
        lambda seen: seen.is_own(Trouble.WRONG_SCHEME),
    ),
    suspicion(
        "the credentials are not available now",
        FailureKind.UNAVAILABLE,
        Delivery.NOT_SENT,
        lambda seen: seen.is_own(Trouble.CREDENTIALS_UNAVAILABLE),
    ),
    suspicion(
        "the server cannot be reached",
        FailureKind.UNAVAILABLE,
        Delivery.NOT_SENT,
        lambda seen: seen.is_a(*NOT_SENT_ERRORS),
    ),
    proof(
        "the URL cannot be used",
        FailureKind.CONFIG,
        Delivery.NOT_SENT,
        lambda seen: seen.is_a("UnsupportedProtocol", "InvalidURL"),
    ),
    proof(
        "the request could not be written",
        FailureKind.PROTOCOL,
        Delivery.NOT_SENT,
        lambda seen: seen.is_a("LocalProtocolError"),
    ),
    # With any exit status: the cause may be an unreachable registry, a busy port, or memory. Unknown causes count as
    # transient.
    proof(
        "the server process exited before the handshake",
        FailureKind.TRANSPORT_LOST,
        Delivery.NOT_SENT,
        lambda seen: seen.told("transport_ended") is not None and seen.evidence.phase == "dial",
    ),
    # A launcher may exit while the server that it started continues over the inherited pipes.
    suspicion(
        "the process that was started has ended, and its pipes are still open",
        FailureKind.TRANSPORT_LOST,
        Delivery.UNKNOWN,
        lambda seen: seen.told("transport_ended") is False,
    ),
    proof(
        "the transport ended",
        FailureKind.TRANSPORT_LOST,
        Delivery.UNKNOWN,
        lambda seen: seen.told("transport_ended") is True or seen.is_a(*ENDED_ERRORS),
    ),
    suspicion(
        "the connection was cut", FailureKind.TRANSPORT_LOST, Delivery.UNKNOWN, lambda seen: seen.is_a(*CUT_ERRORS)
    ),
    proof(
        "the authorization failed",
        FailureKind.AUTH,
        Delivery.REJECTED,
        # The SDK's other OAuth errors are subclasses of its OAuthFlowError.
        lambda seen: seen.is_a("OAuthFlowError") or seen.is_own(Trouble.CREDENTIALS_REFUSED),
    ),
    suspicion(
        "no answer in time",
        FailureKind.TIMEOUT,
        Delivery.UNKNOWN,
        lambda seen: seen.is_a("TimeoutError", "TimeoutException"),
    ),
    suspicion(
        "the answer cannot be used",
        FailureKind.PROTOCOL,
        Delivery.UNKNOWN,
        # No message, another request's, too large, wrongly compressed, ...
        lambda seen: seen.is_own(Trouble.UNREADABLE_ANSWER) or seen.is_a("RequestError", "StreamError"),
    ),
    proof(
        "the command cannot be started",
        FailureKind.CONFIG,
        Delivery.NOT_SENT,
        lambda seen: seen.told("start_needs_person") is True,
    ),
    # Too many open files or processes, no memory, a program that is just being replaced.
    suspicion(
        "no process can be started now",
        FailureKind.UNAVAILABLE,
        Delivery.NOT_SENT,
        lambda seen: seen.told("start_needs_person") is False,
    ),
    suspicion(
        "an error says the session is not known",
        FailureKind.SESSION_EXPIRED,
        Delivery.REJECTED,
        lambda seen: is_spoken(seen) and seen.refuses_session,
    ),
    suspicion(
        "an error mentions a lost session, among other things",
        FailureKind.SESSION_EXPIRED,
        Delivery.UNKNOWN,
        lambda seen: is_spoken(seen) and seen.names_session,
    ),
    proof(
        "the handshake failed",
        FailureKind.PROTOCOL,
        Delivery.UNKNOWN,
        lambda seen: bool(seen.errors) and seen.evidence.phase == "dial",
    ),
    proof("the call failed", FailureKind.APPLICATION, Delivery.UNKNOWN, lambda seen: True),
)


DEFAULT_RULES: tuple[Rule, ...] = (*CANCELLATION, *HTTP, *JSONRPC, *LOCAL)
