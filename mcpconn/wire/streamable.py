"""The Streamable HTTP transport (specification 2025-11-25 and 2026-07-28, basic/transports).

The SDK's own transport parses every answer twice, ends a session with all its calls if one message cannot be sent, and
keeps resuming streams whose caller has left. Here every request is a task that ends with its attempt, an error of one
request cannot affect another, and only messages from mcpconn's parser are passed on.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, nullcontext

import anyio
import anyio.lowlevel
import httpx2
from anyio.abc import TaskGroup
from mcp.shared.dispatcher import coerce_request_id
from mcp.shared.message import ClientMessageMetadata, SessionMessage
from mcp_types import (
    CONNECTION_CLOSED,
    REQUEST_TIMEOUT,
    JSONRPCError,
    JSONRPCNotification,
    JSONRPCRequest,
    JSONRPCResponse,
    RequestId,
)
from mcp_types.version import MODERN_PROTOCOL_VERSIONS

from mcpconn.core.attempt import ATTEMPT, Attempt
from mcpconn.wire.answers import AnswerStream
from mcpconn.wire.era import EraUnknown, tells_era
from mcpconn.wire.evidence_client import EvidenceClient, Refused, close, read_limited
from mcpconn.wire.messages import Limits, Outgoing, Unreadable, made, parse, same_id
from mcpconn.wire.responses import SESSION_HEADER
from mcpconn.wire.standalone import StandaloneStream
from mcpconn.wire.streams import Inbox
from mcpconn.wire.trace import trace_headers
from mcpconn.wire.watch import Watch

VERSION_HEADER = "mcp-protocol-version"
EVENT_ID_HEADER = "last-event-id"
GOODBYE_TIMEOUT = 2.0
"""Seconds for the DELETE of a session, and for a courtesy cancel. The SDK would wait 30."""
CROWD_COURTESY = 0.5
"""Seconds that the event stream of a new session waits for the dials of other connections. A host that starts a hundred
needs these first. It is half of the time for which the first listing waits for the stream."""


class _InFlight:
    """A request that is waited for, and the era it was sent in."""

    __slots__ = ("modern", "scope")

    def __init__(self, modern: bool) -> None:
        self.scope = anyio.CancelScope()
        self.modern = modern


class StreamableHttp:
    """One session's requests, notifications and streams. The object is the write stream; the read stream is `inbox`."""

    def __init__(
        self,
        url: str,
        http: EvidenceClient,
        watch: Watch,
        limits: Limits,
        group: TaskGroup,
        silence: float | None = None,
        wait_for_dials: Callable[[], Awaitable[None]] = anyio.lowlevel.checkpoint,
    ) -> None:
        """
        Args:
            url: The server's endpoint.
            http: Sends HTTP requests.
            watch: Receives everything besides the answers.
            limits: Of one message.
            group: Runs the requests.
            silence: Seconds without a byte after which a stream of server messages is taken for dead; None: never.
            wait_for_dials: Returns when no connection of the manager is dialling.
        """
        self._wait_for_dials = wait_for_dials
        self._silence = silence
        self._url = httpx2.URL(url)
        self._http = http
        self._watch = watch
        self._limits = limits
        self._group = group
        self.inbox = Inbox()
        self._session_id: str | None = None
        self._version: str | None = None
        """The protocol version of the last request; messages that the SDK sends without a header use the same."""
        self._in_flight: dict[RequestId, _InFlight] = {}
        self._turn = anyio.Lock()

    async def send(self, item: Outgoing) -> None:
        """Start to send a request; send anything else. A refusal by the server does not raise here."""
        message = item.message
        # Created before the first wait, so that the version and session are those of this message, not of a later one.
        headers = self._headers(item)
        if isinstance(message, JSONRPCRequest):
            modern = self._version in MODERN_PROTOCOL_VERSIONS
            # Entered before its task runs, so that a cancellation that follows at once finds it.
            in_flight = self._in_flight[coerce_request_id(message.id)] = _InFlight(modern)
            if message.method == "server/discover" and not self._watch.discovery.shaken.is_set():
                self._group.start_soon(self._bound_discovery)
            # In the sender's context, which contains the record of the attempt and in which callbacks run.
            self._group.start_soon(self._request, item, message, headers, in_flight)
        elif isinstance(message, JSONRPCNotification) and message.method == "notifications/cancelled":
            self._cancel(item, message, headers)
        else:
            # One after another, as the SDK does it: what is sent first arrives first.
            async with self._turn:
                await self._tell(item, headers)
            if isinstance(message, JSONRPCNotification) and message.method == "notifications/initialized":
                self._listen()

    def _headers(self, item: Outgoing) -> dict[str, str]:
        metadata = item.metadata if isinstance(item.metadata, ClientMessageMetadata) else None
        # The SDK names the version, and in the modern era arguments that the tool wants as headers (`x-mcp-header`).
        named = (metadata and metadata.headers) or {}
        if isinstance(item.message, JSONRPCRequest) and item.message.method == "initialize":
            # It negotiates the version, so it names none.
            self._version = None
        else:
            self._version = named.get(VERSION_HEADER, self._version)
        headers = {"accept": "application/json, text/event-stream", "content-type": "application/json"}
        traced = trace_headers(item.message.params) if isinstance(item.message, JSONRPCRequest) else {}
        # Last wins: what the SDK names for this message is newer than what the session has.
        return {**headers, **traced, **self._standing_headers(), **named}

    def _standing_headers(self) -> dict[str, str]:
        """What every request of the session carries."""
        headers = {}
        # The standalone stream belongs to a session, so it is not requested without one.
        if self._session_id is not None:
            headers[SESSION_HEADER] = self._session_id
        if self._version is not None:
            headers[VERSION_HEADER] = self._version
        return headers

    # -- requests

    async def _request(
        self, item: Outgoing, message: JSONRPCRequest, headers: dict[str, str], in_flight: _InFlight
    ) -> None:
        """Send a request and deliver its answer, or a locally created one in its place."""
        # A message without a record was sent by the caller on the SDK's own session, so it does not count as safe.
        attempt = ATTEMPT.get() or Attempt("call", unsafe=message.method == "tools/call")
        key = coerce_request_id(message.id)
        try:
            # Cancelled when the caller leaves. The request then ends here, with its socket, and no reader is left
            # behind.
            with in_flight.scope:
                try:
                    await self._answer(item, message, headers, attempt)
                except Refused as refused:
                    await self._refuse(message, attempt, refused)
                except Exception as error:
                    # All exceptions are caught, because one that is raised here would end the session for all its
                    # calls.
                    attempt.exception = error
                    await self._fail(message, attempt)
        finally:
            # An id may have been reused in the meantime by a session that restarted its count.
            if self._in_flight.get(key) is in_flight:
                del self._in_flight[key]

    async def _answer(self, item: Outgoing, message: JSONRPCRequest, headers: dict[str, str], attempt: Attempt) -> None:
        metadata = item.metadata if isinstance(item.metadata, ClientMessageMetadata) else ClientMessageMetadata()
        # Only such a stream may be quiet for long; a call has a deadline.
        silence = self._silence if message.method == "subscriptions/listen" else None
        answers = AnswerStream(
            message.id,
            attempt,
            self._limits,
            silence=silence,
            deliver=self.inbox.put,
            resume=self._resume,
            drop=self._watch.drop,
            on_event_id=metadata.on_resumption_token_update,
        )
        if metadata.resumption_token:
            attempt.written = True
            await answers.resume_from(metadata.resumption_token)
            return
        # A call's deadline is the runtime's. Only a stream of server messages has a limit of its own.
        with anyio.fail_after(silence) if silence is not None else nullcontext():
            response = await self._http.send_message(self._url, headers, item.body, attempt)
        try:
            # Only here: a session id on any other answer is not the beginning of a session (specification, transports).
            if message.method == "initialize":
                self._session_id = response.headers.get(SESSION_HEADER)
                self._watch.session_id = self._session_id
            kind = response.headers.get("content-type", "").lower()
            # 202 means "accepted, nothing will follow". For a request that means that no answer will come.
            if response.status_code == 202:
                await self._fail(message, attempt)
            elif kind.startswith("application/json"):
                await self._read_json(response, message)
            elif kind.startswith("text/event-stream"):
                await answers.read(response)
            else:
                raise Unreadable("the answer is neither JSON nor an event stream" if kind else "the answer is empty")
        finally:
            await close(response)

    async def _read_json(self, response: httpx2.Response, message: JSONRPCRequest) -> None:
        length = response.headers.get("content-length", "")
        # The declared length is only believed as a promise to stay small; compressed bodies grow and are counted as
        # they come.
        if length.isdigit() and int(length) <= self._limits.size and "content-encoding" not in response.headers:
            body = await response.aread()
        else:
            body = await read_limited(response, self._limits.size)
        answer = await parse(body, self._limits)
        if not isinstance(answer, (JSONRPCResponse, JSONRPCError)) or not same_id(answer.id, message.id):
            raise Unreadable("the answer is for another request")
        # The id has the type that was sent, because servers convert numbers to strings, and the SDK would not find the
        # caller.
        answer.id = message.id
        await self.inbox.put(SessionMessage(answer))

    async def _refuse(self, message: JSONRPCRequest, attempt: Attempt, refused: Refused) -> None:
        if refused.error is None:
            await self._fail(message, attempt)
            return
        self._check_era(message, attempt)
        await self.inbox.put(SessionMessage(JSONRPCError(jsonrpc="2.0", id=message.id, error=refused.error)))

    async def _fail(self, message: JSONRPCRequest, attempt: Attempt) -> None:
        """No answer will come: notify the session. The reason is in the record of the attempt."""
        self._check_era(message, attempt)
        status = f"HTTP {attempt.http_status}" if attempt.exception is None else type(attempt.exception).__name__
        await self.inbox.put(made(message.id, CONNECTION_CLOSED, f"Request failed: {status}"))

    async def _bound_discovery(self) -> None:
        """A silent server is given up while there is time left to dial it as a legacy one."""
        request_id = await self._watch.discovery.overdue()
        if request_id is not None:
            in_flight = self._in_flight.get(coerce_request_id(request_id))
            if in_flight is not None:
                # Ends the request on the socket. In the modern era that is how the server learns of it.
                in_flight.scope.cancel()
            await self.inbox.put(made(request_id, REQUEST_TIMEOUT, "server/discover was not answered"))

    def _check_era(self, message: JSONRPCRequest, attempt: Attempt) -> None:
        if message.method == "server/discover" and attempt.phase == "dial" and not tells_era(attempt):
            raise EraUnknown(str(attempt.http_status or type(attempt.exception).__name__)) from attempt.exception

    async def _resume(self, event_id: bytes) -> httpx2.Response:
        """Reopen an answer's stream, with a separate record, so that the call's record still says that the answer was
        being streamed."""
        # A separate record, because a failed resumption is not evidence about the call.
        response = await self._get(event_id, Attempt("idle"))
        # A server that forgot the stream may answer with a web page, which, read as events, would be silence until the
        # deadline.
        if not response.headers.get("content-type", "").lower().startswith("text/event-stream"):
            await close(response)
            raise httpx2.RemoteProtocolError("not an event stream")
        return response

    async def _get(self, event_id: bytes | None, attempt: Attempt) -> httpx2.Response:
        headers: list[tuple[bytes, bytes]] = [(b"accept", b"text/event-stream"), (b"cache-control", b"no-store")]
        headers += [(name.encode(), value.encode()) for name, value in self._standing_headers().items()]
        if event_id is not None:
            headers.append((EVENT_ID_HEADER.encode(), event_id))
        return await self._http.send_recorded(self._http.build_request("GET", self._url, headers=headers), attempt)

    # -- other messages

    def _cancel(self, item: Outgoing, message: JSONRPCNotification, headers: dict[str, str]) -> None:
        """The caller no longer waits: end its request, which would otherwise hold a task and a socket, perhaps
        indefinitely, and notify the server. In the modern era the end of the request notifies it."""
        request_id = (message.params or {}).get("requestId")
        in_flight = self._in_flight.get(coerce_request_id(request_id)) if request_id is not None else None
        modern = self._version in MODERN_PROTOCOL_VERSIONS if in_flight is None else in_flight.modern
        if in_flight is not None:
            in_flight.scope.cancel()
        if not modern and not self._watch.lost:
            # A hanging server must not delay calls because of a notification.
            self._group.start_soon(self._courtesy, item, headers)

    async def _courtesy(self, item: Outgoing, headers: dict[str, str]) -> None:
        with anyio.move_on_after(GOODBYE_TIMEOUT):
            await self._http.send_quietly(
                self._http.build_request("POST", self._url, headers=headers, content=item.body)
            )

    async def _tell(self, item: Outgoing, headers: dict[str, str]) -> None:
        evidence = await self._http.send_quietly(
            self._http.build_request("POST", self._url, headers=headers, content=item.body)
        )
        # No caller waits for this message, so its failure is reported for the session.
        if evidence is not None:
            self._watch.idle_failure(evidence)

    def _listen(self) -> None:
        if self._session_id is not None:
            standalone = StandaloneStream(
                self._watch, self._limits, deliver=self.inbox.put, open=self._get, silence=self._silence
            )
            self._group.start_soon(self._run_standalone, standalone)

    async def _run_standalone(self, standalone: StandaloneStream) -> None:
        # The dial of this session still holds its slot here, and calls that wait for it are sent when it ends.
        with anyio.move_on_after(CROWD_COURTESY):
            await self._wait_for_dials()
        await standalone.run()

    async def end_session(self) -> None:
        """Notify the server of the end of the session, unless the session is already lost."""
        if self._session_id is None or self._watch.lost or self._watch.ended:
            return
        with anyio.move_on_after(GOODBYE_TIMEOUT):
            await self._http.send_quietly(
                self._http.build_request("DELETE", self._url, headers=self._standing_headers())
            )


@asynccontextmanager
async def streamable_http(
    url: str,
    http: EvidenceClient,
    watch: Watch,
    limits: Limits,
    silence: float | None = None,
    wait_for_dials: Callable[[], Awaitable[None]] = anyio.lowlevel.checkpoint,
) -> AsyncIterator[tuple[Inbox, StreamableHttp]]:
    """A read and a write stream to a server over Streamable HTTP. For the arguments see `StreamableHttp`."""
    async with http:
        transport: StreamableHttp | None = None
        try:
            async with anyio.create_task_group() as group:
                transport = StreamableHttp(url, http, watch, limits, group, silence, wait_for_dials)
                try:
                    yield transport.inbox, transport
                finally:
                    group.cancel_scope.cancel()
                    # Closed after the requests, so that readers see the end of the stream and no message of an ended
                    # request.
                    transport.inbox.close()
        finally:
            if transport is not None:
                # Outside the group, which is already cancelled; the client is still open.
                await transport.end_session()
