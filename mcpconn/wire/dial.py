"""From a configuration to an open `mcp.Client`, over stdio, Streamable HTTP, SSE, or in process."""

from __future__ import annotations

import os
import random
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import anyio
import httpx2
from mcp import Client, MCPError
from mcp.client.subscriptions import Subscription
from mcp_types import DiscoverResult, Implementation, ServerCapabilities, Tool
from mcp_types.version import MODERN_PROTOCOL_VERSIONS

from mcpconn.auth.token_requests import send
from mcpconn.config import ServerConfig
from mcpconn.core.exchange import EXCHANGE, Exchange
from mcpconn.core.failures import Era, Evidence, Phase
from mcpconn.core.seen import walk
from mcpconn.core.stream import SILENCE
from mcpconn.errors import ConfigError
from mcpconn.policy import Policy
from mcpconn.redact import Redactor
from mcpconn.tls import OwnContext
from mcpconn.wire import sdk
from mcpconn.wire.explain import explain
from mcpconn.wire.lens import Lens
from mcpconn.wire.messages import Limits
from mcpconn.wire.network import Network
from mcpconn.wire.probe import probe_methods, send_probe
from mcpconn.wire.recorder import Recorder
from mcpconn.wire.sse import http_sse
from mcpconn.wire.stdio import stdio_transport
from mcpconn.wire.streamable import Undecided, streamable_http
from mcpconn.wire.watch import Watch, watched

UNDECIDED_PATIENCE = 2
"""Times in a row that a server may fail at `server/discover` alone before it is dialled as a legacy one."""


class DialFailed(Exception):
    """A session could not be opened; `evidence` says what was seen."""

    def __init__(self, evidence: Evidence) -> None:
        super().__init__(repr(evidence))
        self.evidence = evidence


class Link:
    """One open session: the SDK's client, and what the wire knows about it."""

    def __init__(self, client: Client, watch: Watch) -> None:
        self.client = client
        # Kept here, because the client raises when it is asked after its end, and ends while others look.
        self._session = client.session
        self._watch = watch
        version = client.protocol_version
        self.version: str = version
        self.server_info: Implementation | None = client.server_info
        """What the server calls itself."""
        self.capabilities: ServerCapabilities | None = client.server_capabilities
        """What the server can do. None: `mode` names a modern version, and so nobody has asked."""
        if client.mode in MODERN_PROTOCOL_VERSIONS and client.prior_discover is None:
            self.capabilities = None
        self.era: Era = "modern" if version in MODERN_PROTOCOL_VERSIONS else "legacy"
        self.stream = watch.stream
        sdk.validate_known(client.session)

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
        """Hand the tools of the last session on: which of their arguments are sent as headers, too."""
        sdk.seed(self._session, tools)

    def listen(
        self, *, tools_list_changed: bool, resources_list_changed: bool, prompts_list_changed: bool
    ) -> AbstractAsyncContextManager[Subscription]:
        """Open `subscriptions/listen` (modern era); its events are iterated."""
        return self.client.listen(
            tools_list_changed=tools_list_changed,
            resources_list_changed=resources_list_changed,
            prompts_list_changed=prompts_list_changed,
        )

    async def discover(self) -> ServerCapabilities:
        """Ask the server what it can do (modern era).

        Raises:
            Exception: it does not say.
        """
        raw = await self._session.send_discover(self.version)
        return DiscoverResult.model_validate(raw).capabilities

    def doom(self) -> None:
        """The session is known to be gone: leave it without a word."""
        self._watch.doomed = True

    def hurry(self) -> None:
        """The connection is being closed: a child gets little time to end."""
        self._watch.grace = min(self._watch.grace, 0.4)

    @property
    def probes(self) -> tuple[str, ...]:
        """The methods that can be asked whether this session lives."""
        return probe_methods(self.era, self.capabilities)

    async def probe(self, method: str) -> None:
        """Ask the server on this session with one of `probes`.

        Raises:
            Exception: it was refused, or nobody can say.
        """
        await send_probe(self._session, method, self.version)


def unusable(config: ServerConfig) -> Evidence:
    """The evidence for a configuration with a problem: nothing is dialled."""
    error = ConfigError(config.problem or "", server=config.name)
    return Evidence(exception=error, phase="dial", written=False)


def _same_origin(url: str, other: str) -> bool:
    one, two = httpx2.URL(url), httpx2.URL(other)
    return (one.scheme, one.host, one.port) == (two.scheme, two.host, two.port)


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
        chance: Callable[[], float] = random.random,
    ) -> None:
        """
        Args:
            config: The server.
            policy: Its numbers.
            network: What HTTP connections share; one is made where none is given.
            options: Arguments for `mcp.Client`: callbacks, client_info and so on.
            auth: Credentials for HTTP, the same for all sessions.
            redact: Hides the server's secrets; made from the configuration where none is given.
            chance: A random number from 0 to 1, for jitter.
        """
        self._chance = chance
        self.config = config
        self._policy = policy
        self._network = network or Network()
        self._options = dict(options or {})
        self._limits = Limits(policy.max_message_size, policy.max_message_values)
        self.auth = auth
        """Credentials of the sessions to come."""
        self._redact = redact or config.redactor
        self._tls = OwnContext(config.tls) if config.tls is not None else None
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
        if self.config.problem is not None:
            raise DialFailed(unusable(self.config))
        watch = Watch(sign, self._redact, self.config.name, self._chance)
        link: Link | None = None
        try:
            async with anyio.create_task_group() as group:
                if self.config.url is not None and (tend := getattr(self._http_transport(), "tend", None)) is not None:
                    # Closes idle sockets that the server has closed.
                    group.start_soon(tend)
                async with self._client(watch, self.mode) as client:
                    link = Link(client, watch)
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
        # Its own TLS settings are for the server alone, and for an authorization server that is in the same place.
        own = _same_origin(str(request.url), self.config.endpoint)
        transport = self._transport_to(str(request.url), own=own) if given is None else Recorder(given)
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
        config, options = self.config, self._options
        server: Any
        if config.kind == "memory" and mode == "legacy":
            transport = sdk.in_process(config.server, raise_exceptions=options.get("raise_exceptions", False))
            server = watched(transport, watch, final=True, encoded=False)
        elif config.kind == "memory":
            # No streams: the SDK calls the server's functions.
            server = config.server
        elif config.kind == "stdio":
            assert config.command is not None
            child = stdio_transport(
                config.command,
                config.args,
                env=config.environment(os.environ),
                cwd=config.cwd,
                watch=watch,
                limits=self._limits,
            )
            server = watched(child, watch, final=True)
        else:
            if config.kind == "sse":
                server = watched(http_sse(config.endpoint, self._lens(), watch, self._limits), watch, final=False)
            else:
                silence = SILENCE if self._policy.keepalive is not None else None
                streams = streamable_http(config.endpoint, self._lens(), watch, self._limits, silence)
                server = watched(streams, watch, final=False, shared=False)
        async with sdk.Client(server, mode=mode, **options) as client:
            yield client

    def _http_transport(self) -> httpx2.AsyncBaseTransport:
        """Sends the requests of all sessions."""
        assert self.config.url is not None
        if self._tls is not None:
            # Certificates that were replaced since the last session are read again.
            try:
                self._tls()
            except ValueError as error:
                raise self.config.error(str(error)) from None
        if self._transport is None:
            self._transport = self._transport_to(self.config.url, own=True)
        return self._transport

    def _transport_to(self, url: str, *, own: bool) -> httpx2.AsyncBaseTransport:
        tls = self._tls if own else None
        return self._network.transport(url, self.config.engine, tls=tls, learn=self._redact.learn)

    def _lens(self) -> Lens:
        return Lens(
            redact=self._redact,
            sse=self.config.kind == "sse",
            transport=self._http_transport(),
            headers=self.config.request_headers,
            auth=self.auth,
            # Reading has no limit of its own: a call has its deadline, and an event stream may be silent
            # for hours. (With the SDK's 300 s it gives such a stream up after the second silence.)
            timeout=httpx2.Timeout(self._policy.connect_timeout, read=None),
        )
