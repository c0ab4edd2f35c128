"""The HTTP+SSE transport of 2024-11-05: one event stream for all answers, and a POST for each message."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager

import anyio
import httpx2
from anyio.abc import TaskGroup
from mcp.shared.dispatcher import coerce_request_id
from mcp.shared.message import SessionMessage
from mcp_types import CONNECTION_CLOSED, JSONRPCError, JSONRPCNotification, JSONRPCRequest, RequestId

from mcpconn.core.attempt import ATTEMPT, Attempt
from mcpconn.flag import Flag
from mcpconn.redact.places import secrets_of_url
from mcpconn.wire.era import NoEndpoint
from mcpconn.wire.events import EventReader
from mcpconn.wire.evidence_client import EvidenceClient, Refused, close, discard
from mcpconn.wire.messages import Limits, Outgoing, Unreadable, made, parse
from mcpconn.wire.streamable import GOODBYE_TIMEOUT
from mcpconn.wire.streams import Inbox
from mcpconn.wire.watch import Watch


class HttpSse:
    """One session over an event stream. The object is the write stream; the read stream is `inbox`."""

    def __init__(self, url: str, http: EvidenceClient, watch: Watch, limits: Limits, group: TaskGroup) -> None:
        """
        Args:
            url: Of the event stream.
            http: Sends HTTP requests.
            watch: Receives everything besides the answers.
            limits: Of one message.
            group: Runs the requests.
        """
        self._url = httpx2.URL(url)
        self._http = http
        self._watch = watch
        self._limits = limits
        self._group = group
        self.inbox = Inbox()
        self._endpoint: httpx2.URL | None = None
        self.found = Flag()
        """Set when the server has sent the endpoint for messages."""
        self._posts: dict[RequestId, anyio.CancelScope] = {}
        self._turn = anyio.Lock()

    # -- in

    async def open(self) -> httpx2.Response:
        """Open the event stream, in the dial that waits for it.

        Raises:
            Refused, NoEndpoint: there is none.
            Exception: whatever the HTTP client or the auth flow raised.
        """
        headers = {"accept": "text/event-stream", "cache-control": "no-store"}
        # The dial's own record, because a failure of this request is the failure of the dial.
        attempt = ATTEMPT.get() or Attempt("dial")
        response = await self._http.send_recorded(self._http.build_request("GET", self._url, headers=headers), attempt)
        if not response.headers.get("content-type", "").lower().startswith("text/event-stream"):
            await close(response)
            attempt.exception = NoEndpoint("the response is not an event stream")
            raise attempt.exception
        # The stream outlives the dial: later records concern the messages.
        attempt.http_status = attempt.content_type = None
        return response

    async def read(self, response: httpx2.Response) -> None:
        """Pass on messages until the stream ends."""
        # An event that is too large is skipped and reported: the stream carries the answers of all other calls.
        reader = EventReader(self._limits.size, skip=True)
        try:
            async with aclosing(response.aiter_bytes()) as chunks:
                async for chunk in chunks:
                    for event in reader.feed(chunk):
                        # The first event of this transport (specification 2024-11-05, HTTP with SSE).
                        if event.type == "endpoint":
                            self._find(event.data)
                        elif event.error is not None:
                            await self.inbox.put(event.error)
                        elif event.type == "message" and event.data:
                            await self._take(event.data)
        except NoEndpoint as error:
            self._watch.reason = error
        except (httpx2.HTTPError, Unreadable) as error:
            # A cut of the stream is the end of this transport, regardless of the cause. (The error itself would be only
            # a suspicion: over plain HTTP a cut socket proves nothing.)
            self._watch.reason = anyio.EndOfStream(str(error) or type(error).__name__)
        finally:
            await close(response)
            if self._endpoint is None:
                self._watch.reason = self._watch.reason or NoEndpoint("the event stream named no endpoint")
            self.found.set()
            self.inbox.end()

    def _find(self, data: bytes) -> None:
        # Only the first one counts, because a later one could redirect the requests of an open session.
        if self._endpoint is not None:
            return
        # Usually a path. Resolved against the URL of the stream, as a browser would.
        url = self._url.join(data.decode("utf-8", "replace").strip())
        if (url.scheme, url.host, url.port) != (self._url.scheme, self._url.host, self._url.port):
            # It would receive the credentials.
            raise NoEndpoint("the endpoint is at another origin than the event stream")
        # The session id is in its query.
        for secret in secrets_of_url(str(url)):
            self._http.redact.learn(secret)
        self._endpoint = url
        self.found.set()

    async def _take(self, data: bytes) -> None:
        try:
            message = await parse(data, self._limits)
        except Unreadable as error:
            await self.inbox.put(error)
            return
        await self.inbox.put(SessionMessage(message))

    # -- out

    @property
    def endpoint(self) -> httpx2.URL:
        """The endpoint for messages.

        Raises:
            NoEndpoint: the server has not sent one.
        """
        if self._endpoint is None:
            raise self._watch.reason or NoEndpoint("the event stream named no endpoint")
        return self._endpoint

    async def send(self, item: Outgoing) -> None:
        """Start to send a request; send anything else."""
        message = item.message
        if isinstance(message, JSONRPCRequest):
            self._group.start_soon(self._request, item, message)
        elif isinstance(message, JSONRPCNotification) and message.method == "notifications/cancelled":
            request_id = (message.params or {}).get("requestId")
            post = self._posts.get(coerce_request_id(request_id)) if request_id is not None else None
            if post is not None:
                post.cancel()
            if not self._watch.lost:
                self._group.start_soon(self._courtesy, item)
        else:
            async with self._turn:
                evidence = await self._http.send_quietly(self._post(item))
            if evidence is not None:
                self._watch.idle_failure(evidence)

    def _post(self, item: Outgoing) -> httpx2.Request:
        headers = {"content-type": "application/json"}
        return self._http.build_request("POST", self.endpoint, headers=headers, content=item.body)

    async def _request(self, item: Outgoing, message: JSONRPCRequest) -> None:
        """Send a request. Its answer comes on the event stream, unless it was refused."""
        # A message without a record was sent by the caller on the SDK's own session, so it does not count as safe.
        attempt = ATTEMPT.get() or Attempt("call", unsafe=message.method == "tools/call")
        key = coerce_request_id(message.id)
        # Cancelled when the caller leaves; the answer, if it comes, then has no caller on the event stream.
        with anyio.CancelScope() as self._posts[key]:
            try:
                response = await self._http.send_recorded(self._post(item), attempt)
                # The answer comes on the event stream; this response only confirms that the request has arrived.
                attempt.http_status = attempt.content_type = None
                await discard(response)
            except Refused as refused:
                if refused.error is not None:
                    answer = JSONRPCError(jsonrpc="2.0", id=message.id, error=refused.error)
                    await self.inbox.put(SessionMessage(answer))
                else:
                    await self.inbox.put(made(message.id, CONNECTION_CLOSED, f"Request failed: {refused}"))
            except Exception as error:
                # All exceptions are caught, because one that is raised here would end the session for all its calls.
                attempt.exception = error
                await self.inbox.put(made(message.id, CONNECTION_CLOSED, f"Request failed: {type(error).__name__}"))
        self._posts.pop(key, None)

    async def _courtesy(self, item: Outgoing) -> None:
        with anyio.move_on_after(GOODBYE_TIMEOUT):
            await self._http.send_quietly(self._post(item))


@asynccontextmanager
async def http_sse(
    url: str, http: EvidenceClient, watch: Watch, limits: Limits
) -> AsyncIterator[tuple[Inbox, HttpSse]]:
    """A read and a write stream to a server over HTTP+SSE.

    Raises:
        Refused, NoEndpoint: there is no such server.
        Exception: whatever the HTTP client or the auth flow raised.
    """
    async with http, anyio.create_task_group() as group:
        transport = HttpSse(url, http, watch, limits, group)
        try:
            response = await transport.open()
            group.start_soon(transport.read, response)
            await transport.found.wait()
            _ = transport.endpoint
            yield transport.inbox, transport
        finally:
            group.cancel_scope.cancel()
            transport.inbox.close()
