"""From a configuration to an open `mcp.Client`, over stdio, Streamable HTTP, SSE, or in process."""

from __future__ import annotations

import os
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from typing import Any

import anyio
import anyio.lowlevel
import httpx2
from mcp import Client, MCPError

from mcpconn.checks import PREFER_LEGACY
from mcpconn.config import ServerConfig
from mcpconn.core.attempt import ATTEMPT, Attempt
from mcpconn.core.failures import Evidence
from mcpconn.core.seen import walk
from mcpconn.core.stream import SILENCE
from mcpconn.errors import ConfigError
from mcpconn.policy import Policy
from mcpconn.redact.redactor import Redactor
from mcpconn.sdk import client as sdk
from mcpconn.tls import OwnContext
from mcpconn.wire.era import Eras, Negotiation
from mcpconn.wire.evidence import evidence_of
from mcpconn.wire.evidence_client import EvidenceClient, Recorder
from mcpconn.wire.given import GivenTransport
from mcpconn.wire.link import GOODBYE, ClientLink
from mcpconn.wire.messages import Limits
from mcpconn.wire.misfits import unquoted
from mcpconn.wire.network import Network
from mcpconn.wire.responses import SESSION_HEADER
from mcpconn.wire.stderr import Stderr
from mcpconn.wire.streamable import VERSION_HEADER, streamable_http
from mcpconn.wire.streams import watched
from mcpconn.wire.watch import Watch
from mcpconn.wire.watchdog import Watchdog


class DialFailed(Exception):
    """A session could not be opened; `evidence` says what was observed."""

    def __init__(self, evidence: Evidence) -> None:
        super().__init__(repr(evidence))
        self.evidence = evidence


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
        wait_for_dials: Callable[[], Awaitable[None]] = anyio.lowlevel.checkpoint,
    ) -> None:
        """
        Args:
            config: The server.
            policy: Its timeouts and limits.
            network: What HTTP connections share; created by default.
            options: Arguments for `mcp.Client`: callbacks, client_info and so on.
            auth: Credentials for HTTP, the same for all sessions.
            redact: Replaces the server's secrets; derived from the configuration by default.
            eras: What a manager knows about its servers' eras.
            watchdog: Ends a manager's child processes if this process is killed.
            chance: A random number from 0 to 1, for jitter.
            wait_for_dials: Returns when no connection of the manager is dialling.
        """
        self._wait_for_dials = wait_for_dials
        self._chance = chance
        self.config = config
        self._policy = policy
        self._network = network or Network()
        self._options = dict(options or {})
        # The SDK has no mode that prefers the older era: `Negotiation` opens each session in one that it has.
        known_mode = "auto" if config.mode == PREFER_LEGACY else config.mode
        self.clients = sdk.Clients(self._options, url=config.url, mode=known_mode)
        """Creates the client of each session."""
        self._given = GivenTransport(config)
        self._limits = Limits(policy.max_message_size, policy.max_message_values)
        self.auth = auth
        """The credentials for future sessions."""
        self._redact = redact or config.redactor
        self._tls = OwnContext(config.tls) if config.tls is not None else None
        self._transport: httpx2.AsyncBaseTransport | None = config.http_transport
        self._known = (eras or Eras()).of(config)
        self._watchdog = watchdog or Watchdog()
        # Cleared first, so that a second `aclose` does not exit twice.
        self._joined = False
        self._starting: tuple[float, Watch] | None = None
        """When (`time.monotonic`) the start of the current opening's child began."""
        self._stderr = Stderr()

    @property
    def patience(self) -> float | None:
        """Seconds for the next dial, if they differ from the policy's `connect_timeout`.

        Until a command line has started successfully once, its starts share `start_timeout`, because npx, uvx and
        docker may download for minutes. Each has at least `connect_timeout`.
        """
        if self.config.kind != "stdio" or self._known.started:
            return None
        return max(self._policy.connect_timeout, self._policy.start_timeout - self._known.waited)

    @property
    def spent(self) -> bool:
        """No further session can be opened, because the given transport has been used."""
        return self._given.spent

    @property
    def progress(self) -> str | None:
        """The observed progress of a child that is being started; None if there is none."""
        if self._starting is None:
            return None
        began, watch = self._starting
        words = self._redact(watch.stderr.last)
        return f"starting, {time.monotonic() - began:.0f} s{': ' if words else ''}{words}"

    @property
    def last_words(self) -> str:
        """The line on stderr that gives the reason of the last failed start, if there is one."""
        return self._redact(self._stderr.reason)

    @property
    def stderr(self) -> tuple[str, ...]:
        """The last lines on stderr of the child that is being started, runs, or ended last."""
        kept = self._starting[1].stderr if self._starting is not None else self._stderr
        return tuple(map(self._redact, kept.lines))

    @asynccontextmanager
    async def open(self, idle_failure: Callable[[Evidence], None]) -> AsyncIterator[ClientLink]:
        """Open a session; exiting the block ends it.

        Args:
            idle_failure: Called with failures of the session that no call observes.

        Raises:
            DialFailed: no session was opened.
        """
        if self.config.problem is not None:
            raise DialFailed(unusable(self.config))
        # Both openings share one negotiation, so that the second knows why the first failed.
        negotiation = Negotiation(
            self._known,
            self.config.mode,
            self.patience or self._policy.connect_timeout,
            open_transport=self.config.url is not None and self.config.transport is None,
        )
        if self.config.url is not None:
            await negotiation.begin()
        link: ClientLink | None = None
        try:
            while link is None:
                # A new one for each opening, because reports of the last transport do not concern this one.
                watch = Watch(idle_failure, self._redact, self.config.name, self._chance, negotiation.discovery)
                try:
                    async with self._opened(watch, negotiation) as link:
                        yield link
                except Exception as error:
                    # The session was open, so this error is its end and not a failed dial.
                    if link is not None:
                        raise
                    evidence = self._dial_evidence(error, watch)
                    if self._given.spent or not negotiation.again(error, evidence):
                        raise DialFailed(negotiation.evidence(evidence)) from error
                    ATTEMPT.set(Attempt("dial"))
        finally:
            negotiation.end()

    @asynccontextmanager
    async def _opened(self, watch: Watch, negotiation: Negotiation) -> AsyncIterator[ClientLink]:
        """One opening of a session."""
        began, kind = time.monotonic(), self.config.kind
        if kind == "stdio":
            # From here on `progress` and `stderr` refer to this start.
            self._starting = (began, watch)
        try:
            async with self._tended(), self._client(watch, negotiation.mode, sse=negotiation.sse) as client:
                link = ClientLink(client, watch, ending=self._ending(), local=kind == "memory")
                self._starting = None
                self._stderr = watch.stderr
                watch.discovery.finish()
                negotiation.opened(link.era)
                yield link
        finally:
            # If the second opening, for another era, wrote nothing, the failure of the first one is reported.
            if watch.stderr.lines:
                self._stderr = watch.stderr
            if not watch.discovery.shaken.is_set():
                self._starting = None
                # The start failed: the next start of this command gets more time, up to its limit.
                self._known.waited += time.monotonic() - began

    def _ending(self) -> float:
        if self.config.kind != "stdio":
            return GOODBYE
        from mcpconn.wire.child import ENDING

        return ENDING

    def _tended(self) -> AbstractAsyncContextManager[None]:
        """Sweeps the idle sockets of the HTTP transport, which are kept for the next session of this connection."""
        tended = getattr(self._http_transport(), "tended", None) if self.config.url is not None else None
        return nullcontext() if tended is None else tended()

    def _dial_evidence(self, error: BaseException, watch: Watch) -> Evidence:
        attempt = ATTEMPT.get() or Attempt("dial")
        found = list(walk(error))
        cause = next((each for each in found if isinstance(each, MCPError)), error)
        if cause is error:
            # An answer of the wrong shape, possibly inside exception groups.
            cause = next((misfit for each in found if (misfit := unquoted(each)) is not each), error)
        return evidence_of(cause, attempt, watch)

    async def fetch(self, request: httpx2.Request) -> httpx2.Response:
        """Send a request that is not a message to the server, for example to its authorization server, and read the
        answer."""
        given = self.config.http_transport
        # The server's TLS settings apply only to the server, and to an authorization server at the same origin.
        own = _same_origin(str(request.url), self.config.endpoint)
        transport = self._transport_to(str(request.url), own=own) if given is None else Recorder(given)
        # A short timeout, because a call waits for this and token endpoints answer at once or not at all.
        timeout = self._policy.connect_timeout
        from mcpconn.auth.token_requests import send

        async with httpx2.AsyncClient(transport=transport, timeout=timeout) as client:
            return await send(client, request)

    async def end_session(self, session_id: str, version: str) -> bool:
        """End a session that another process opened with these credentials. Returns whether it has ended or is unknown.

        Args:
            session_id: Its id.
            version: Its protocol version.
        """
        if self.config.kind != "http":
            return False
        headers = {SESSION_HEADER: session_id, VERSION_HEADER: version}
        # A time limit is needed because the client has none for reading, and the server may hang.
        with anyio.move_on_after(self._policy.connect_timeout):
            async with self._evidence_client(sse=False) as http:
                evidence = await http.send_quietly(http.build_request("DELETE", self.config.endpoint, headers=headers))
            return evidence is None or evidence.http_status == 404
        return False

    async def aclose(self) -> None:
        """Close the sockets that sessions shared."""
        if self._joined:
            self._joined = False
            self._watchdog.leave()
        transport, self._transport = self._transport, self.config.http_transport
        if transport is not None:
            await transport.aclose()

    @asynccontextmanager
    async def _client(self, watch: Watch, mode: str, *, sse: bool = False) -> AsyncIterator[Client]:
        config, options = self.config, self._options
        server: Any
        if config.kind == "memory" and mode == "legacy":
            transport = sdk.in_process(config.server, raise_exceptions=options.get("raise_exceptions", False))
            server = watched(transport, watch, final=True, encoded=False)
        elif config.kind == "transport":
            # A message that the transport accepted may have been sent; only the transport's author could know.
            server = watched(self._given.take(), watch, final=True, encoded=False)
        elif config.kind == "memory":
            # There are no streams: the SDK calls the server's functions directly.
            server = config.server
        elif config.kind == "stdio":
            # Imported with the first child, as `sse` below with the first server that needs it.
            from mcpconn.wire.stdio import stdio_transport

            assert config.command is not None
            if not self._joined:
                self._joined = True
                # Started with the first child, because a connection without children needs no watchdog.
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
                encoding=config.encoding,
                errors=config.encoding_errors,
            )
            # Its write stream records what was written.
            server = watched(child, watch, final=False)
        else:
            http = self._evidence_client(sse=sse or config.kind == "sse")
            if sse or config.kind == "sse":
                from mcpconn.wire.sse import http_sse

                server = watched(http_sse(config.endpoint, http, watch, self._limits), watch, final=False)
            else:
                # Not set by default, because a server may be silent for hours.
                silence = SILENCE if self._policy.keepalive not in (None, "auto") else None
                streams = streamable_http(config.endpoint, http, watch, self._limits, silence, self._wait_for_dials)
                server = watched(streams, watch, final=False, shared=False)
        async with self.clients.open(server, mode) as client:
            yield client

    def _http_transport(self) -> httpx2.AsyncBaseTransport:
        """Sends the requests of all sessions."""
        assert self.config.url is not None
        if self._tls is not None:
            # Certificates that were replaced since the last session are reread.
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

    def _evidence_client(self, *, sse: bool) -> EvidenceClient:
        return EvidenceClient(
            redact=self._redact,
            sse=sse,
            transport=self._http_transport(),
            headers=self.config.request_headers,
            auth=self.auth,
            # Reading has no time limit: a call has its deadline, and an event stream may be silent for hours. (With the
            # SDK's 300 s the stream would be abandoned after the second silent period.)
            timeout=httpx2.Timeout(self._policy.connect_timeout, read=None),
        )
