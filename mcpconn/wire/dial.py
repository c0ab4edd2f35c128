"""From a configuration to an open `mcp.Client`, over stdio, Streamable HTTP, SSE, or in process."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import anyio
import httpx2
from mcp import Client, MCPError
from mcp.client.sse import sse_client
from mcp.client.streamable_http import streamable_http_client
from mcp_types import METHOD_NOT_FOUND, Implementation, ListToolsResult, ServerCapabilities, Tool
from mcp_types.version import MODERN_PROTOCOL_VERSIONS

from mcpconn.auth.token_requests import send
from mcpconn.config import ServerConfig
from mcpconn.core.exchange import EXCHANGE, Exchange
from mcpconn.core.failures import Era, Evidence, Phase
from mcpconn.core.seen import walk
from mcpconn.policy import Policy
from mcpconn.redact import Redactor
from mcpconn.wire.lens import Lens, Undecided
from mcpconn.wire.network import Borrowed, Network
from mcpconn.wire.stdio import stdio_transport
from mcpconn.wire.watch import Watch, injectable, watched

# Errors that the SDK makes up on this side for a stream that ended, and which a server could send as well.
# Where one did, taking it for local costs a probe and nothing else.
LOCAL_ERRORS = (
    (-32000, "SSE stream"),
    (-32001, "Request '"),
    (-32001, "Timed out after"),
    (-32700, "Failed to parse"),
    (-32600, "server answered a request with 202"),
    (-32600, "Unexpected content type"),
    (-32600, "Redirect to"),
)


UNDECIDED_PATIENCE = 2
"""Times in a row that a server may fail at `server/discover` alone before it is dialled as a legacy one."""


class DialFailed(Exception):
    """A session could not be opened; `evidence` says what was seen."""

    def __init__(self, evidence: Evidence) -> None:
        super().__init__(repr(evidence))
        self.evidence = evidence


class Link:
    """One open session: the SDK's client, and what the wire knows about it."""

    def __init__(self, client: Client, watch: Watch, *, tracked: bool) -> None:
        self.client = client
        # Kept here, because the client raises when it is asked after its end, and ends while others look.
        self._session = client.session
        self._watch = watch
        self._tracked = tracked
        version = client.protocol_version
        self.version: str = version
        self.server_info: Implementation | None = client.server_info
        """What the server calls itself."""
        self.capabilities: ServerCapabilities = client.server_capabilities
        """What the server can do."""
        self.era: Era = "modern" if version in MODERN_PROTOCOL_VERSIONS else "legacy"

    @property
    def ended(self) -> BaseException | None:
        """Why the transport has ended; None while it has not."""
        return (self._watch.reason or anyio.EndOfStream()) if self._watch.ended else None

    def exchange(self, phase: Phase) -> Exchange:
        """A new record for an attempt on this session."""
        return Exchange(phase, self.era, written=False if self._tracked else None)

    def explain(self, error: BaseException, exchange: Exchange) -> Evidence:
        """The evidence for `error`, which an attempt recorded in `exchange` raised."""
        return explain(error, exchange, self._watch)

    def seed(self, tools: Sequence[Tool]) -> None:
        """Hand the tools of the last session on, so that the SDK need not list them to check an answer.

        Without this, the first call of every session costs a tools/list. The method is the SDK's own but
        not a public one; where it is missing, the listing is made, and nothing else changes.
        """
        absorb = getattr(self._session, "_absorb_tool_listing", None)
        if callable(absorb) and tools:
            absorb(ListToolsResult(tools=list(tools)), complete=True)

    def doom(self) -> None:
        """The session is known to be gone: leave it without a word."""
        self._watch.doomed = True

    def hurry(self) -> None:
        """The connection is being closed: a child gets little time to end."""
        self._watch.grace = min(self._watch.grace, 0.4)

    async def probe(self) -> None:
        """Ask the server whether this session lives.

        Raises:
            Exception: it does not, or nobody can say.
        """
        session = self._session
        if self.era == "modern":
            await session.send_discover(self.version)
            return
        try:
            await session.send_ping()
        except MCPError as error:
            if error.code != METHOD_NOT_FOUND:
                raise
            # The specification makes ping a must, but not every server does.
            await session.list_tools()


def explain(error: BaseException, exchange: Exchange, watch: Watch) -> Evidence:
    """What the wire saw comes first; then the JSON-RPC error; then the exception itself."""
    if exchange.failed:
        return exchange.evidence()
    if isinstance(error, MCPError):
        if exchange.from_wire is None:
            exchange.code, exchange.message = error.code, error.message
            # What was not written cannot have been answered.
            exchange.from_wire = exchange.written is not False and _from_wire(error, watch)
        if watch.ended and exchange.from_wire is False and watch.reason is not None:
            exchange.code, exchange.message = None, None
            exchange.exception = watch.reason
        return exchange.evidence()
    exchange.exception = error
    # A local exception came after the answer or before the request: what HTTP said is not its cause.
    exchange.http_status = exchange.content_type = None
    return exchange.evidence()


def _from_wire(error: MCPError, watch: Watch) -> bool:
    if error.code == -32000 and error.message == "Connection closed":
        return not watch.ended
    return not any(error.code == code and error.message.startswith(text) for code, text in LOCAL_ERRORS)


class Dialer:
    """Opens sessions to one server, one after another."""

    def __init__(
        self,
        config: ServerConfig,
        policy: Policy,
        *,
        network: Network | None = None,
        options: Mapping[str, Any] | None = None,
        auth: httpx2.Auth | None = None,
        redact: Redactor | None = None,
    ) -> None:
        """
        Args:
            config: The server.
            policy: Its numbers.
            network: What HTTP connections share; one is made where none is given.
            options: Arguments for `mcp.Client`: callbacks, client_info and so on.
            auth: Credentials for HTTP, the same for all sessions.
            redact: Hides the server's secrets; made from the configuration where none is given.
        """
        self.config = config
        self._policy = policy
        self._network = network or Network()
        self._options = dict(options or {})
        self.auth = auth
        """Credentials of the sessions to come."""
        self._redact = redact or config.redactor
        self._transport: httpx2.AsyncBaseTransport | None = config.http_transport
        self.era: Era | None = None
        """The era of the last session: asking again at every dial would cost a round trip."""
        self._undecided = 0

    @property
    def mode(self) -> str:
        """The SDK's connect mode for the next dial."""
        if self.config.mode != "auto":
            return self.config.mode
        # A server that drops every connection on which it is asked for its era is an old one, too.
        return "legacy" if self.era == "legacy" or self._undecided >= UNDECIDED_PATIENCE else "auto"

    @asynccontextmanager
    async def open(self, sign: Callable[[Evidence], None]) -> AsyncIterator[Link]:
        """Open a session; leaving the block ends it.

        Args:
            sign: Told what happens to the session while no call is there to fail.

        Raises:
            DialFailed: no session came of it.
        """
        watch = Watch(sign)
        link: Link | None = None
        try:
            async with anyio.create_task_group() as group:
                watch.background = group.start_soon
                async with self._client(watch, self.mode) as client:
                    link = Link(client, watch, tracked=self.config.kind != "memory")
                    self.era = link.era
                    self._undecided = 0
                    yield link
                group.cancel_scope.cancel()
        except Exception as error:
            if link is None:
                raise DialFailed(self._explain(error, watch)) from error
            raise

    def _explain(self, error: BaseException, watch: Watch) -> Evidence:
        exchange = EXCHANGE.get() or Exchange("dial")
        cause = next((each for each in walk(error) if isinstance(each, MCPError)), error)
        evidence = explain(cause, exchange, watch)
        refused = evidence.http_status in (401, 403)
        if any(isinstance(each, Undecided) for each in walk(error)) and evidence.written and not refused:
            self._undecided += 1
        if evidence.from_wire:
            # It answered, and refused the handshake: it may have been replaced by a server of the other era.
            self.era = None
            self._undecided = 0
        return evidence

    async def fetch(self, request: httpx2.Request) -> httpx2.Response:
        """Send a request that is no message to the server, as to its authorization server, and read the answer."""
        given = self.config.http_transport
        transport = self._network.transport(str(request.url), self.config.engine) if given is None else Borrowed(given)
        timeout = self._policy.connect_timeout
        async with httpx2.AsyncClient(transport=transport, timeout=timeout) as client:
            return await send(client, request)

    async def aclose(self) -> None:
        """Close the sockets that sessions shared."""
        transport, self._transport = self._transport, self.config.http_transport
        if transport is not None:
            await transport.aclose()

    @asynccontextmanager
    async def _client(self, watch: Watch, mode: str) -> AsyncIterator[Client]:
        config = self.config
        server: Any
        if config.kind == "memory":
            server = config.server
        elif config.kind == "stdio":
            assert config.command is not None
            child = stdio_transport(
                config.command,
                config.args,
                env=config.env,
                cwd=config.cwd,
                watch=watch,
                limit=self._policy.max_message_size,
            )
            server = watched(child, watch, final=True)
        elif config.kind == "sse":
            server = watched(injectable(self._sse(watch), watch), watch, final=False)
        else:
            server = watched(self._http(watch), watch, final=False)
        async with Client(server, mode=mode, **self._options) as client:
            yield client

    def _lens(self, watch: Watch, *, sse: bool = False, headers: Any = None) -> Lens:
        assert self.config.url is not None
        if self._transport is None:
            self._transport = self._network.transport(self.config.url, self.config.engine)
        return Lens(
            watch,
            redact=self._redact,
            limit=self._policy.max_message_size,
            sse=sse,
            transport=Borrowed(self._transport),
            headers={**self.config.request_headers, **(headers or {})},
            auth=self.auth,
            # Reading has no limit of its own: a call has its deadline, and an event stream may be silent
            # for hours. (With the SDK's 300 s it gives such a stream up after the second silence.)
            timeout=httpx2.Timeout(self._policy.connect_timeout, read=None),
        )

    @asynccontextmanager
    async def _http(self, watch: Watch) -> AsyncIterator[Any]:
        assert self.config.url is not None
        async with (
            self._lens(watch) as lens,
            streamable_http_client(
                self.config.endpoint, http_client=lens, max_sse_event_size=self._policy.max_message_size
            ) as streams,
        ):
            yield streams

    def _sse(self, watch: Watch) -> AbstractAsyncContextManager[Any]:
        assert self.config.url is not None

        def factory(headers: Any = None, timeout: Any = None, auth: Any = None) -> httpx2.AsyncClient:
            return self._lens(watch, sse=True, headers=headers)

        return sse_client(self.config.endpoint, httpx_client_factory=factory)
