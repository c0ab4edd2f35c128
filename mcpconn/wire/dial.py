"""From a configuration to an open `mcp.Client`, over stdio, Streamable HTTP, SSE, or in process."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import anyio
import httpx2
from mcp import Client, MCPError
from mcp_types import METHOD_NOT_FOUND, Implementation, ListToolsResult, ServerCapabilities, Tool
from mcp_types.version import MODERN_PROTOCOL_VERSIONS

from mcpconn.auth.token_requests import send
from mcpconn.config import ServerConfig
from mcpconn.core.exchange import EXCHANGE, Exchange
from mcpconn.core.failures import Era, Evidence, Phase
from mcpconn.core.seen import walk
from mcpconn.policy import Policy
from mcpconn.redact import Redactor
from mcpconn.wire.child import ENDING
from mcpconn.wire.era import Eras, Negotiation
from mcpconn.wire.explain import explain
from mcpconn.wire.lens import Lens
from mcpconn.wire.messages import Limits
from mcpconn.wire.network import Borrowed, Network
from mcpconn.wire.sdk import in_process
from mcpconn.wire.sse import http_sse
from mcpconn.wire.stdio import stdio_transport
from mcpconn.wire.streamable import streamable_http
from mcpconn.wire.watch import Watch, watched
from mcpconn.wire.watchdog import Watchdog

GOODBYE = 0.3
"""Seconds for telling a server over HTTP that a session ends, where closing has left no more for it."""


class DialFailed(Exception):
    """A session could not be opened; `evidence` says what was seen."""

    def __init__(self, evidence: Evidence) -> None:
        super().__init__(repr(evidence))
        self.evidence = evidence


class Link:
    """One open session: the SDK's client, and what the wire knows about it."""

    def __init__(self, client: Client, watch: Watch, *, ending: float = GOODBYE) -> None:
        self.client = client
        # Kept here, because the client raises when it is asked after its end, and ends while others look.
        self._session = client.session
        self._watch = watch
        self.ending = ending
        """Seconds that its end has once its calls are over, beside what is left of the drain timeout."""
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
        return Exchange(phase, self.era, written=False if self._watch.passes else None)

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

    @property
    def doubt(self) -> Evidence | None:
        """Why nobody may be there any more, though the transport has not ended; None if nothing says so."""
        reason = self._watch.doubt
        return None if reason is None else Evidence(exception=reason, from_wire=False, phase="idle")

    async def probe(self) -> None:
        """Ask the server whether this session lives.

        Raises:
            Exception: it does not, or nobody can say.
        """
        await self._watch.probing(self._ask)

    async def _ask(self) -> None:
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
        eras: Eras | None = None,
        watchdog: Watchdog | None = None,
    ) -> None:
        """
        Args:
            config: The server.
            policy: Its numbers.
            network: What HTTP connections share; one is made where none is given.
            options: Arguments for `mcp.Client`: callbacks, client_info and so on.
            auth: Credentials for HTTP, the same for all sessions.
            redact: Hides the server's secrets; made from the configuration where none is given.
            eras: What a manager knows of its servers' eras.
            watchdog: Ends a manager's child processes if this process is killed.
        """
        self.config = config
        self._policy = policy
        self._network = network or Network()
        self._options = dict(options or {})
        self._limits = Limits(policy.max_message_size, policy.max_message_values)
        self.auth = auth
        """Credentials of the sessions to come."""
        self._redact = redact or config.redactor
        self._transport: httpx2.AsyncBaseTransport | None = config.http_transport
        self._known = (eras or Eras()).of(config)
        self._watchdog = watchdog or Watchdog()
        self._joined = False
        self._starting: tuple[float, Watch] | None = None
        """Since when (`time.monotonic`) the child of the present opening is being started."""
        self.last_words = ""
        """The last line that the child of a failed opening wrote to stderr."""

    @property
    def patience(self) -> float | None:
        """Seconds that the next dial may take, where that is not the policy's `connect_timeout`.

        Until a command line has once been started with success, its starts have `start_timeout` together: npx, uvx
        and docker download for minutes. Each has `connect_timeout` at least.
        """
        if self.config.kind != "stdio" or self._known.started:
            return None
        return max(self._policy.connect_timeout, self._policy.start_timeout - self._known.waited)

    @property
    def progress(self) -> str | None:
        """What a child that is being started is doing, as far as can be seen; None if none is."""
        if self._starting is None:
            return None
        began, watch = self._starting
        words = self._redact(watch.last_words())
        return f"starting, {time.monotonic() - began:.0f} s{': ' if words else ''}{words}"

    @asynccontextmanager
    async def open(self, sign: Callable[[Evidence], None]) -> AsyncIterator[Link]:
        """Open a session; leaving the block ends it.

        Args:
            sign: Told what happens to the session while no call is there to fail.

        Raises:
            DialFailed: no session came of it.
        """
        negotiation = Negotiation(self._known, self.config.mode, self.patience or self._policy.connect_timeout)
        link: Link | None = None
        while link is None:
            watch = Watch(sign, self._redact, self.config.name, negotiation.discovery)
            try:
                async with self._opened(watch, negotiation) as link:
                    yield link
            except Exception as error:
                if link is not None:
                    raise
                evidence = self._explain(error, watch)
                if not negotiation.again(error, evidence):
                    raise DialFailed(negotiation.evidence(evidence)) from error
                EXCHANGE.set(Exchange("dial"))

    @asynccontextmanager
    async def _opened(self, watch: Watch, negotiation: Negotiation) -> AsyncIterator[Link]:
        """One opening of a session."""
        began = time.monotonic()
        if self.config.kind == "stdio":
            self._starting = (began, watch)
        try:
            async with anyio.create_task_group() as group:
                async with self._client(watch, negotiation.mode) as client:
                    link = Link(client, watch, ending=ENDING if self.config.kind == "stdio" else GOODBYE)
                    self._starting = None
                    watch.discovery.shaken.set()
                    negotiation.opened(link.era)
                    yield link
                group.cancel_scope.cancel()
        finally:
            if not watch.discovery.shaken.is_set():
                self._starting = None
                self.last_words = self._redact(watch.last_words())
                self._known.waited += time.monotonic() - began

    def _explain(self, error: BaseException, watch: Watch) -> Evidence:
        exchange = EXCHANGE.get() or Exchange("dial")
        cause = next((each for each in walk(error) if isinstance(each, MCPError)), error)
        return explain(cause, exchange, watch)

    async def fetch(self, request: httpx2.Request) -> httpx2.Response:
        """Send a request that is no message to the server, as to its authorization server, and read the answer."""
        given = self.config.http_transport
        transport = self._network.transport(str(request.url), self.config.engine) if given is None else Borrowed(given)
        timeout = self._policy.connect_timeout
        async with httpx2.AsyncClient(transport=transport, timeout=timeout) as client:
            return await send(client, request)

    async def aclose(self) -> None:
        """Close the sockets that sessions shared."""
        if self._joined:
            self._joined = False
            self._watchdog.leave()
        transport, self._transport = self._transport, self.config.http_transport
        if transport is not None:
            await transport.aclose()

    @asynccontextmanager
    async def _client(self, watch: Watch, mode: str) -> AsyncIterator[Client]:
        config, options = self.config, self._options
        server: Any
        if config.kind == "memory" and mode == "legacy":
            transport = in_process(config.server, raise_exceptions=options.get("raise_exceptions", False))
            server = watched(transport, watch, final=True, encoded=False)
        elif config.kind == "memory":
            # No streams: the SDK calls the server's functions.
            server = config.server
        elif config.kind == "stdio":
            assert config.command is not None
            if not self._joined:
                self._joined = True
                self._watchdog.join()
            child = stdio_transport(
                config.command,
                config.args,
                env=config.env,
                cwd=config.cwd,
                watch=watch,
                watchdog=self._watchdog,
                limits=self._limits,
                launch=self._policy.connect_timeout,
            )
            # Its write stream says in the record what was written.
            server = watched(child, watch, final=False)
        else:
            if config.kind == "sse":
                server = watched(http_sse(config.endpoint, self._lens(), watch, self._limits), watch, final=False)
            else:
                streams = streamable_http(config.endpoint, self._lens(), watch, self._limits)
                server = watched(streams, watch, final=False, shared=False)
        async with Client(server, mode=mode, **options) as client:
            yield client

    def _lens(self) -> Lens:
        assert self.config.url is not None
        if self._transport is None:
            self._transport = self._network.transport(self.config.url, self.config.engine)
        return Lens(
            redact=self._redact,
            sse=self.config.kind == "sse",
            transport=Borrowed(self._transport),
            headers=self.config.request_headers,
            auth=self.auth,
            # Reading has no limit of its own: a call has its deadline, and an event stream may be silent
            # for hours. (With the SDK's 300 s it gives such a stream up after the second silence.)
            timeout=httpx2.Timeout(self._policy.connect_timeout, read=None),
        )
