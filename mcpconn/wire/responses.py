"""The evidence in an HTTP response besides its message: status, headers, and the text of a refusal."""

from __future__ import annotations

from datetime import datetime, timezone
from email.utils import parsedate_to_datetime

import httpx2
from mcp_types import ErrorData, JSONRPCError

from mcpconn.core.attempt import Attempt
from mcpconn.redact.redactor import Redactor
from mcpconn.wire.hints import hint
from mcpconn.wire.messages import Unreadable, read
from mcpconn.wire.reasons import PLAIN_ON_TLS, USE_HTTPS

SESSION_HEADER = "mcp-session-id"
MESSAGE_LIMIT = 1000
"""Characters kept of a refusal's plain text."""
BEFORE_TOOLS = frozenset({401, 403, 407, 429})
"""Statuses that prove that no tool was run, regardless of the body."""
RETRY_AFTER_LIMIT = 86_400.0
"""Maximum accepted Retry-After in seconds. "99999999999" is a mistake, and would silence a connection permanently."""


def note_response(attempt: Attempt, response: httpx2.Response, redact: Redactor) -> None:
    """Record the head of `response`."""
    attempt.http_status = response.status_code
    attempt.content_type = response.headers.get("content-type", "")
    if response.status_code >= 400:
        attempt.retry_after = retry_after(response.headers.get("retry-after"))
        attempt.challenge = response.headers.get("www-authenticate")
        attempt.hint = hint(response, redact)


def note_refusal(attempt: Attempt, status: int, body: bytes, redact: Redactor) -> ErrorData | None:
    """Record the body of a response with status 400 or more.

    Returns:
        The JSON-RPC error in it, if there is one. Secrets are replaced in its text, because it becomes the cause
        of what the caller sees.
    """
    # nginx, Apache and Go report http on an https port in the body, which is more specific than the status.
    if status == 400 and any(phrase in body for phrase in PLAIN_ON_TLS):
        attempt.hint = USE_HTTPS
    media_type = (attempt.content_type or "").lower()
    # A refusal without a body: its content type is not evidence.
    if not body.strip():
        attempt.content_type = ""
        return None
    try:
        # Errors at such a status often have no id; they are about the request that was refused.
        message = read(body, refusal=True)
    except Unreadable as unreadable:
        if unreadable.broken and media_type.startswith("application/json") and status not in BEFORE_TOOLS:
            # It may be the error of a tool that has run; its text is lost.
            attempt.progressed = True
        if "html" not in media_type:
            # Redacted before it is truncated, because a truncated token is not recognized and most of it would be
            # shown.
            attempt.message = redact(body.decode("utf-8", "replace"))[:MESSAGE_LIMIT]
        return None
    assert isinstance(message, JSONRPCError)
    error = ErrorData(code=message.error.code, message=redact(message.error.message), data=message.error.data)
    attempt.code, attempt.message, attempt.from_wire = error.code, error.message, True
    return error


def retry_after(value: str | None) -> float | None:
    """Retry-After in seconds from now (RFC 9110, 10.2.3): a number of seconds, or a date."""
    if not value:
        return None
    try:
        number = value.isascii() and value.strip().replace(".", "", 1).isdigit()
        return min(float(value) if number else _until(value), RETRY_AFTER_LIMIT)
    except (ValueError, TypeError, OverflowError):
        return None


def _until(value: str) -> float:
    when = parsedate_to_datetime(value)
    if when.tzinfo is None:
        when = when.replace(tzinfo=timezone.utc)
    return max(0.0, (when - datetime.now(timezone.utc)).total_seconds())
