"""From evidence to failure: one table of rules, read from the top, the first that matches decides.

The order is the order of trust: cancellation, then what HTTP said, then what JSON-RPC said, then what was
raised on this side. The text of an error alone proves nothing: a phrase makes a suspicion, and the probe
that follows makes the proof. That is why the phrases can be broad.

A request whose bytes never left this process is NOT_SENT, whatever the rule says; one whose bytes did leave
is not, though a "connection refused" be found among its errors: that may be the caller's own, or a retry's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from mcpconn.core.failures import Delivery, Evidence, Failure, FailureKind
from mcpconn.core.seen import Seen

K, D = FailureKind, Delivery

SUMMARY_LIMIT = 300
"""Characters of a server's own words that go into a summary. A server can send megabytes."""


@dataclass(frozen=True)
class Rule:
    """One row: if `matches`, then a failure of this kind and delivery.

    Put your own in front: `classify(evidence, rules=(Rule(...), *DEFAULT_RULES))`, or
    `Manager(..., rules=[Rule(...)])`.
    """

    because: str
    """What it means, in words; the beginning of the failure's summary."""
    kind: FailureKind
    delivery: Delivery
    proof: bool
    """False makes it a suspicion, which a probe must confirm before anything is concluded."""
    matches: Callable[[Seen], bool]
    quote: bool = True
    """Whether the error's own words belong in the summary. A parser's hold pieces of somebody's data."""

    @classmethod
    def phrase(
        cls,
        text: str,
        kind: FailureKind = FailureKind.SESSION_EXPIRED,
        *,
        delivery: Delivery = Delivery.REJECTED,
        because: str | None = None,
    ) -> Rule:
        """A rule for a server's odd phrase, in any case, in a JSON-RPC error or an exception. Never proof."""
        wanted = text.strip().lower()
        if not wanted:
            raise ValueError("Rule.phrase needs a text: an empty one would match every error")
        return cls(because or f"the server said {text!r}", kind, delivery, False, lambda seen: wanted in seen.text)


def _refused_for_session(seen: Seen) -> bool:
    """A refusal that named the session."""
    return seen.status in (400, 401, 403, 404, 503) and seen.names_session


def _expired_by_status(seen: Seen) -> bool:
    """The same, of a request that carried one; or a 404 that only the server itself can have said."""
    if not seen.evidence.session_sent:
        return False
    if seen.status == 404 and (seen.code is not None or not (seen.media_type or seen.text)):
        return True
    return _refused_for_session(seen)


def _unknown_method(seen: Seen) -> bool:
    """In the modern era a method the server does not know is a 404 with -32601."""
    return seen.status == 404 and seen.code == -32601 and seen.evidence.from_wire is True


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
ENDED_ERRORS = ("ClosedResourceError", "BrokenResourceError", "EndOfStream", "IncompleteRead", "ChildExited")
SPAWN_ERRORS = (FileNotFoundError, PermissionError, NotADirectoryError, IsADirectoryError)
PROTOCOL_CODES = (-32020, -32021, -32022)
"""Header mismatch, missing client capability, unsupported protocol version (2026-07-28)."""

CANCELLATION: tuple[Rule, ...] = (
    Rule("cancelled", K.CANCELLED, D.UNKNOWN, True, lambda s: s.cancelled),
    Rule(
        "cancelled on this side",
        K.CANCELLED,
        D.UNKNOWN,
        True,
        lambda s: s.local and not s.status and s.text in ("request cancelled", "request was cancelled"),
    ),
)

HTTP: tuple[Rule, ...] = (
    # In front: whatever the status, these words say that the request was running.
    Rule(
        "the session ended while the request was running",
        K.TRANSPORT_LOST,
        D.UNKNOWN,
        True,
        lambda s: s.text == "session terminated before the request completed",
    ),
    Rule("the server no longer knows the session", K.SESSION_EXPIRED, D.REJECTED, True, _expired_by_status),
    Rule(
        "the server says it does not know the session",
        K.SESSION_EXPIRED,
        D.REJECTED,
        False,
        lambda s: _refused_for_session(s) or (s.status >= 400 and s.code is not None and s.names_session),
    ),
    Rule(
        "the authorization server refused the credentials",
        K.AUTH,
        D.REJECTED,
        False,
        lambda s: s.status in (400, 404) and s.code is None and any(word in s.text for word in OAUTH_WORDS),
    ),
    Rule("the server refused the credentials", K.AUTH, D.REJECTED, False, lambda s: s.status == 401),
    Rule("the credentials do not allow this call", K.AUTH, D.REJECTED, True, lambda s: s.status == 403),
    Rule("too many requests", K.RATE_LIMITED, D.REJECTED, True, lambda s: s.status == 429),
    Rule("the server does not know this method", K.APPLICATION, D.REJECTED, True, _unknown_method),
    Rule(
        "a proxy has no route to the server",
        K.UNAVAILABLE,
        D.UNKNOWN,
        False,
        lambda s: s.status == 404 and (bool(s.evidence.session_sent) or "page not found" in s.text),
    ),
    Rule(
        "nothing is there any more",
        K.UNAVAILABLE,
        D.UNKNOWN,
        False,
        lambda s: s.status == 404 and s.evidence.phase in ("call", "probe", "idle"),
    ),
    Rule("there is no MCP server at this URL", K.CONFIG, D.REJECTED, True, lambda s: s.status == 404),
    Rule("the server gave up waiting", K.TIMEOUT, D.UNKNOWN, False, lambda s: s.status == 408),
    Rule(
        "the server reported an internal error",
        K.APPLICATION,
        D.UNKNOWN,
        True,
        lambda s: s.status == 500 and s.code is not None and s.evidence.from_wire is True,
    ),
    Rule("the server cannot answer now", K.UNAVAILABLE, D.UNKNOWN, False, lambda s: s.status >= 500),
    Rule(
        "the server answered a request with 202 Accepted",
        K.PROTOCOL,
        D.UNKNOWN,
        True,
        lambda s: s.status == 202,
    ),
    Rule("the URL redirects elsewhere", K.CONFIG, D.REJECTED, True, lambda s: 300 <= s.status < 400),
    Rule(
        "the server refused the request as malformed",
        K.PROTOCOL,
        D.REJECTED,
        True,
        lambda s: s.status >= 400 and (s.code is None or s.code in (-32600, -32000, -32700, *PROTOCOL_CODES)),
    ),
    Rule("the server refused the request", K.APPLICATION, D.REJECTED, True, lambda s: s.status >= 400),
    Rule(
        "what answered is a web page, not an MCP server",
        K.CONFIG,
        D.UNKNOWN,
        True,
        lambda s: (
            (200 <= s.status < 300 and s.media_type not in ("", "application/json", "text/event-stream"))
            or (s.local and s.text.startswith("unexpected content type"))
        ),
    ),
)

JSONRPC: tuple[Rule, ...] = (
    Rule(
        "the server says it does not know the session",
        K.SESSION_EXPIRED,
        D.REJECTED,
        False,
        lambda s: s.code is not None and s.names_session,
    ),
    # -32000 "Connection closed" is the SDK's own word for the end of a transport; a server that is shutting
    # down sends the very same to the requests it drops, and then it is no proof.
    Rule(
        "the transport ended",
        K.TRANSPORT_LOST,
        D.UNKNOWN,
        True,
        lambda s: s.local and s.text.removeprefix("mcp error -32000: ") == "connection closed",
    ),
    Rule(
        "the server dropped the request",
        K.TRANSPORT_LOST,
        D.UNKNOWN,
        False,
        lambda s: s.text in ("connection closed", "transport closed"),
    ),
    Rule(
        "the event stream ended before the answer",
        K.TRANSPORT_LOST,
        D.UNKNOWN,
        False,
        lambda s: s.code == -32000 and s.text.startswith("sse stream"),
    ),
    Rule(
        "no answer in time",
        K.TIMEOUT,
        D.UNKNOWN,
        False,
        # -32001 is "Session not found" from a server and "timed out" from the SDK; 408 was SDK 1.x's code.
        lambda s: s.local and s.code in (-32001, 408),
    ),
    Rule(
        "the answer could not be read",
        K.PROTOCOL,
        D.UNKNOWN,
        True,
        lambda s: s.local and s.code in (-32700, -32600) and s.text.startswith(("failed to parse", "server answered")),
        quote=False,
    ),
    Rule(
        "the URL redirects elsewhere",
        K.CONFIG,
        D.REJECTED,
        True,
        lambda s: s.local and s.code == -32600 and s.text.startswith("redirect to"),
    ),
    Rule(
        "the server answered with an error that nobody could read",
        K.UNAVAILABLE,
        D.UNKNOWN,
        False,
        lambda s: s.local and s.code == -32603 and s.text == "server returned an error response",
    ),
    Rule("the versions do not fit", K.PROTOCOL, D.REJECTED, True, lambda s: s.code in PROTOCOL_CODES),
    Rule("the server answered with an error", K.APPLICATION, D.UNKNOWN, True, lambda s: s.code is not None),
)

LOCAL: tuple[Rule, ...] = (
    Rule(
        "the server's certificate is not trusted",
        K.CONFIG,
        D.NOT_SENT,
        True,
        lambda s: s.is_a("SSLCertVerificationError"),
    ),
    Rule(
        "the credentials cannot be had now",
        K.UNAVAILABLE,
        D.NOT_SENT,
        False,
        lambda s: s.is_a("CredentialsUnavailable"),
    ),
    Rule("the server cannot be reached", K.UNAVAILABLE, D.NOT_SENT, False, lambda s: s.is_a(*NOT_SENT_ERRORS)),
    Rule(
        "the URL cannot be used",
        K.CONFIG,
        D.NOT_SENT,
        True,
        lambda s: s.is_a("UnsupportedProtocol", "InvalidURL"),
    ),
    Rule(
        "the request could not be written",
        K.PROTOCOL,
        D.NOT_SENT,
        True,
        lambda s: s.is_a("LocalProtocolError"),
    ),
    Rule(
        "the server process exited before the handshake",
        K.CONFIG,
        D.NOT_SENT,
        True,
        lambda s: s.is_a("ChildExited") and s.evidence.phase == "dial",
    ),
    Rule("the transport ended", K.TRANSPORT_LOST, D.UNKNOWN, True, lambda s: s.is_a(*ENDED_ERRORS)),
    Rule("the connection was cut", K.TRANSPORT_LOST, D.UNKNOWN, False, lambda s: s.is_a(*CUT_ERRORS)),
    Rule(
        "the authorization failed",
        K.AUTH,
        D.REJECTED,
        True,
        # The SDK's other OAuth errors are subclasses of its OAuthFlowError.
        lambda s: s.is_a("OAuthFlowError", "CredentialsRefused"),
    ),
    Rule("no answer in time", K.TIMEOUT, D.UNKNOWN, False, lambda s: s.is_a("TimeoutError", "TimeoutException")),
    Rule(
        "the answer cannot be used",
        K.PROTOCOL,
        D.UNKNOWN,
        True,
        # Too large, wrongly compressed, ...: HTTP errors that none of the rules above knows.
        lambda s: s.is_a("MessageTooLarge", "RequestError", "StreamError"),
    ),
    Rule(
        "the command cannot be started",
        K.CONFIG,
        D.NOT_SENT,
        True,
        lambda s: s.evidence.phase in ("dial", None) and any(isinstance(e, SPAWN_ERRORS) for e in s.errors),
    ),
    Rule(
        "an error says the session is not known",
        K.SESSION_EXPIRED,
        D.REJECTED,
        False,
        lambda s: _speaks(s) and s.names_session,
    ),
    Rule(
        "the handshake failed",
        K.PROTOCOL,
        D.UNKNOWN,
        True,
        lambda s: bool(s.errors) and s.evidence.phase == "dial",
    ),
    Rule("the call failed", K.APPLICATION, D.UNKNOWN, True, lambda s: True),
)


def _speaks(seen: Seen) -> bool:
    """Whether the text is an error's: the text of a successful HTTP exchange is the application's."""
    return bool(seen.errors) or seen.status == 0


DEFAULT_RULES: tuple[Rule, ...] = (*CANCELLATION, *HTTP, *JSONRPC, *LOCAL)


def classify(evidence: Evidence, rules: Iterable[Rule] = DEFAULT_RULES) -> Failure:
    """What the evidence amounts to.

    Args:
        evidence: What was observed.
        rules: Tried in order. Where none matches, the rules of the core are tried after them, of which the
            last matches everything.
    """
    seen = Seen(evidence)
    rule = next(rule for rule in (*rules, *DEFAULT_RULES) if rule.matches(seen))
    # A cancellation wins over a user's rule too: it is never a fault of the connection.
    if seen.cancelled:
        rule = CANCELLATION[0]
    return Failure(
        kind=rule.kind,
        delivery=_delivery(rule, evidence),
        proof=rule.proof,
        summary=_summary(rule, seen),
        retry_after=evidence.retry_after,
        evidence=evidence,
    )


def _delivery(rule: Rule, evidence: Evidence) -> Delivery:
    if evidence.written is False:
        return D.NOT_SENT
    if evidence.written and rule.delivery is D.NOT_SENT:
        return D.UNKNOWN
    return rule.delivery


def _summary(rule: Rule, seen: Seen) -> str:
    details: list[str] = []
    if seen.status:
        details.append(f"HTTP {seen.status}")
    if seen.code is not None:
        details.append(f"JSON-RPC {seen.code}")
    said = (
        ""
        if not rule.quote
        else seen.message or next((str(error) for error in seen.errors[::-1] if str(error).strip()), "")
    )
    said = " ".join(said.split())
    if not said and seen.errors:
        said = type(seen.errors[0]).__name__
    if len(said) > SUMMARY_LIMIT:
        said = said[:SUMMARY_LIMIT] + "..."
    if said and said.lower() not in rule.because.lower():
        details.append(said)
    return f"{rule.because} ({', '.join(details)})" if details else rule.because
