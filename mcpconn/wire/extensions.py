"""The request extensions through which the HTTP client of a session and the engine below it communicate."""

from __future__ import annotations

ATTEMPT_KEY = "mcpconn.attempt"
"""The request extension that holds the `Attempt` of the message which a request carries."""
UNSAFE_KEY = "mcpconn.unsafe"
"""The request extension that tells an engine to use a socket on which no other response can be pending."""
HEADERS_STARTED = "http11.send_request_headers.started"
"""httpcore2's trace event before the first byte of a request is written. Our engine reports the same one."""
