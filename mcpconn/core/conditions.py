"""Conditions of the rules in `classify` that take more than one line."""

from __future__ import annotations

from mcpconn.core.seen import Seen

OWN_CODES = (-32601, -32602, -32002)
"""Method not found, invalid params, resource not found: errors with which a server answers one particular call."""
RESERVED_CODES = range(-32768, -32000 + 1)
"""The codes that JSON-RPC reserves for itself and its implementations. All others belong to the application."""
HANDSHAKE_REFUSALS = (-32600, -32601, -32602, -32022)
"""If `initialize` is answered with one of these, the server will give the same answer the next time."""


def is_lost_by_status(seen: Seen) -> bool:
    """A refusal of a request with a session id that only the server itself can have sent."""
    if not seen.evidence.session_sent:
        return False
    if seen.status == 404:
        # -32601 may concern only the method.
        spoken = seen.code is not None and seen.code != -32601
        return spoken or seen.names_session or not (seen.media_type or seen.text)
    return seen.status in (400, 401, 403, 503) and seen.refuses_session


def is_unknown_method(seen: Seen) -> bool:
    """In the modern era an unknown method is answered with 404 and -32601."""
    return seen.status == 404 and seen.code == -32601 and seen.evidence.from_wire is True


def is_refused_handshake(seen: Seen) -> bool:
    """The first request of a dial, which has no session yet, was answered with a permanent error."""
    first = seen.evidence.phase == "dial" and not seen.evidence.session_sent
    return first and seen.status < 500 and seen.code in HANDSHAKE_REFUSALS and seen.evidence.from_wire is True


def is_own_answer(seen: Seen) -> bool:
    """An error that is clearly the application's answer to this call and does not concern the session."""
    return seen.code is not None and (seen.code in OWN_CODES or seen.code not in RESERVED_CODES)


def is_spoken(seen: Seen) -> bool:
    """Whether the text is that of an error: the text of a successful HTTP exchange belongs to the application."""
    return bool(seen.errors) or seen.status == 0
