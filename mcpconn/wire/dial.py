"""From a configuration to an open `mcp.Client`, over stdio, Streamable HTTP, SSE, or in process."""

from __future__ import annotations

import os
import random
import time
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
from mcpconn.core.attempt import ATTEMPT, Attempt
from mcpconn.core.failures import Era, Evidence, Phase
from mcpconn.core.seen import walk
from mcpconn.core.stream import SILENCE
from mcpconn.errors import ConfigError
from mcpconn.policy import Policy
from mcpconn.redact import Redactor
from mcpconn.tls import OwnContext
from mcpconn.wire import sdk
from mcpconn.wire.child import ENDING
from mcpconn.wire.era import Eras, Negotiation
from mcpconn.wire.evidence import evidence_of
from mcpconn.wire.evidence_client import EvidenceClient
from mcpconn.wire.messages import Limits
from mcpconn.wire.network import Network
from mcpconn.wire.probe import probe_methods, send_probe
from mcpconn.wire.recorder import Recorder
from mcpconn.wire.sse import http_sse
from mcpconn.wire.stderr import Stderr
from mcpconn.wire.stdio import stdio_transport
from mcpconn.wire.streamable import streamable_http
from mcpconn.wire.streams import watched
from mcpconn.wire.watch import Watch
from mcpconn.wire.watchdog import Watchdog

GOODBYE = 0.3
"""Seconds for telling a server over HTTP that a session ends, where closing has left no more for it."""


class DialFailed(Exception):
    """A session could not be opened; `evidence` says what was seen."""

    def __init__(self, evidence: Evidence) -> None:
        super().__init__(repr(evidence))
        self.evidence = evidence


class ClientLink:
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

    def new_attempt(self, phase: Phase) -> Attempt:
        """A new record for an attempt on this session."""
        return Attempt(phase, self.era, written=False if self._watch.passes else None)

    def evidence(self, error: BaseException, attempt: Attempt) -> Evidence:
        """The evidence for `error`, which an attempt recorded in `attempt` raised."""
        if attempt.phase == "probe" and self._watch.doubt is not None and isinstance(error, TimeoutError):
            error = self._watch.proof
        return evidence_of(error, attempt, self._watch)

    def restore_tools(self, tools: Sequence[Tool]) -> None:
        """Hand the tools of the last session on: which of their arguments are sent as headers, too."""
        sdk.restore_tools(self._session, tools)

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

    @property
    def doubt(self) -> Evidence | None:
        """Why nobody may be there any more, though the transport has not ended; None if nothing says so."""
        reason = self._watch.doubt
        return None if reason is None else Evidence(exception=reason, from_wire=False, phase="idle")

    def mark_lost(self) -> None:
        """The session is known to be gone: leave it without a word."""
        self._watch.lost = True
        if self._watch.doubt is not None:
            # The process has ended, and nobody answered. Calls in flight must not wait for their deadlines.
            self._watch.sever(self._watch.proof)

    @property
    def probes(self) -> tuple[str, ...]:
        """The methods that can be asked whether this session lives."""
        return probe_methods(self.era, self.capabilities)

    async def probe(self, method: str) -> None:
        """Ask the server on this session with one of `probes`.

        Raises:
            Exception: it was refused, or nobody can say.
        """
        await self._watch.probing(send_probe(self._session, method, self.version))


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
        eras: Eras | None = None,
        watchdog: Watchdog | None = None,
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
            eras: What a manager knows of its servers' eras.
            watchdog: Ends a manager's child processes if this process is killed.
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
        self._known = (eras or Eras()).of(config)
        self._watchdog = watchdog or Watchdog()
        self._joined = False
        self._starting: tuple[float, Watch] | None = None
        """Since when (`time.monotonic`) the child of the present opening is being started."""
        self._stderr = Stderr()

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
        words = self._redact(watch.stderr.last)
        return f"starting, {time.monotonic() - began:.0f} s{': ' if words else ''}{words}"

    @property
    def last_words(self) -> str:
        """The line on stderr that says why the last start failed, as far as one does."""
        return self._redact(self._stderr.reason)

    @property
    def stderr(self) -> tuple[str, ...]:
        """The last lines on stderr of the child that is being started, runs, or ended last."""
        kept = self._starting[1].stderr if self._starting is not None else self._stderr
        return tuple(map(self._redact, kept.lines))

    @asynccontextmanager
    async def open(self, idle_failure: Callable[[Evidence], None]) -> AsyncIterator[ClientLink]:
        """Open a session; leaving the block ends it.

        Args:
            idle_failure: Told what happens to the session while no call is there to fail.

        Raises:
            DialFailed: no session came of it.
        """
        if self.config.problem is not None:
            raise DialFailed(unusable(self.config))
        negotiation = Negotiation(self._known, self.config.mode, self.patience or self._policy.connect_timeout)
        link: ClientLink | None = None
        while link is None:
            watch = Watch(idle_failure, self._redact, self.config.name, self._chance, negotiation.discovery)
            try:
                async with self._opened(watch, negotiation) as link:
                    yield link
            except Exception as error:
                if link is not None:
                    raise
                evidence = self._dial_evidence(error, watch)
                if not negotiation.again(error, evidence):
                    raise DialFailed(negotiation.evidence(evidence)) from error
                ATTEMPT.set(Attempt("dial"))

    @asynccontextmanager
    async def _opened(self, watch: Watch, negotiation: Negotiation) -> AsyncIterator[ClientLink]:
        """One opening of a session."""
        began = time.monotonic()
        if self.config.kind == "stdio":
            self._starting = (began, watch)
        try:
            async with anyio.create_task_group() as group:
                if self.config.url is not None and (tend := getattr(self._http_transport(), "tend", None)) is not None:
                    # Closes idle sockets that the server has closed.
                    group.start_soon(tend)
                async with self._client(watch, negotiation.mode) as client:
                    link = ClientLink(client, watch, ending=ENDING if self.config.kind == "stdio" else GOODBYE)
                    self._starting = None
                    self._stderr = watch.stderr
                    watch.discovery.finish()
                    negotiation.opened(link.era)
                    yield link
                group.cancel_scope.cancel()
        finally:
            # A second opening for another era that wrote nothing does not hide why the first one failed.
            if watch.stderr.lines:
                self._stderr = watch.stderr
            if not watch.discovery.shaken.is_set():
                self._starting = None
                self._known.waited += time.monotonic() - began

    def _dial_evidence(self, error: BaseException, watch: Watch) -> Evidence:
        attempt = ATTEMPT.get() or Attempt("dial")
        cause = next((each for each in walk(error) if isinstance(each, MCPError)), error)
        return evidence_of(cause, attempt, watch)

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
            transport = sdk.in_process(config.server, raise_exceptions=options.get("raise_exceptions", False))
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
                env=config.environment(os.environ),
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
                server = watched(
                    http_sse(config.endpoint, self._evidence_client(), watch, self._limits), watch, final=False
                )
            else:
                silence = SILENCE if self._policy.keepalive is not None else None
                streams = streamable_http(config.endpoint, self._evidence_client(), watch, self._limits, silence)
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

    def _evidence_client(self) -> EvidenceClient:
        return EvidenceClient(
            redact=self._redact,
            sse=self.config.kind == "sse",
            transport=self._http_transport(),
            headers=self.config.request_headers,
            auth=self.auth,
            # Reading has no limit of its own: a call has its deadline, and an event stream may be silent
            # for hours. (With the SDK's 300 s it gives such a stream up after the second silence.)
            timeout=httpx2.Timeout(self._policy.connect_timeout, read=None),
        )
