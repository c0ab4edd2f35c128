"""One connection: the methods of `mcp.Client` on a session that is replaced when it is lost."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

import mcp_types as types
from typing_extensions import Unpack, deprecated

from mcpconn.any_request import AnyRequest
from mcpconn.arguments import Arguments, argument_errors
from mcpconn.callbacks import Notifications, bind
from mcpconn.catalog.catalog import Catalog
from mcpconn.config import ServerConfig
from mcpconn.core.rule import Rule
from mcpconn.core.states import State
from mcpconn.diagnosis import Diagnosis
from mcpconn.errors import CallFailed, NotRunning
from mcpconn.flag import Flag
from mcpconn.known import Known
from mcpconn.legacy import Legacy
from mcpconn.methods import Methods
from mcpconn.observe import log_notice, logs_answers, prepare
from mcpconn.options import ClientOptions
from mcpconn.policy import Policy
from mcpconn.restore import Restore
from mcpconn.runtime.calls import Calls
from mcpconn.runtime.clock import Clock
from mcpconn.runtime.common import Common
from mcpconn.runtime.journal import Journal
from mcpconn.runtime.native import Home
from mcpconn.runtime.owner import Nursery, Owned, Owner
from mcpconn.runtime.protocols import Renewable
from mcpconn.runtime.supervisor import Supervisor
from mcpconn.shared import Shared
from mcpconn.tasks import Tasks
from mcpconn.telemetry import Meter, measuring
from mcpconn.validate import check_timeout
from mcpconn.wire.dial import Dialer, unusable

if TYPE_CHECKING:
    from mcpconn.auth.request_auth import RequestAuth

T = TypeVar("T")


class Connection(Owned, Known, Methods, Legacy, AnyRequest, Arguments):
    """A long-lived connection to one MCP server.

        async with Connection("https://example.com/mcp") as connection:
            result = await connection.call_tool("add", {"a": 1, "b": 2})

    Entering waits until the connection is ready, and raises if it fails. Code written for `mcp.Client` works with it:
    it has the same methods, arguments and results (`Methods`), and three additional arguments.
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
        **client_options: Unpack[ClientOptions],
    ) -> None:
        """
        Args:
            config: A `ServerConfig`, a mapping as in mcp.json, or what `mcp.Client` takes: a URL,
                `StdioServerParameters`, a server object, a `Transport`. A transport object is opened once, so it serves
                one session; a function that returns a transport is called for each session.
            name: The name in logs and errors; derived from the configuration by default.
            policy: Timeouts and limits.
            rules: Classification rules that are tried before the core's.
            clock: Time and randomness, for tests.
            shared: State that a manager shares between its connections.
            client_options: Passed to every `mcp.Client`: `sampling_callback`, `client_info` and so on. A `mode` other
                than `auto` in the configuration overrides this `mode`.

        Raises:
            ConfigError: the configuration, or an argument of `mcp.Client`, is invalid.
            ArgumentError: an argument is unknown or has the wrong type. It is a ConfigError and a TypeError.
        """
        super().__init__()
        parsed = ServerConfig.parse(name, config)
        given = {**client_options, **(parsed.options or {})}
        mode = given.pop("mode", "auto")
        if parsed.mode == "auto" and mode != "auto":
            parsed = replace(parsed, mode=mode)
        self.config = parsed if parsed.name else replace(parsed, name=parsed.label)
        self.name = self.config.name
        self._shared = shared or Shared(policy or Policy(), clock=clock, rules=rules)
        self.policy = self.config.policy(self._shared.policy)
        self._redact = self.config.redactor
        self._diagnosis = Diagnosis(self.name, rules=self._shared.rules, redact=self._redact)
        prepare()
        self.journal = Journal(self._diagnosis.contain)
        self.journal.subscribe(log_notice, wants_answered=logs_answers)
        self.catalog = Catalog(
            self,
            wait_for_dials=self._shared.dials.wait_until_idle,
            report=self._diagnosis.contain,
            mode=self.config.catalog,
        )
        self._notifications = Notifications(self, self._diagnosis.contain)
        self._client_options = bind(self, given, self.catalog.notice, self._notifications)
        with argument_errors(self.config):
            self._dialer = Dialer(
                self.config,
                self.policy,
                network=self._shared.network,
                options=self._client_options,
                redact=self._redact,
                eras=self._shared.eras,
                watchdog=self._shared.watchdog,
                wait_for_dials=self._shared.dials.wait_until_idle,
            )
        shown = {"message_handler": None, **given, "server": config, "mode": self.config.mode}
        self._arguments = shown, self._dialer.clients.defaults
        self._request_auth = None if self.config.auth is None else self._authenticator(self.config.auth)
        self._dialer.auth = self._request_auth
        common = Common(self.name, self.policy, self._diagnosis.classify, self._shared.clock, self.journal)
        self._restore = Restore(
            common,
            self.catalog,
            handler=self._client_options["message_handler"],
            send=self._send,
            busy=lambda: self._lifecycle.gate.in_flight > 0,
        )
        self._supervisor = Supervisor(
            common,
            self._dialer,
            self._shared.dials,
            self._restore,
            origin=self.config.origin,
            route=self.config.route,
            lazy=self.config.lazy,
            credentials=self._renewable(),
        )
        self._lifecycle = self._supervisor.lifecycle
        self._calls = Calls(common, self._lifecycle, budget=self._shared.budget, progress=lambda: self._dialer.progress)
        self._tasks = Tasks(self)
        self.journal.subscribe(Meter(self._lifecycle), wants_answered=measuring)
        self._owner = Owner(f"connection {self.name!r}", begin=lambda: self.run_in(self._owner), finish=self.close)
        self._home = None
        self._ended = Flag()
        self._calls_made = 0

    # -- life

    async def _opened(self) -> None:
        if not self.config.lazy:
            await self.wait_ready()

    def run_in(self, group: Nursery) -> None:
        """Start the connection's supervisor as a task of `group`. For managers; otherwise use `async with` or `start`.

        Raises:
            NotRunning: the connection was started before.
        """
        if self._home is not None:
            raise NotRunning(f"{self.name}: the connection was started before; it is started once")
        self._home = Home()
        if self.config.problem is not None:
            self._lifecycle.refuse(self._diagnosis.classify(unusable(self.config)))
        group.start_soon(self._run)

    async def _run(self) -> None:
        try:
            await self._supervisor.run()
        except Exception as error:
            # An error in mcpconn itself. It must not affect the manager's other connections.
            self._diagnosis.crashed(error)
        finally:
            self._lifecycle.close()
            self._ended.set()

    def close(self, *, drain: bool = True) -> None:
        """Start to close the connection without waiting: waiting calls fail at once, and calls in flight get the drain
        timeout. `aclose` and the end of `async with` wait.

        Args:
            drain: False: calls in flight are cancelled at once, and a child is ended.

        Raises:
            NotRunning: called from a thread other than the event loop's.
        """
        if self._home is not None and self._home.other_thread():
            raise NotRunning(f"{self.name}: {self._home.wrong_loop()}")
        self._lifecycle.close(drain=drain)

    async def ended(self) -> None:
        """Return when a closed connection has ended: its calls are over, and its sockets and child are closed."""
        if self._home is not None:
            self._check_here()
            await self._ended.wait()

    async def settled(self) -> None:
        """Return when the connection is ready, failed or closed."""
        self._check_here()
        while self.state not in (State.READY, State.FAILED, State.CLOSED):
            await self._lifecycle.changed()

    async def wait_ready(self, timeout: float | None = None) -> None:
        """Return when calls can be issued. This starts a lazy connection.

        Args:
            timeout: Seconds to wait; None waits until the connection is ready or has failed.

        Raises:
            CallTimeout: the connection was not ready in time.
            ConnectionFailed: it is `failed`.
            ConnectionClosed: it is `closed`.
            ConfigError: `timeout` is not a valid number of seconds.
            NotRunning: the connection was never entered, or runs in a different event loop.
        """
        self._check_here()
        check_timeout(timeout)
        await self._calls.ready(timeout)

    async def reconnect(self, timeout: float | None = None) -> None:
        """Open a new session now, from any state but `closed`; calls in flight finish on the old one.

        Args:
            timeout: Seconds to wait for it.

        Raises:
            CallTimeout, ConnectionFailed, ConnectionClosed: as `wait_ready`.
        """
        self._check_here()
        check_timeout(timeout)
        if self.state is not State.CLOSED:
            self._lifecycle.reconnect()
        await self.wait_ready(timeout)

    async def update_credentials(self, auth: Any = None, timeout: float | None = None) -> None:
        """Use new credentials, or reread the current ones. This reconnects a connection that failed for lack of them.

        Args:
            auth: The new credentials, as `ServerConfig.auth`. None: the current ones were renewed at their source, for
                example by a login in another process, and are reread.
            timeout: Seconds to wait until the connection is ready.

        Raises:
            ConfigError: `auth` is invalid.
            CallTimeout, ConnectionFailed, ConnectionClosed: as `wait_ready`.
        """
        self._check_here()
        check_timeout(timeout)
        request_auth = self._request_auth
        if request_auth is not None:
            request_auth.update(None if auth is None else self._authenticator(auth).credentials)
        elif auth is not None:
            self._dialer.auth = request_auth = self._request_auth = self._authenticator(auth)
            # The current session was opened without credentials and would never use them: open another.
            self._lifecycle.reconnect()
        self._lifecycle.renewal.credentials = self._renewable()
        self._lifecycle.credentials_changed()
        await self.wait_ready(timeout)

    @deprecated("authenticated() is now called update_credentials()")
    async def authenticated(self, auth: Any = None, timeout: float | None = None) -> None:
        """The former name of `update_credentials`."""
        await self.update_credentials(auth, timeout)

    def on_notification(self, listener: Callable[[types.ServerNotification], Any]) -> Callable[[], None]:
        """Call `listener` with every notification of the server, on this session and the ones that follow it.

            def changed(notification: types.ServerNotification) -> None:
                if isinstance(notification, types.ResourceUpdatedNotification):
                    print(notification.params.uri)

            stop = connection.on_notification(changed)
            await connection.watch_resource("note://one")

        Unlike `message_handler`, it can be given at any time and by several parts of a program, and a connection that
        a manager made has it, too. After a gap in which updates may have been missed, each watched resource (legacy
        era) is reported as updated.

        Args:
            listener: A function or an async function. `current_connection()` is known in it. The session's next
                notifications do not wait for it. What it raises is logged, and changes nothing.

        Returns:
            An unsubscribe function. It can be called more than once, and from within a listener.
        """
        return self._notifications.subscribe(listener)

    @property
    def session_id(self) -> str | None:
        """The id that the server assigned to the current session over HTTP; None if there is no id or no session."""
        session = self._lifecycle.session
        return None if session is None or session.link is None else session.link.session_id

    async def end_session(self, session_id: str, version: str) -> bool:
        """End a session that another process opened to the same server, with this connection's credentials.

        Args:
            session_id: The `session_id` of the other connection.
            version: The `protocol_version` of the other connection.

        Returns:
            Whether the server confirms that the session has ended, or does not know it. False if the server has not
            answered within the policy's `connect_timeout`.
        """
        self._check_here()
        return await self._dialer.end_session(session_id, version)

    def _renewable(self) -> Renewable | None:
        if self._request_auth is None:
            return None
        from mcpconn.auth.request_auth import renewable

        return renewable(self._request_auth)

    def _authenticator(self, auth: Any) -> RequestAuth:
        if self.config.url is None:
            raise self.config.error("auth is for servers with a url; give others their secrets in env", "auth")
        # Imported with the first server that has credentials.
        from mcpconn.auth.request_auth import RequestAuth

        try:
            return RequestAuth(auth, url=self.config.endpoint, redact=self._redact, fetch=self._dialer.fetch)
        except TypeError as error:
            raise self.config.error(str(error), "auth") from None

    async def _send(self, request: Any) -> types.EmptyResult:
        return await self._call(
            request.method, lambda client, _: client.session.send_request(request, types.EmptyResult), background=True
        )

    # -- for the catalogue

    async def tell_watchers(self) -> None:
        """Tell subscribers of resources to read them again, because updates may have been missed."""
        await self._restore.tell_watchers()

    async def usable(self) -> bool:
        """Wait until calls can be issued, for at most as long as a call would; False if they cannot be issued.

        A suspected session receives no other requests until its probe has decided.
        """
        while True:
            try:
                await self.wait_ready(self.policy.call_timeout)
            except CallFailed:
                return False
            session = self._lifecycle.session
            if session is None or self._lifecycle.probe.pending() is None:
                return True
            await self._lifecycle.wait_for_probe(session)
