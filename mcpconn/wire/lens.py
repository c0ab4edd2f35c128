"""The HTTP client that writes down what every request meets.

The SDK's transport reduces most refusals to "Server returned an error response". The lens stands above the auth
flow and below the transports (`streamable`, `sse`): it notes status, headers, words and exceptions in the record
of the call (`core.exchange`).
"""

from __future__ import annotations

from typing import Any

import httpx2
from mcp_types import ErrorData

from mcpconn.core.exchange import Exchange
from mcpconn.core.failures import Evidence
from mcpconn.redact import Redactor, is_secret_value
from mcpconn.wire.responses import SESSION_HEADER, close, discard, note_refusal, note_response

NEVER_SENT = (
    httpx2.ConnectError,
    httpx2.ConnectTimeout,
    httpx2.PoolTimeout,
    httpx2.ProxyError,
    httpx2.UnsupportedProtocol,
    httpx2.LocalProtocolError,
)


class Refused(Exception):
    """A response that holds no answer: its status says so. What it said is in the record of the request."""

    def __init__(self, status: int, error: ErrorData | None = None) -> None:
        super().__init__(f"HTTP {status}")
        self.status = status
        self.error = error
        """The JSON-RPC error in its body, if there was one."""


class Lens(httpx2.AsyncClient):
    """An `httpx2.AsyncClient` for one session."""

    def __init__(self, *, redact: Redactor, transport: httpx2.AsyncBaseTransport, sse: bool = False, **options: Any):
        """
        Args:
            redact: Hides secrets in what a server says.
            transport: Sends the requests. It is not closed with the client.
            sse: Every request is part of a session, whatever its headers say.
            options: As for `httpx2.AsyncClient`.
        """
        super().__init__(transport=transport, **options)
        self.redact = redact
        self._sse = sse

    async def deliver(
        self, url: httpx2.URL, headers: dict[str, str], body: bytes, exchange: Exchange
    ) -> httpx2.Response:
        """Send a message; the head of the response to it, with status 200 or another below 300.

        Raises:
            Refused: it was refused, or redirected elsewhere.
            Exception: whatever the HTTP client or the auth flow raised.
        """
        return await self.note(self.build_request("POST", url, headers=headers, content=body), exchange)

    async def note(self, request: httpx2.Request, exchange: Exchange) -> httpx2.Response:
        """Send a request, and write down in `exchange` what comes of it. Returns and raises as `deliver`."""
        exchange.session_sent = self._sse or SESSION_HEADER in request.headers
        exchange.written = None
        try:
            response = await self._send(request)
        except Exception as error:
            exchange.exception = error
            exchange.written = not isinstance(error, NEVER_SENT)
            raise
        exchange.written = True
        session_id = response.headers.get(SESSION_HEADER, "")
        if session_id and is_secret_value("", session_id):
            # Whoever has it can speak in this session. A plain word or number is hidden from no text.
            self.redact.learn(session_id)
        note_response(exchange, response)
        if response.status_code >= 400:
            try:
                said = await note_refusal(exchange, response, self.redact)
            except Exception as cut:
                exchange.exception = cut
                raise
            raise Refused(response.status_code, said)
        if response.status_code >= 300:
            await close(response)
            raise Refused(response.status_code)
        return response

    async def _send(self, request: httpx2.Request) -> httpx2.Response:
        return await self.send(request, stream=True, follow_redirects=False)

    async def tell(self, request: httpx2.Request) -> Evidence | None:
        """Send a request whose answer holds nothing; what went wrong is returned. Nothing is raised."""
        exchange = Exchange("idle")
        try:
            await discard(await self.note(request, exchange))
        except Refused:
            return exchange.evidence()
        except Exception as error:  # returned as evidence: a failed notification is no caller's failure
            exchange.exception = error
            return exchange.evidence()
        return None
