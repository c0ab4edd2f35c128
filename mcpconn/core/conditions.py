"""Conditions of the rules in `classify` that take more than a line to say."""

from __future__ import annotations

from mcpconn.core.seen import Seen

OWN_CODES = (-32601, -32602, -32002)
"""Method not found, invalid params, resource not found: with these a server answers one call, and means it."""
RESERVED_CODES = range(-32768, -32000 + 1)
"""The codes that JSON-RPC keeps for itself and its implementations. All others are an application's own."""
HANDSHAKE_REFUSALS = (-32600, -32601, -32602, -32022)
"""`initialize` answered with one of these: the server will say the same the next time."""


def is_lost_by_status(seen: Seen) -> bool:
    """A refusal of a request with a session id that only the server itself can have written."""
    if not seen.evidence.session_sent:
        return False
    if seen.status == 404:
        # -32601 may be about the method alone.
        spoken = seen.code is not None and seen.code != -32601
        return spoken or seen.names_session or not (seen.media_type or seen.text)
    return seen.status in (400, 401, 403, 503) and seen.refuses_session


def is_unknown_method(seen: Seen) -> bool:
    """In the modern era a method the server does not know is a 404 with -32601."""
    return seen.status == 404 and seen.code == -32601 and seen.evidence.from_wire is True


def is_refused_handshake(seen: Seen) -> bool:
    """A dial's first request, which has no session yet, was answered with an error that will not pass."""
    first = seen.evidence.phase == "dial" and not seen.evidence.session_sent
    return first and seen.status < 500 and seen.code in HANDSHAKE_REFUSALS and seen.evidence.from_wire is True


def is_own_answer(seen: Seen) -> bool:
    """An error that is plainly the application's answer to this call, and says nothing of the session."""
    return seen.code is not None and (seen.code in OWN_CODES or seen.code not in RESERVED_CODES)


def is_spoken(seen: Seen) -> bool:
    """Whether the text is an error's: the text of a successful HTTP exchange is the application's."""
    return bool(seen.errors) or seen.status == 0
