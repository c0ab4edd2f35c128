"""One connection: `mcp.Client`'s methods on a session that is replaced whenever it has to be."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Iterable
from dataclasses import replace
from types import TracebackType
from typing import Any, TypeVar

import anyio
import mcp_types as types
from anyio.abc import TaskGroup
from mcp import Client
from mcp.client import ClientSession
from opentelemetry.trace import Span
from typing_extensions import Self, deprecated

from mcpconn.auth.request_auth import RequestAuth, renewable
from mcpconn.callbacks import bind
from mcpconn.catalog import Catalog
from mcpconn.config import ServerConfig
from mcpconn.core.classify import classify
from mcpconn.core.exchange import Exchange
from mcpconn.core.failures import Evidence, Failure
from mcpconn.core.rule import Rule
from mcpconn.core.states import State
from mcpconn.errors import NotRunning
from mcpconn.methods import DEFAULT, Methods
from mcpconn.observe import log, log_notice, prepare, silent
from mcpconn.policy import Policy
from mcpconn.runtime import Calls, Clock, Journal, Supervisor, refusals
from mcpconn.runtime.protocols import Link
from mcpconn.runtime.session import Session
from mcpconn.shared import Shared
from mcpconn.status import connection_status
from mcpconn.telemetry import Meter, start_span, unmeasured, within
from mcpconn.wire import Dialer

T = TypeVar("T")


class Connection(Methods):
    """A connection to one MCP server, for as long as it is needed.

        async with Connection("https://example.com/mcp") as connection:
            result = await connection.call_tool("add", {"a": 1, "b": 2})

    Entering waits until the connection is ready, and raises if it fails. Code written for `mcp.Client`
    works on it: the same methods, arguments and results (`Methods`), and three arguments more.
    """

    def __init__(
        self,
        config: Any,
        *,
        name: str = "",
        policy: Policy | None = None,
        rules: Iterable[Rule] = (),
        clock: Clock | None = None,
        shared: Shared | None = None,
        **client_options: Any,
    ) -> None:
        """
        Args:
            config: A `ServerConfig`, a mapping as in mcp.json, or what `mcp.Client` takes: a URL,
                `StdioServerParameters`, a server object.
            name: What logs and errors call it; made from the configuration where not given.
            policy: Timeouts and limits.
            rules: Rules of classification to be tried before the core's.
            clock: Time and randomness, for tests.
            shared: What a manager shares between its connections.
            client_options: Passed to every `mcp.Client`: `sampling_callback`, `client_info` and so on.

        Raises:
            ConfigError: the configuration cannot be used.
        """
        super().__init__()
        parsed = ServerConfig.parse(name, config)
        self.config = parsed if parsed.name else replace(parsed, name=parsed.label)
        self.name = self.config.name
        self._shared = shared or Shared(policy or Policy(), clock=clock, rules=rules)
        self.policy = self.config.policy(self._shared.policy)
        self._redact = self.config.redactor
        prepare()
        self.journal = Journal(self._contain)
        self.journal.subscribe(log_notice, bored=silent)
        self.catalog = Catalog(self, calm=self._shared.dials.calm, report=self._contain)
        self._client_options = bind(self, {**client_options, **(self.config.options or {})}, self.catalog.notice)
        self._dialer = Dialer(
            self.config,
            self.policy,
            network=self._shared.network,
            eras=self._shared.eras,
            watchdog=self._shared.watchdog,
            options=self._client_options,
            redact=self._redact,
        )
        self._request_auth = None if self.config.auth is None else self._authenticator(self.config.auth)
        self._dialer.auth = self._request_auth
        self._supervisor = Supervisor(
            self.name,
            self._dialer,
            self.policy,
            classify=self._classify,
            clock=self._shared.clock,
            journal=self.journal,
            dials=self._shared.dials,
            origin=self.config.origin,
            lazy=self.config.lazy,
            credentials=renewable(self._request_auth),
            tools=lambda: tuple(self.catalog.tools.values()),
            prepare=self._restore,
            established=self._attend,
        )
        self._calls = Calls(
            self._supervisor,
            self.policy,
            classify=self._classify,
            clock=self._shared.clock,
            journal=self.journal,
            budget=self._shared.budget,
            deadlines=self._shared.deadlines,
        )
        self.journal.subscribe(Meter(self._supervisor), bored=unmeasured)
        self._running = False
        self._group: TaskGroup | None = None

    # -- life

    async def run(self) -> None:
        """Own the connection until it is closed. A manager runs this in a task; `async with` does so, too."""
        try:
            await self._supervisor.run()
        except Exception as error:
            # A fault of ours. It must not take the manager's other connections along.
            log.exception("connection.crashed", connection=self.name, error=repr(error))
        finally:
            self._supervisor.close()

    def start(self, group: TaskGroup) -> None:
        """Begin to own the connection, in a task of `group`. For managers; `async with` does it otherwise."""
        self._running = True
        group.start_soon(self.run)

    async def settled(self) -> None:
        """Return when the connection is ready, failed or closed."""
        while self.state not in (State.READY, State.FAILED, State.CLOSED):
            await self._supervisor.changed()

    def close(self) -> None:
        """End the connection: calls that wait fail at once, those in flight get the drain timeout."""
        self._supervisor.close()

    async def __aenter__(self) -> Self:
        if self._running:
            raise NotRunning(f"{self.name}: the connection is running already; one Connection is entered once")
        self._group = anyio.create_task_group()
        await self._group.__aenter__()
        self.start(self._group)
        try:
            if not self.config.lazy:
                await self.wait_ready()
        except BaseException:
            await self._leave()
            raise
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        await self._leave()

    async def _leave(self) -> None:
        """Close, and wait for the end. The task group is told of no exception: it would wrap it in a group."""
        group, self._group = self._group, None
        if group is not None:
            self.close()
            await group.__aexit__(None, None, None)

    async def wait_ready(self, timeout: float | None = None) -> None:
        """Return when calls can be issued. A lazy connection is started by this.

        Args:
            timeout: Seconds to wait; None waits until the connection is ready or has failed.

        Raises:
            CallTimeout: it was not ready in time.
            ConnectionFailed: it is `failed`.
            ConnectionClosed: it is `closed`.
            NotRunning: it was never entered.
        """
        self._check_running()
        await self._calls.ready(timeout)

    async def reconnect(self, timeout: float | None = None) -> None:
        """Open a new session now, from any state but `closed`; calls in flight finish on the old one.

        Args:
            timeout: Seconds to wait for it.

        Raises:
            CallTimeout, ConnectionFailed, ConnectionClosed: as `wait_ready`.
        """
        self._check_running()
        if self.state is not State.CLOSED:
            self._supervisor.reconnect()
        await self.wait_ready(timeout)

    async def update_credentials(self, auth: Any = None, timeout: float | None = None) -> None:
        """Use other credentials, or read the present ones anew; reconnects a connection that failed for lack of them.

        Args:
            auth: Used from now on, as `ServerConfig.auth`. None: the present ones were renewed at their source,
                for example by a login in another process, and are read again.
            timeout: Seconds to wait until the connection is ready.

        Raises:
            ConfigError: `auth` cannot be used.
            CallTimeout, ConnectionFailed, ConnectionClosed: as `wait_ready`.
        """
        self._check_running()
        request_auth = self._request_auth
        if request_auth is not None:
            request_auth.update(None if auth is None else self._authenticator(auth).credentials)
        elif auth is not None:
            self._dialer.auth = request_auth = self._request_auth = self._authenticator(auth)
            # The present session was opened without credentials and would stay so: open another.
            self._supervisor.reconnect()
        self._supervisor.renewal.credentials = renewable(request_auth)
        self._supervisor.credentials_changed()
        await self.wait_ready(timeout)

    @deprecated("authenticated() is now called update_credentials()")
    async def authenticated(self, auth: Any = None, timeout: float | None = None) -> None:
        """The former name of `update_credentials`."""
        await self.update_credentials(auth, timeout)

    # -- what is known

    @property
    def state(self) -> State:
        """Where the connection is."""
        return self._supervisor.state

    @property
    def epoch(self) -> int:
        """Number of the current session; 0 before the first."""
        return self._supervisor.epoch

    @property
    def last_failure(self) -> Failure | None:
        """The last failure that had consequences for the connection."""
        return self._supervisor.last_failure

    @property
    def progress(self) -> str | None:
        """What a child that is being started is doing, for people: "starting, 12 s", with its last line on stderr."""
        return self._supervisor.progress

    def status(self) -> dict[str, Any]:
        """Everything an operator asks for, as plain data."""
        return connection_status(self._supervisor, self.journal, self.config, self._request_auth)

    @property
    def session(self) -> ClientSession:
        """The present session's `ClientSession`, for what has no method here. It is gone with its epoch.

        Raises:
            NotReady: there is none.
        """
        return self._client.session

    @property
    def protocol_version(self) -> str:
        """The protocol version of the present session."""
        return self._client.protocol_version

    @property
    def server_info(self) -> types.Implementation | None:
        """What the server calls itself."""
        return self._client.server_info

    @property
    def server_capabilities(self) -> types.ServerCapabilities:
        """What the server can do."""
        return self._client.server_capabilities

    @property
    def instructions(self) -> str | None:
        """How the server wants to be used."""
        return self._client.instructions

    @property
    def _client(self) -> Client:
        session = self._supervisor.session
        if session is None or session.link is None:
            raise refusals.not_ready(self._supervisor)
        client: Client = session.link.client
        return client

    def __repr__(self) -> str:
        gate = self._supervisor.gate
        return (
            f"<Connection {self.name!r} {self.state.value} epoch={self.epoch} "
            f"in_flight={gate.in_flight} waiting={gate.waiting}>"
        )

    def _call(
        self,
        method: str,
        issue: Callable[[Client, Exchange], Awaitable[T]],
        *,
        safe: Callable[[], Awaitable[bool]] | None = None,
        timeout: float | None = DEFAULT,
        idempotent: bool | None = None,
        wait: bool = True,
        target: str | None = None,
    ) -> Awaitable[T]:
        # Not a coroutine: each one on the way of a call costs it a microsecond or two.
        self._check_running()
        if safe is None:
            safe = _harmful if idempotent is False else _harmless
        seconds = self.policy.call_timeout if timeout is DEFAULT else timeout
        span = start_span(self.name, method, target)
        call = self._calls.run(method, issue, safe=safe, timeout=seconds, wait=wait)
        return call if span is None else _recorded(call, span)

    def _check_running(self) -> None:
        if not self._running:
            raise NotRunning(f"{self.name}: enter the connection first: async with Connection(...) as connection")

    def _authenticator(self, auth: Any) -> RequestAuth:
        if self.config.url is None:
            raise self.config.error("auth is for servers with a url; give others their secrets in env", "auth")
        try:
            return RequestAuth(auth, redact=self._redact, fetch=self._dialer.fetch)
        except TypeError as error:
            raise self.config.error(str(error), "auth") from None

    # -- for the supervisor

    def _classify(self, evidence: Evidence) -> Failure:
        failure = classify(evidence, self._shared.rules)
        return replace(failure, summary=self._redact(failure.summary))

    def _contain(self, what: str, error: Exception) -> None:
        """Log what went wrong beside the connection, and is not its fault or must not be its end."""
        log.error(f"{what}.raised", connection=self.name, error=self._redact(repr(error)))

    async def _restore(self, link: Link) -> None:
        """Bring a new session into the state of the last one, before calls are let through."""
        client: Client = link.client
        if link.era != "legacy":
            return
        if self._log_level is not None:
            level = types.SetLevelRequest(params=types.SetLevelRequestParams(level=self._log_level))
            await client.session.send_request(level, types.EmptyResult)
        for uri in sorted(self._subscriptions):
            subscribe = types.SubscribeRequest(params=types.SubscribeRequestParams(uri=uri))
            await client.session.send_request(subscribe, types.EmptyResult)

    async def _attend(self, session: Session) -> None:
        """Beside the first calls of a session: tell those who watch resources to read again, list what there is."""
        if session.epoch > 1:
            handler = self._client_options["message_handler"]
            for uri in sorted(self._subscriptions):
                params = types.ResourceUpdatedNotificationParams(uri=uri)
                try:
                    await handler(types.ResourceUpdatedNotification(params=params))
                except Exception as error:  # a handler is host code
                    self._contain("handler", error)
        await self.catalog.attend(session, busy=self._supervisor.gate.in_flight > 0)

    def present(self) -> Session | None:
        """The session that calls are issued on now."""
        return self._supervisor.session

    def spawn(self, task: Callable[[], Coroutine[Any, Any, None]]) -> bool:
        """Run `task` beside the connection, for no longer than it lives. False where it does not live."""
        return self._supervisor.spawn(task)


async def _harmless() -> bool:
    return True


async def _harmful() -> bool:
    return False


async def _recorded(call: Awaitable[T], span: Span) -> T:
    with within(span):
        return await call
