"""The HTTP client that writes down what every request meets.

The SDK's transport reduces most refusals to "Server returned an error response". The client stands above the auth
flow and below the transports (`streamable`, `sse`): it notes status, headers, words and exceptions in the record
of the call (`core.attempt`).
"""

from __future__ import annotations

from typing import Any

import httpx2
from mcp_types import ErrorData

from mcpconn.core.attempt import Attempt
from mcpconn.core.failures import Evidence
from mcpconn.redact.places import is_secret_value
from mcpconn.redact.redactor import Redactor
from mcpconn.wire.recorder import Recorder, carrying
from mcpconn.wire.redirects import next_hop, target
from mcpconn.wire.responses import SESSION_HEADER, close, discard, note_refusal, note_response


class Refused(Exception):
    """A response that holds no answer: its status says so. What it said is in the record of the request."""

    def __init__(self, status: int, error: ErrorData | None = None) -> None:
        super().__init__(f"HTTP {status}")
        self.status = status
        self.error = error
        """The JSON-RPC error in its body, if there was one."""


class EvidenceClient(httpx2.AsyncClient):
    """An `httpx2.AsyncClient` for one session."""

    def __init__(self, *, redact: Redactor, transport: httpx2.AsyncBaseTransport, sse: bool = False, **options: Any):
        """
        Args:
            redact: Hides secrets in what a server says.
            transport: Sends the requests. It is not closed with the client.
            sse: Every request is part of a session, whatever its headers say.
            options: As for `httpx2.AsyncClient`.
        """
        # Below the auth flow: each HTTP request is recorded, those that a flow adds included.
        super().__init__(transport=Recorder(transport, in_session=sse), **options)
        self.redact = redact
        self._sse = sse

    async def send_message(
        self, url: httpx2.URL, headers: dict[str, str], body: bytes, attempt: Attempt
    ) -> httpx2.Response:
        """Send a message; the head of the response to it, with status 200 or another below 300.

        Raises:
            Refused: it was refused, or redirected elsewhere.
            Exception: whatever the HTTP client or the auth flow raised.
        """
        return await self.send_recorded(self.build_request("POST", url, headers=headers, content=body), attempt)

    async def send_recorded(self, request: httpx2.Request, attempt: Attempt) -> httpx2.Response:
        """Send a request, and write down in `attempt` what comes of it. Returns and raises as `send_message`."""
        # Over SSE the session is in the URL, so every request carries it.
        session_sent = self._sse or SESSION_HEADER in request.headers
        attempt.start_request(session_sent=session_sent, written=False)
        try:
            response = await self._send(request, attempt)
        except Exception as error:
            if attempt.http_status is not None:
                # The message was answered. What failed is a request of the auth flow, which carries no message.
                attempt.start_request(session_sent=session_sent, written=False)
            attempt.exception = error
            raise
        session_id = response.headers.get(SESSION_HEADER, "")
        if session_id and is_secret_value("", session_id):
            # Whoever has it can speak in this session. A plain word or number is hidden from no text.
            self.redact.learn(session_id)
        # The head first: if the body is cut off, status and headers are evidence all the same.
        note_response(attempt, response, self.redact)
        if response.status_code >= 400:
            try:
                said = await note_refusal(attempt, response, self.redact)
            except Exception as cut:
                attempt.exception = cut
                raise
            raise Refused(response.status_code, said)
        if response.status_code >= 300:
            # A redirect's body is for browsers.
            await close(response)
            attempt.message = self.redact(f"to {target(response) or 'nowhere'}")
            raise Refused(response.status_code)
        return response

    async def _send(self, request: httpx2.Request, attempt: Attempt) -> httpx2.Response:
        """Send a request, and once more if a redirect says that it belongs to another URL."""
        response = await self.send(carrying(request, attempt), stream=True, follow_redirects=False)
        following = next_hop(response)
        if following is None:
            return response
        # Read to its end, so that the socket can be used again. How that ends changes nothing.
        await discard(response)
        return await self.send(following, stream=True, follow_redirects=False)

    async def send_quietly(self, request: httpx2.Request) -> Evidence | None:
        """Send a request whose answer holds nothing; what went wrong is returned. Nothing is raised."""
        attempt = Attempt("idle")
        try:
            await discard(await self.send_recorded(request, attempt))
        except Refused:
            return attempt.evidence()
        except Exception as error:  # returned as evidence: a failed notification is no caller's failure
            attempt.exception = error
            return attempt.evidence()
        return None
