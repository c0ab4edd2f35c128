"""The HTTP client that sees every failure, and lets none of them end the session.

The SDK's transport reduces most refusals to "Server returned an error response", and an exception raised
by one POST ends the session with all its neighbours. The lens stands above the auth flow and below the
transport: it notes status, headers and exceptions in the record of the call (`core.exchange`), and answers
the transport with a JSON-RPC error in place of anything that the transport could not read.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from typing import Any

import anyio
import httpx2
from mcp_types import CONNECTION_CLOSED, ErrorData, JSONRPCError, JSONRPCNotification, JSONRPCRequest, RequestId

from mcpconn.core.exchange import EXCHANGE, Exchange
from mcpconn.core.failures import Evidence
from mcpconn.redact import Redactor, is_secret_value, secrets_of_url
from mcpconn.wire.watch import OUTBOUND, Watch

SESSION_HEADER = "mcp-session-id"
ERROR_BODY_LIMIT = 1024 * 1024
"""Bytes read of a refusal. What is longer is no JSON-RPC error that anybody should read."""
MESSAGE_LIMIT = 1000
"""Characters kept of a refusal's plain text."""
RETRY_AFTER_LIMIT = 86_400.0
"""Seconds of Retry-After that are believed. "99999999999" is a mistake, and would silence a connection for good."""
GOODBYE_TIMEOUT = 2.0
"""Seconds for the DELETE of a session, and for a courtesy cancel. The SDK would wait 30."""
NEVER_SENT = (
    httpx2.ConnectError,
    httpx2.ConnectTimeout,
    httpx2.PoolTimeout,
    httpx2.ProxyError,
    httpx2.UnsupportedProtocol,
    httpx2.LocalProtocolError,
)


class MessageTooLarge(Exception):
    """An answer above `Policy.max_message_size`."""


class Undecided(Exception):
    """`server/discover` failed in a way that says nothing about the server's era. The dial must fail.

    Without this the SDK's negotiation takes any error for "an old server", and an outage at the wrong
    moment would make a modern server a legacy one.
    """


class Lens(httpx2.AsyncClient):
    """An `httpx2.AsyncClient` for one session."""

    def __init__(self, watch: Watch, *, redact: Redactor, limit: int, sse: bool = False, **options: Any) -> None:
        super().__init__(**options)
        self._watch = watch
        self._redact = redact
        self._limit = limit
        self._sse = sse
        self._parsed: dict[str, httpx2.URL] = {}
        self._pending: dict[RequestId, Callable[[], object]] = {}
        """How to abandon each request that waits for its answer."""

    def build_request(self, method: str, url: httpx2.URL | str, **options: Any) -> httpx2.Request:
        # The SDK hands over the same text with each message, and parsing it takes as long as sending it does.
        if isinstance(url, str):
            parsed = self._parsed.get(url)
            if parsed is None:
                parsed = self._parsed[url] = httpx2.URL(url)
                # The endpoint of an SSE server has the session id in its query.
                for secret in secrets_of_url(url):
                    self._redact.learn(secret)
            url = parsed
        return super().build_request(method, url, **options)

    async def send(self, request: httpx2.Request, *, stream: bool = False, **options: Any) -> httpx2.Response:
        message = OUTBOUND.get()
        if request.method == "POST" and isinstance(message, JSONRPCRequest):
            return await self._call(request, message, options)
        if request.method == "POST" and message is not None:
            return await self._tell(request, message, options)
        if request.method == "DELETE":
            return await self._goodbye(request, options)
        return await self._listen(request, options)

    # -- requests that expect an answer

    async def _call(self, request: httpx2.Request, message: JSONRPCRequest, options: dict[str, Any]) -> httpx2.Response:
        exchange = EXCHANGE.get() or Exchange("call")
        with anyio.CancelScope() as scope:
            self._pending[message.id] = scope.cancel
            try:
                response = await self._answer(request, message, exchange, options)
            finally:
                del self._pending[message.id]
            if not response.is_closed:
                assert isinstance(response.stream, httpx2.AsyncByteStream)
                response.stream = _Events(response.stream, exchange, self._pending, message.id)
            return response
        # Nobody waits for it any more, and nothing has to be passed on.
        return httpx2.Response(202, request=request)

    async def _answer(
        self, request: httpx2.Request, message: JSONRPCRequest, exchange: Exchange, options: dict[str, Any]
    ) -> httpx2.Response:
        exchange.session_sent = self._sse or SESSION_HEADER in request.headers
        exchange.written = None
        try:
            response = await super().send(request, stream=True, **options)
        except Exception as error:
            # Everything: whatever is raised here would end the session for all its calls.
            exchange.exception = error
            exchange.written = not isinstance(error, NEVER_SENT)
            return self._stand_in(request, message, exchange)
        exchange.written = True
        try:
            return await self._receive(request, message, exchange, response)
        except Exception as error:
            await _close(response)
            exchange.exception = error
            return self._stand_in(request, message, exchange)

    async def _receive(
        self, request: httpx2.Request, message: JSONRPCRequest, exchange: Exchange, response: httpx2.Response
    ) -> httpx2.Response:
        status = exchange.http_status = response.status_code
        exchange.content_type = response.headers.get("content-type", "")
        session_id = response.headers.get(SESSION_HEADER, "")
        if session_id and is_secret_value("", session_id):
            # Whoever has it can speak in this session. A plain word or number is hidden from no text.
            self._redact.learn(session_id)
        if status >= 400:
            exchange.retry_after = retry_after(response.headers.get("retry-after"))
            exchange.challenge = response.headers.get("www-authenticate")
            body = await read_limited(response, ERROR_BODY_LIMIT, cut=True)
            await _close(response)
            error = self._note_refusal(exchange, body)
            return self._stand_in(request, message, exchange, error)
        if self._sse:
            # The answer comes on the event stream: this one says no more than that the request has arrived.
            exchange.http_status = exchange.content_type = None
            return response
        if status == 200 and exchange.content_type.lower().startswith("application/json"):
            return await self._receive_json(request, exchange, response)
        return response

    async def _receive_json(
        self, request: httpx2.Request, exchange: Exchange, response: httpx2.Response
    ) -> httpx2.Response:
        # Read here, not in the transport: there a cut body would be raised into the session's task group.
        length = response.headers.get("content-length", "")
        if length.isdigit() and int(length) <= self._limit and "content-encoding" not in response.headers:
            body = await response.aread()
        else:
            body = await read_limited(response, self._limit)
            await _close(response)
            headers = {"content-type": "application/json"}
            if SESSION_HEADER in response.headers:
                headers[SESSION_HEADER] = response.headers[SESSION_HEADER]
            response = httpx2.Response(200, headers=headers, content=body, request=request)
        if b'"error"' in body and (error := jsonrpc_error(body)) is not None:
            exchange.code, exchange.message, exchange.from_wire = (
                error.code,
                self._redact(error.message),
                True,
            )
        return response

    def _note_refusal(self, exchange: Exchange, body: bytes) -> ErrorData | None:
        error = jsonrpc_error(body)
        if error is not None:
            # Redacted for the transport, too: it becomes the cause of what the caller sees.
            error = ErrorData(code=error.code, message=self._redact(error.message), data=error.data)
            exchange.code, exchange.message, exchange.from_wire = error.code, error.message, True
            return error
        if not body.strip():
            exchange.content_type = ""
        elif "html" not in (exchange.content_type or "").lower():
            # Redacted, then cut: a token that is cut first is not recognized, and most of it would be shown.
            exchange.message = self._redact(body.decode("utf-8", "replace"))[:MESSAGE_LIMIT]
        return None

    def _stand_in(
        self,
        request: httpx2.Request,
        message: JSONRPCRequest,
        exchange: Exchange,
        error: ErrorData | None = None,
    ) -> httpx2.Response:
        """The answer in place of one that the transport must not see."""
        if message.method == "server/discover" and exchange.phase == "dial" and not _tells_era(exchange):
            raise Undecided(str(exchange.http_status or type(exchange.exception).__name__)) from exchange.exception
        if error is None:
            status = f"HTTP {exchange.http_status}" if exchange.http_status else type(exchange.exception).__name__
            error = ErrorData(code=CONNECTION_CLOSED, message=f"Request failed: {status}")
        answer = JSONRPCError(jsonrpc="2.0", id=message.id, error=error)
        if self._sse:
            if self._watch.inject is not None:
                self._watch.inject(answer)
            return httpx2.Response(202, request=request)
        return httpx2.Response(200, json=answer.model_dump(by_alias=True, exclude_none=True), request=request)

    # -- messages that expect none

    async def _tell(self, request: httpx2.Request, message: Any, options: dict[str, Any]) -> httpx2.Response:
        if isinstance(message, JSONRPCNotification) and message.method == "notifications/cancelled":
            self._abandon((message.params or {}).get("requestId"))

            # The SDK sends notifications one after another, before any further request: a server that is
            # stuck must not hold up the calls behind a courtesy.
            async def courtesy() -> None:
                with anyio.move_on_after(GOODBYE_TIMEOUT):
                    await self._quietly(request, options)

            if not self._watch.doomed:
                self._watch.background(courtesy)
        else:
            evidence = await self._quietly(request, options)
            if evidence is not None:
                self._watch.sign(evidence)
        return httpx2.Response(202, request=request)

    def _abandon(self, request_id: RequestId | None) -> None:
        """Stop waiting for an answer that nobody wants: it would hold a task and a socket, perhaps for ever."""
        abandon = self._pending.get(request_id) if request_id is not None else None
        if abandon is not None:
            abandon()

    async def _quietly(self, request: httpx2.Request, options: dict[str, Any]) -> Evidence | None:
        """Send it; what went wrong is returned, not raised: raised, it would end the session."""
        exchange = Exchange("idle")
        exchange.session_sent = self._sse or SESSION_HEADER in request.headers
        try:
            response = await super().send(request, stream=True, **options)
            exchange.http_status = response.status_code
            exchange.content_type = response.headers.get("content-type", "")
            exchange.challenge = response.headers.get("www-authenticate")
            body = await read_limited(response, ERROR_BODY_LIMIT, cut=True)
            await _close(response)
        except Exception as error:
            exchange.exception = error
            return exchange.evidence()
        if response.status_code < 400:
            return None
        self._note_refusal(exchange, body)
        return exchange.evidence()

    async def _goodbye(self, request: httpx2.Request, options: dict[str, Any]) -> httpx2.Response:
        if not (self._watch.doomed or self._watch.ended):
            with anyio.move_on_after(GOODBYE_TIMEOUT):
                await self._quietly(request, options)
        return httpx2.Response(204, request=request)

    # -- event streams

    async def _listen(self, request: httpx2.Request, options: dict[str, Any]) -> httpx2.Response:
        exchange = EXCHANGE.get()
        if exchange is not None and exchange.abandoned:
            # The SDK resumes a stream that ends before its answer, and cannot know that this was the caller's wish.
            raise httpx2.ReadError("nobody waits for this answer any more", request=request)
        response = await super().send(request, stream=True, **options)
        if response.status_code < 300:
            self._watch.stream_opened = True
        elif response.status_code == 404 and SESSION_HEADER in request.headers:
            exchange = Exchange("idle")
            exchange.http_status = 404
            exchange.content_type = response.headers.get("content-type", "")
            self._note_refusal(exchange, await read_limited(response, ERROR_BODY_LIMIT, cut=True))
            # A server without such a stream should say 405, but some say 404: only where the stream was
            # there before is its absence proof. Otherwise a probe asks.
            exchange.session_sent = True if self._watch.stream_opened else None
            if exchange.session_sent is None and exchange.code is None:
                exchange.message = None
            self._watch.sign(exchange.evidence())
        return response


def _tells_era(exchange: Exchange) -> bool:
    """Whether a failed `server/discover` says that the server is a legacy one: it answered, and not "not now".

    500 and 501 are what some old servers make of a method that they do not know.
    """
    status = exchange.http_status or 0
    verdict = status in (500, 501) or (status < 500 and status not in (401, 403, 408, 429))
    return exchange.exception is None and verdict


class _Events(httpx2.AsyncByteStream):
    """The body of an answer that comes as an event stream. Another task can end the reading of it."""

    def __init__(
        self,
        inner: httpx2.AsyncByteStream,
        exchange: Exchange,
        pending: dict[RequestId, Callable[[], object]],
        request_id: RequestId,
    ) -> None:
        self._chunks = inner.__aiter__()
        self._inner = inner
        self._exchange = exchange
        self._pending = pending
        self._id = request_id
        self._scope = anyio.CancelScope()
        pending[request_id] = self.abandon

    def abandon(self) -> None:
        """End it, in the middle of a read if need be."""
        self._exchange.abandoned = True
        self._scope.cancel()

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        if not self._exchange.abandoned:
            with anyio.CancelScope() as self._scope:
                return await self._chunks.__anext__()
        raise httpx2.ReadError("nobody waits for this answer any more")

    async def aclose(self) -> None:
        self._pending.pop(self._id, None)
        await self._inner.aclose()


async def _close(response: httpx2.Response) -> None:
    try:
        await response.aclose()
    except Exception:  # the connection is being given up; how that ends is of no interest to anybody
        return


async def read_limited(response: httpx2.Response, limit: int, *, cut: bool = False) -> bytes:
    """The decoded body, or its first `limit` bytes.

    Raises:
        MessageTooLarge: it is longer, and `cut` is not set.
    """
    chunks: list[bytes] = []
    size = 0
    async for chunk in response.aiter_bytes():
        chunks.append(chunk)
        size += len(chunk)
        if size > limit:
            if cut:
                break
            raise MessageTooLarge(f"the answer is larger than {limit} bytes")
    return b"".join(chunks)[:limit]


def jsonrpc_error(body: bytes) -> ErrorData | None:
    """The JSON-RPC error in `body`, whether or not it has an id: the SDK cannot read those without one."""
    try:
        error = json.loads(body)["error"]
        return ErrorData(code=int(error["code"]), message=str(error["message"]), data=error.get("data"))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


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
