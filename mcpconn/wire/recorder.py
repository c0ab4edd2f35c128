"""The record of each HTTP request that carries a message, kept below redirects and auth.

One message can take several HTTP requests: an auth flow sends it again after a 401, a redirect sends it to another
URL. Above the HTTP client only the last of them is seen. A failure is about one request, and what an earlier one may
have done is not undone by it, so each request gets a record of its own, opened here, where requests become bytes.
Requests that an auth flow makes for itself (metadata, tokens) carry no message and have no record.
"""

from __future__ import annotations

from typing import Any

import httpx2

from mcpconn.core.attempt import Attempt
from mcpconn.wire.responses import SESSION_HEADER

ATTEMPT_KEY = "mcpconn.attempt"
"""The request extension that holds the `Attempt` of the message which a request carries."""
UNSAFE_KEY = "mcpconn.unsafe"
"""The request extension that tells an engine to use a socket on which no other response can be waiting."""
HEADERS_STARTED = "http11.send_request_headers.started"
"""httpcore2's trace event before the first byte of a request is written. Our engine reports the same one."""

NEVER_SENT = (
    httpx2.ConnectError,
    httpx2.ConnectTimeout,
    httpx2.PoolTimeout,
    httpx2.ProxyError,
    httpx2.UnsupportedProtocol,
    httpx2.LocalProtocolError,
)
"""Errors after which nothing was written, from a transport that does not report when it writes."""


class Recorder(httpx2.AsyncBaseTransport):
    """A transport lent to the HTTP client of one session: sessions come and go, sockets stay."""

    def __init__(self, inner: httpx2.AsyncBaseTransport, *, in_session: bool = False) -> None:
        """
        Args:
            inner: Sends the requests. It is not closed with the client.
            in_session: Every request is part of a session, whatever its headers say, as with the SSE transport.
        """
        self._inner = inner
        self._in_session = in_session
        self._reports = bool(getattr(inner, "reports_writes", False)) or isinstance(inner, httpx2.AsyncHTTPTransport)

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        attempt: Attempt | None = request.extensions.get(ATTEMPT_KEY)
        # A request of the auth flow, which carries no message of the call.
        if attempt is None:
            return await self._inner.handle_async_request(request)
        # Once for each HTTP request: a redirect or an auth flow may send the message again.
        attempt.start_request(
            session_sent=self._in_session or SESSION_HEADER in request.headers,
            written=False if self._reports else None,
        )

        async def trace(name: str, info: dict[str, Any]) -> None:
            # A tunnel through a proxy begins with a CONNECT of its own, which carries no message.
            if name == HEADERS_STARTED and info["request"].method not in ("CONNECT", b"CONNECT"):
                attempt.written = True

        # A dict of its own: a redirect's request gets a copy of this one's extensions.
        request.extensions = {**request.extensions, "trace": trace, UNSAFE_KEY: attempt.unsafe}
        try:
            response = await self._inner.handle_async_request(request)
        except Exception as error:
            # The transport does not report. The type of its error is all that is known.
            if attempt.written is None:
                attempt.written = not isinstance(error, NEVER_SENT)
            raise
        attempt.written = True
        # Noted here as well, because the auth flow may consume this response and show another one above.
        attempt.http_status = response.status_code
        return response


def carrying(request: httpx2.Request, attempt: Attempt) -> httpx2.Request:
    """`request`, marked as carrying a message whose record is `attempt`."""
    request.extensions = {**request.extensions, ATTEMPT_KEY: attempt}
    return request
