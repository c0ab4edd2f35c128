"""One view as an MCP server: the SDK's server with the forwarding middleware."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from contextvars import ContextVar
from typing import Any, cast

import mcp_types as types
from mcp import MCPError
from mcp.server.lowlevel import NotificationOptions, Server
from mcp.server.request_state import RequestStateBoundary, RequestStateSecurity
from mcp.server.streamable_http import EventStore
from mcp.server.subscriptions import ListenHandler
from mcp.server.transport_security import TransportSecurityMiddleware, TransportSecuritySettings
from mcp_types import SubscriptionsListenRequestParams, SubscriptionsListenResult
from mcp_types.version import MODERN_PROTOCOL_VERSIONS
from starlette.requests import Request
from starlette.types import Receive, Scope, Send

from mcpconn.gateway.capacity import Capacity
from mcpconn.gateway.clients.downstream import TASKS as TASKS_EXTENSION
from mcpconn.gateway.clients.downstream import Context
from mcpconn.gateway.clients.events import Events, SessionEvents
from mcpconn.gateway.clients.replicas import Replicas
from mcpconn.gateway.clients.session_ids import Session
from mcpconn.gateway.clients.sessions import SCOPE_KEY, SESSION_HEADER, Sessions
from mcpconn.gateway.http.asgi import header, refuse
from mcpconn.gateway.http.bodies import BODY_LIMIT, Bodies
from mcpconn.gateway.principals import principal_of
from mcpconn.gateway.requests.audit import Auditing
from mcpconn.gateway.requests.forward import Forwarder
from mcpconn.gateway.requests.large import RESPONSE_KEY, noticing
from mcpconn.gateway.requests.modern_responses import ModernResponse, says_nothing_early
from mcpconn.gateway.requests.responses import Releases, Response
from mcpconn.gateway.requests.stopping import RETRY_AFTER, Stopping
from mcpconn.gateway.servers.relay import Relay
from mcpconn.gateway.store import Store
from mcpconn.gateway.views import View
from mcpconn.keys import LEDGER
from mcpconn.sdk.server import SessionManager
from mcpconn.seal import KeyRing

ROUND_TTL = 600.0
"""Seconds for which a `requestState` is good; the SDK's default."""


_OPENING: ContextVar[Session | None] = ContextVar("mcpconn_gateway_opening", default=None)
"""The session that the present request belongs to, for the SDK's manager, which does not know it."""
TASKS = types.ServerTasksCapability(
    list=types.TasksListCapability(),
    cancel=types.TasksCancelCapability(),
    requests=types.ServerTasksRequestsCapability(tools=types.TasksToolsCapability(call=types.TasksCallCapability())),
)
"""What the forwarding serves of tasks. Which tools can be called so is said by each tool."""


class ViewServer(Server[Any]):
    """The SDK's server of one view. Its capabilities are those that the forwarding serves."""

    def __init__(
        self,
        name: str,
        version: str,
        *,
        instructions: Callable[[], str | None],
        ledger: Callable[[], dict[str, Any] | None],
        **options: Any,
    ) -> None:
        self._said = instructions
        self._ledger = ledger
        super().__init__(name, version=version, **options)

    def get_capabilities(
        self,
        notification_options: NotificationOptions | None = None,
        experimental_capabilities: dict[str, dict[str, Any]] | None = None,
        extensions: dict[str, dict[str, Any]] | None = None,
        *,
        protocol_version: str | None = None,
    ) -> types.ServerCapabilities:
        modern = protocol_version in MODERN_PROTOCOL_VERSIONS
        said = self._ledger()
        return types.ServerCapabilities(
            tools=types.ToolsCapability(list_changed=True),
            prompts=types.PromptsCapability(list_changed=True),
            resources=types.ResourcesCapability(subscribe=True, list_changed=True),
            completions=types.CompletionsCapability(),
            # The modern era has a level per request, and no capability for it.
            logging=None if modern else types.LoggingCapability(),
            tasks=None if modern else TASKS,
            extensions={**(extensions or {}), **({TASKS_EXTENSION: {}} if modern else {})} or None,
            # A client that knows of the ledger sends keys with its calls, and may then send them again.
            experimental={**(experimental_capabilities or {}), **({LEDGER: said} if said is not None else {})} or None,
        )

    @property
    def instructions(self) -> str | None:
        """The servers' instructions. They are known only after the servers are connected, so they are read each
        time."""
        return self._said()

    @instructions.setter
    def instructions(self, text: str | None) -> None:
        """The SDK's server sets what it was made with: nothing."""


class Endpoint:
    """The ASGI application of one view."""

    def __init__(
        self,
        view: View,
        *,
        name: str,
        version: str,
        instructions: Callable[[], str | None],
        ledger: Callable[[], dict[str, Any] | None],
        schema: Callable[[str], Any],
        settled: Callable[[], Awaitable[None]],
        forwarder: Forwarder,
        relay: Relay,
        ring: KeyRing,
        store: Store,
        events: Events,
        ended: Callable[[Session], None],
        security: TransportSecuritySettings | None,
        bodies: Bodies | None = None,
        auditing: Auditing | None = None,
        replicas: Replicas | None = None,
        limits: Capacity | None = None,
    ) -> None:
        """
        Args:
            view: What it shows.
            name: What the gateway calls itself.
            version: Its version.
            instructions: How its servers want to be used, as far as it is known.
            ledger: What is said of the ledger to clients; None if it cannot be used now.
            schema: A tool's input schema, by public name.
            settled: Waits a moment for servers that are being connected for the first time.
            forwarder: Answers requests.
            relay: Where the events of listening streams come from.
            ring: Seals session ids and states.
            store: Keeps what sessions need over a restart.
            events: Keeps what a stream that was cut is sent again.
            ended: Called with each session that has ended here.
            security: Hosts and origins that are let in.
            bodies: Reads requests' bodies, within limits that all views share.
            auditing: Writes a line when a call begins and when it ends.
            replicas: The other replicas; None if this process is the whole gateway.
            limits: How many sessions and streams are held, and for how long.
        """
        self._limits = limits = limits or Capacity()
        self.view = view
        self._relay = relay
        self._standing = forwarder.standing
        self._listeners: dict[str, ListenHandler] = {}
        self.settled = settled
        self.server = ViewServer(
            name,
            version,
            instructions=instructions,
            ledger=ledger,
            get_tool_input_schema=schema,
            on_subscriptions_listen=self.listen,
        )
        # The state of a call's rounds is bound to whom it was given, and to the view it came through.
        states = RequestStateSecurity(
            keys=ring.derived("request state"), ttl=ROUND_TTL, bind_principal=self._bound_to, audience="mcpconn"
        )
        self.server.middleware.append(RequestStateBoundary(states, default_audience="mcpconn"))
        if auditing is not None:
            self.server.middleware.append(auditing)
        self._stopping = Stopping(lambda: self.server.server_info_stamp)
        self.server.middleware.append(self._stopping)
        self.server.middleware.append(forwarder)
        self._ended = ended
        self._events = events
        self._releases = Releases()
        self.manager = SessionManager(
            self.server,
            respond=self._respond,
            events=lambda: events.of(_OPENING.get()),
            session_idle_timeout=None,
            # Not the one that decides: `Sessions` makes room, which the SDK's server cannot.
            max_sessions=limits.sessions,
            max_request_body_size=BODY_LIMIT,
            # `__call__` has checked the request before it comes here.
            security_settings=TransportSecuritySettings(enable_dns_rebinding_protection=False),
        )
        self.sessions = Sessions(
            self.serve,
            self.serve_modern,
            view=view.name,
            sealer=ring.sealer("session"),
            store=store,
            ended=self._over,
            bodies=bodies,
            replicas=replicas,
            at_most=limits.sessions,
            per_principal=limits.sessions_per_principal,
            idle=limits.session_idle,
        )
        self._security = TransportSecurityMiddleware(security)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Serve for as long as the block runs."""
        async with self._events.running(), self._releases.running(), self.manager.run():
            try:
                yield
            finally:
                self.drain()
                self.manager.cut()

    def drain(self, *, calls: bool = False) -> None:
        """End every event stream with a clean last chunk.

        Args:
            calls: Answer what still runs, too, and refuse what comes from now on.
        """
        if calls:
            self._stopping.end()
        self.sessions.end_streams()
        for listener in tuple(self._listeners.values()):
            listener.close()

    @property
    def stopping(self) -> Stopping:
        """The requests that run, and what they were told at the end."""
        return self._stopping

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._stopping.over:
            again = (("retry-after", str(RETRY_AFTER)), ("connection", "close"))
            await refuse(send, 503, "The gateway is being stopped; nothing was run", headers=again)
            return
        # Before anything else: what another site's page sends is neither read nor acted upon, a DELETE neither.
        refusal = await self._security.validate_request(Request(scope), is_post=scope["method"] == "POST")
        if refusal is not None:
            await refusal(scope, receive, send)
        else:
            await self.sessions(scope, receive, send)

    async def serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request whose session is known, or that has none."""
        if SCOPE_KEY in scope and header(scope, SESSION_HEADER) is None:
            # A session begins, and its answer has the servers' instructions in it.
            await self.settled()
        token = _OPENING.set(scope.get(SCOPE_KEY))
        try:
            await self.manager.handle_request(scope, receive, send)
        finally:
            _OPENING.reset(token)
            # The SDK's server keeps the last request of each session until the next one comes.
            scope.pop(RESPONSE_KEY, None)

    async def serve_modern(self, scope: Scope, receive: Receive, send: Send, body: bytes) -> None:
        """Serve a request of the 2026-07-28 protocol; `body` is what `receive` returns first."""
        if scope["method"] == "POST" and says_nothing_early(scope, body):
            response = ModernResponse(receive, send, self._releases)
            await response.run(self.manager.answer_modern, scope)
        else:
            await noticing(self.manager.handle_request, scope, receive, send)

    def _respond(
        self, scope: Scope, send: Send, request: types.JSONRPCRequest, *, events: EventStore, **options: Any
    ) -> Response:
        response = Response(send, request, self._releases, events=cast(SessionEvents, events), **options)
        scope[RESPONSE_KEY] = response
        return response

    async def _over(self, session: Session) -> None:
        self._relay.detach(session.sid)
        self._events.ended(session)
        self._ended(session)

    def _bound_to(self, ctx: Context) -> str:
        scope = ctx.request.scope if ctx.request is not None else {"type": "stdio"}
        return f"{self.view.name}\n{principal_of(scope).digest}"

    async def listen(self, ctx: Context, params: SubscriptionsListenRequestParams) -> SubscriptionsListenResult:
        """Answer `subscriptions/listen` (modern era): a stream of events, until its client closes it."""
        if len(self._listeners) >= self._limits.sessions:
            raise MCPError(types.INTERNAL_ERROR, "Too many streams of events are open")
        scope = ctx.request.scope if ctx.request is not None else {}
        with self._relay.listener(self.view.name, principal_of(scope)) as (token, bus):
            # Each stream has its own: an update reaches those who asked for it on their own connection.
            listener = self._listeners[token] = ListenHandler(bus, max_subscriptions=1)
            try:
                await self._standing.listen(ctx, token, list(params.notifications.resource_subscriptions or ()))
                return await listener(ctx, params)
            finally:
                del self._listeners[token]
