"""The SDK's server over HTTP (2025-era), with responses that are written elsewhere, and without a task that routes.

The SDK's transport starts five tasks for the event stream of each request and sends each message through three queues.
That takes longer than all that a gateway does for a call, on both sides: its client needs as long to read a stream of
one event. Here a message goes straight from its sender to the response of its request.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import asynccontextmanager
from functools import partial
from http import HTTPStatus
from types import TracebackType
from typing import Any, Protocol, cast
from uuid import uuid4

import anyio
import pydantic_core
from mcp.server._streamable_http_modern import handle_modern_request
from mcp.server.streamable_http import (
    GET_STREAM_KEY,
    MCP_SESSION_ID_HEADER,
    EventMessage,
    EventStore,
    StreamableHTTPServerTransport,
)
from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
from mcp.shared._context_streams import create_context_streams
from mcp.shared.inbound import MCP_PROTOCOL_VERSION_HEADER
from mcp.shared.message import ServerMessageMetadata, SessionMessage
from mcp_types import (
    DEFAULT_NEGOTIATED_VERSION,
    INVALID_PARAMS,
    PARSE_ERROR,
    JSONRPCError,
    JSONRPCMessage,
    JSONRPCRequest,
    JSONRPCResponse,
    jsonrpc_message_adapter,
)
from mcp_types.version import is_version_at_least
from pydantic import ValidationError
from starlette.requests import Request
from starlette.types import Receive, Scope, Send

RESUMABLE = "2025-11-25"
"""The first version whose clients understand an event without a message, and so can take up any stream."""

BAD_ID = "The id of a request has to be a string or an integer; nothing was run"


class Response(Protocol):
    """The response to one request."""

    async def message(self, message: JSONRPCMessage) -> None:
        """Send a message that belongs to the request: its answer, or what comes before it. Must not raise."""

    async def finished(self, receive: Receive) -> None:
        """Return when the response is complete, or its client has gone; `receive` is the request's."""

    async def end(self) -> None:
        """End the response without an answer."""

    def cut(self) -> None:
        """Send nothing from now on."""


class Respond(Protocol):
    """Begins the response to a request, of which nothing is sent yet."""

    def __call__(
        self,
        scope: Scope,
        send: Send,
        request: JSONRPCRequest,
        *,
        events: EventStore,
        headers: Mapping[str, str],
        resumable: bool,
    ) -> Response:
        """
        Args:
            scope: The request's ASGI scope.
            send: Takes the response.
            request: The request.
            events: The session's.
            headers: Headers of a response of either form.
            resumable: The client understands an event that has no message.
        """
        ...


class SessionManager(StreamableHTTPSessionManager):
    """The SDK's, with transports of the class below."""

    def __init__(self, app: Any, *, respond: Respond, events: Callable[[], EventStore], **options: Any) -> None:
        """
        Args:
            app: The SDK's server.
            respond: Begins responses.
            events: The event store of a new session, called while its first request is served.
            options: As the SDK's.
        """
        super().__init__(app, **options)
        self._respond = respond
        self._events = events

    def _admit_session(self, requestor: Any) -> StreamableHTTPServerTransport | None:
        # As the method that it overrides (mcp 2.3.0), for another class.
        if self.max_sessions is not None and len(self._server_instances) >= self.max_sessions:
            return None
        transport = Transport(
            uuid4().hex,
            respond=self._respond,
            event_store=self._events(),
            security_settings=self.security_settings,
            idle_timeout=self.session_idle_timeout,
        )
        session_id = cast(str, transport.mcp_session_id)
        if requestor is not None:
            self._session_owners[session_id] = requestor
        self._server_instances[session_id] = transport
        return transport

    async def answer_modern(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a POST of the modern era in this task, with JSON: nothing goes out before its answer, and it runs on
        if its client goes."""
        # As `_handle_request`, which passes on `json_response` for all requests.
        await handle_modern_request(self.app, self.security_settings, True, self._lifespan_state, scope, receive, send)

    def cut(self) -> None:
        """Send nothing from now on of what the sessions still answer: their clients see that they were cut."""
        for transport in self._server_instances.values():
            cast(Transport, transport).cut()


class Transport(StreamableHTTPServerTransport):
    """The SDK's, which hands each message to the response of its request."""

    def __init__(self, mcp_session_id: str, *, respond: Respond, event_store: EventStore, **options: Any) -> None:
        """
        Args:
            mcp_session_id: The session.
            respond: Begins responses.
            event_store: The session's events.
            options: As the SDK's.
        """
        super().__init__(mcp_session_id, event_store=event_store, **options)
        self._respond = respond
        self._events = event_store
        self._responses: dict[str, Response] = {}

    @asynccontextmanager
    async def connect(self) -> AsyncGenerator[Any, None]:
        if self._idle_timeout is not None:
            self.idle_scope = anyio.CancelScope()
        self._read_stream_writer, self._read_stream = create_context_streams[SessionMessage | Exception](0)
        self._write_stream = cast(Any, _Writer(self._route))
        try:
            yield self._read_stream, self._write_stream
        finally:
            for stream in tuple(self._request_streams):
                await self._clean_up_memory_streams(stream)
            await self._read_stream_writer.aclose()
            await self._read_stream.aclose()

    async def terminate(self) -> None:
        await super().terminate()
        for response in tuple(self._responses.values()):
            await response.end()

    def cut(self) -> None:
        """Send nothing from now on of what is still answered."""
        for response in self._responses.values():
            response.cut()

    async def _route(self, sent: SessionMessage) -> None:
        """Hand a message to the response it belongs to. It runs in the task, and in the context, of its sender."""
        message, metadata = sent.message, sent.metadata
        target: Any = None
        if isinstance(message, JSONRPCResponse | JSONRPCError):
            target = message.id
        elif isinstance(metadata, ServerMessageMetadata):
            target = metadata.related_request_id
        # What belongs to no request goes out on the session's own stream.
        stream = GET_STREAM_KEY if target is None else str(target)
        if (response := self._responses.get(stream)) is not None:
            await response.message(message)
            return
        event_id = await self._events.store_event(stream, message)
        if (open_now := self._request_streams.get(stream)) is not None:
            try:
                await open_now[0].send(EventMessage(message, event_id))
            except (anyio.BrokenResourceError, anyio.ClosedResourceError):
                self._request_streams.pop(stream, None)

    async def _handle_post_request(self, scope: Scope, request: Request, receive: Receive, send: Send) -> None:
        if not await self._validate_accept_header(request, scope, send):
            return
        if not self._check_content_type(request):
            await self._refuse(
                scope, receive, send, 415, "Unsupported Media Type: Content-Type must be application/json"
            )
            return
        try:
            raw = pydantic_core.from_json(await request.body())
            if _has_bad_id(raw):
                await self._refuse(scope, receive, send, 400, BAD_ID)
                return
            message = jsonrpc_message_adapter.validate_python(raw, by_name=False)
        except ValidationError as error:
            await self._refuse(scope, receive, send, 400, f"Validation error: {error}", INVALID_PARAMS)
            return
        except ValueError as error:
            await self._refuse(scope, receive, send, 400, f"Parse error: {error}", PARSE_ERROR)
            return
        opens = isinstance(message, JSONRPCRequest) and message.method == "initialize"
        if not opens and not await self._validate_request_headers(request, send):
            return
        writer = self._read_stream_writer
        try:
            if writer is None:
                raise anyio.ClosedResourceError
            if isinstance(message, JSONRPCRequest):
                await self._answer(scope, request, receive, send, message, writer)
                return
            await self._create_json_response(None, HTTPStatus.ACCEPTED)(scope, receive, send)
            await writer.send(SessionMessage(message, metadata=self._message_metadata(request)))
        except (anyio.ClosedResourceError, anyio.BrokenResourceError):
            # Ended since the request came: it was not passed on. What is answered by now is not refused.
            if isinstance(message, JSONRPCRequest):
                await self._refuse(scope, receive, send, 404, "Not Found: Session has been terminated")

    async def _answer(
        self, scope: Scope, request: Request, receive: Receive, send: Send, message: JSONRPCRequest, writer: Any
    ) -> None:
        stream = str(message.id)
        version: Any = request.headers.get(MCP_PROTOCOL_VERSION_HEADER, DEFAULT_NEGOTIATED_VERSION)
        if message.method == "initialize":
            version = (message.params or {}).get("protocolVersion", DEFAULT_NEGOTIATED_VERSION)
        response = self._respond(
            scope,
            send,
            message,
            events=self._events,
            headers={MCP_SESSION_ID_HEADER: cast(str, self.mcp_session_id)},
            resumable=is_version_at_least(str(version), RESUMABLE),
        )
        if (earlier := self._responses.get(stream)) is not None:
            # An id that is used twice at once: both answers would go to one of them.
            await earlier.end()
        self._responses[stream] = response
        unanswered = partial(self._terminate_unanswered_request, message.id)
        metadata = self._message_metadata(request, on_request_unanswered=unanswered)
        try:
            await writer.send(SessionMessage(message, metadata=metadata))
            await response.finished(receive)
        finally:
            response.cut()
            if self._responses.get(stream) is response:
                del self._responses[stream]

    async def _refuse(
        self, scope: Scope, receive: Receive, send: Send, status: int, text: str, code: int = -32600
    ) -> None:
        await self._create_error_response(text, HTTPStatus(status), code)(scope, receive, send)


def _has_bad_id(raw: Any) -> bool:
    """Whether a request has an id that none may have: nothing could answer it, and the SDK sees a notification."""
    return isinstance(raw, dict) and "id" in raw and raw.get("method") is not None and type(raw["id"]) not in (int, str)


class _Writer:
    """Where the SDK's dispatcher writes: a stream that has no queue."""

    def __init__(self, route: Callable[[SessionMessage], Any]) -> None:
        self._route = route
        self._closed = False

    async def send(self, item: SessionMessage) -> None:
        if self._closed:
            raise anyio.ClosedResourceError
        await self._route(item)

    def close(self) -> None:
        self._closed = True

    async def aclose(self) -> None:
        self._closed = True

    async def __aenter__(self) -> _Writer:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closed = True
