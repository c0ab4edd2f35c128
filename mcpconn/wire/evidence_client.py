"""The HTTP client that records the result of every request.

The SDK's transport reduces most refusals to "Server returned an error response". The client works above the auth flow
and below the transports (`streamable`, `sse`): it stores status, headers, texts and exceptions in the record of the
call (`core.attempt`). Its other part, the `Recorder`, works below the auth flow, where messages become bytes.
`read_limited`, `discard` and `close` handle a response.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import suppress
from typing import Any

import anyio
import httpx2
from mcp_types import ErrorData

from mcpconn.core.attempt import Attempt
from mcpconn.core.failures import Evidence
from mcpconn.redact.places import is_secret_value
from mcpconn.redact.redactor import Redactor
from mcpconn.sdk.http import NOT_WRITTEN
from mcpconn.wire.extensions import ATTEMPT_KEY, HEADERS_STARTED, UNSAFE_KEY
from mcpconn.wire.messages import MessageTooLarge
from mcpconn.wire.redirects import next_hop, target
from mcpconn.wire.responses import SESSION_HEADER, note_refusal, note_response

ERROR_BODY_LIMIT = 1024 * 1024
"""Maximum bytes read of a refusal. Longer bodies are not relevant JSON-RPC errors."""
DRAIN = 1.0
"""Seconds that a response may take to end after the relevant part was read."""


class Refused(Exception):
    """A response whose status means that it contains no answer. Its contents are in the record of the request."""

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
            redact: Replaces secrets in a server's texts.
            transport: Sends the requests. It is not closed with the client.
            sse: Every request is part of a session, regardless of its headers.
            options: As for `httpx2.AsyncClient`.
        """
        # Below the auth flow: each HTTP request is recorded, those that a flow adds included.
        super().__init__(transport=Recorder(transport, in_session=sse), **options)
        self.redact = redact
        self._sse = sse

    async def send_message(
        self, url: httpx2.URL, headers: dict[str, str], body: bytes, attempt: Attempt
    ) -> httpx2.Response:
        """Send a message; returns the head of its response, with a status from 200 to 299.

        Raises:
            Refused: it was refused, or redirected elsewhere.
            Exception: any exception of the HTTP client or the auth flow.
        """
        return await self.send_recorded(self.build_request("POST", url, headers=headers, content=body), attempt)

    async def send_recorded(self, request: httpx2.Request, attempt: Attempt) -> httpx2.Response:
        """Send a request, and record the result in `attempt`. Returns and raises like `send_message`."""
        # Over SSE the session is in the URL, so every request carries it.
        session_sent = self._sse or SESSION_HEADER in request.headers
        attempt.start_request(session_sent=session_sent, written=False)
        try:
            response = await self._send(request, attempt)
        except Exception as error:
            if attempt.http_status is not None:
                # The message was answered. The failed request belongs to the auth flow and carries no message.
                attempt.start_request(session_sent=session_sent, written=False)
            attempt.exception = error
            raise
        session_id = response.headers.get(SESSION_HEADER, "")
        if session_id and is_secret_value("", session_id):
            # The session id gives access to the session, so it is secret. A plain word or number is not redacted.
            self.redact.learn(session_id)
        # The head is recorded first, because status and headers are evidence even if the body is cut off.
        note_response(attempt, response, self.redact)
        if response.status_code >= 400:
            try:
                body = await _read_refusal(response)
            except Exception as cut:
                attempt.exception = cut
                raise
            raise Refused(response.status_code, note_refusal(attempt, response.status_code, body, self.redact))
        if response.status_code >= 300:
            # A redirect's body is for browsers.
            await close(response)
            attempt.message = self.redact(f"to {target(response) or 'nowhere'}")
            raise Refused(response.status_code)
        return response

    async def _send(self, request: httpx2.Request, attempt: Attempt) -> httpx2.Response:
        """Send a request, and once more if a redirect leads to another URL."""
        response = await self.send(carrying(request, attempt), stream=True, follow_redirects=False)
        following = next_hop(response)
        if following is None:
            return response
        # Read to its end, so that the socket can be reused. The result does not matter.
        await discard(response)
        return await self.send(following, stream=True, follow_redirects=False)

    async def send_quietly(self, request: httpx2.Request) -> Evidence | None:
        """Send a request whose answer has no content. Errors are returned, not raised."""
        attempt = Attempt("idle")
        try:
            await discard(await self.send_recorded(request, attempt))
        except Refused:
            return attempt.evidence()
        except Exception as error:  # returned as evidence, because a failed notification is not a failure of a call
            attempt.exception = error
            return attempt.evidence()
        return None


class Recorder(httpx2.AsyncBaseTransport):
    """Opens the record of each HTTP request that carries a message, below redirects and auth.

    One message can take several HTTP requests: an auth flow sends it again after a 401, a redirect sends it to another
    URL. Above the HTTP client only the last of them is seen. A failure concerns one request, and does not undo what an
    earlier one may have done. Requests that an auth flow makes for itself carry no message and have no record.

    It is a transport lent to the HTTP client of one session: sessions come and go, sockets stay.
    """

    def __init__(self, inner: httpx2.AsyncBaseTransport, *, in_session: bool = False) -> None:
        """
        Args:
            inner: Sends the requests. It is not closed with the client.
            in_session: Every request is part of a session, regardless of its headers, as with the SSE transport.
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
            # A tunnel through a proxy begins with a separate CONNECT request, which carries no message.
            if name == HEADERS_STARTED and info["request"].method not in ("CONNECT", b"CONNECT"):
                attempt.written = True

        # A separate dict, because a redirect's request gets a copy of this one's extensions.
        request.extensions = {**request.extensions, "trace": trace, UNSAFE_KEY: attempt.unsafe}
        try:
            response = await self._inner.handle_async_request(request)
        except Exception as error:
            # The transport does not report writes, so only the type of its error is known.
            if attempt.written is None:
                attempt.written = not isinstance(error, NOT_WRITTEN)
            raise
        attempt.written = True
        # Recorded here as well, because the auth flow may consume this response and pass on another one.
        attempt.http_status = response.status_code
        return response


def carrying(request: httpx2.Request, attempt: Attempt) -> httpx2.Request:
    """`request`, marked as carrying a message whose record is `attempt`."""
    request.extensions = {**request.extensions, ATTEMPT_KEY: attempt}
    return request


# -- responses


async def _read_refusal(response: httpx2.Response) -> bytes:
    """The beginning of the body of a refusal.

    Raises:
        httpx2.HTTPError: it was cut off.
    """
    try:
        return await read_limited(response, ERROR_BODY_LIMIT, cut=True)
    finally:
        await close(response)


def body(response: httpx2.Response) -> AsyncGenerator[bytes, None]:
    """The decoded body, in parts as they arrive.

    Most servers do not compress, and then there is nothing to decode: the generator that decodes, and the one that it
    reads from, would take 1.5 KiB for as long as an event stream is open.
    """
    # A body that was read before is in the response, and `aiter_raw` has nothing.
    plain = "content-encoding" not in response.headers and not response.is_stream_consumed
    return response.aiter_raw() if plain else response.aiter_bytes()


async def read_limited(response: httpx2.Response, limit: int, *, cut: bool = False) -> bytes:
    """The decoded body, or its first `limit` bytes.

    Raises:
        MessageTooLarge: it is longer, and `cut` is not set.
    """
    chunks: list[bytes] = []
    size = 0
    async for chunk in body(response):
        chunks.append(chunk)
        size += len(chunk)
        if size > limit:
            if cut:
                break
            raise MessageTooLarge(f"the answer is larger than {limit} bytes")
    return b"".join(chunks)[:limit]


async def close(response: httpx2.Response) -> None:
    """Close `response`. Errors are ignored."""
    try:
        await response.aclose()
    except Exception:  # the socket is closed in any case
        return


async def discard(response: httpx2.Response) -> None:
    """Read `response` to its end, so that its socket can be reused, unless that takes too long."""
    with anyio.move_on_after(DRAIN), suppress(httpx2.HTTPError):
        await read_limited(response, ERROR_BODY_LIMIT, cut=True)
    await close(response)
