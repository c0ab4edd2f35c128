"""A manager, its scripted servers and its callers in virtual time, moved one action at a time.

The state machine of `mcpconn.testing.machine` drives a `Sandbox`, and strategies generate actions for one. After every
action it checks the promises of a connection (`Sandbox.check`), and at the end the outcomes that callers were told
(`mcpconn.testing.history`).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

import anyio
from anyio.abc import TaskGroup
from mcp import MCPError

from mcpconn.core.states import TRANSITIONS, Event, State
from mcpconn.errors import CallTimeout, Overloaded
from mcpconn.options import ToolOptions
from mcpconn.policy import Policy
from mcpconn.testing.clock import settle, virtual_clock
from mcpconn.testing.convergence import FAILING_LIMIT, Convergence, Standing
from mcpconn.testing.history import Call, History, Said
from mcpconn.testing.memory import MemoryTransport
from mcpconn.testing.named_faults import FAULTS, SOCKET_FAULTS
from mcpconn.testing.scripted.inproc import ScriptTransport
from mcpconn.testing.scripted.script import Script

Handler = Callable[[Any, str, str, dict[str, Any]], Awaitable[Any]]
"""Makes one call: manager, name of the server, name of the tool, arguments. Raises what its caller should see."""

OVERTIME = 0.5
"""Seconds by which a call may end after its deadline."""


class Broken(AssertionError):
    """A connection broke a promise."""


@dataclass
class Caller:
    """A call in progress."""

    call: Call
    server: str
    due: float | None
    """Its deadline, by the clock of the loop."""
    scope: anyio.CancelScope = field(default_factory=anyio.CancelScope)


class Sandbox:
    """Servers, a manager and callers. It must be entered in virtual time (`mcpconn.testing.clock`)."""

    def __init__(
        self,
        scripts: Mapping[str, Script],
        *,
        handler: Handler | None = None,
        config: Mapping[str, Any] | None = None,
        sockets: Collection[str] = (),
        seed: int = 0,
        policy: Policy | None = None,
    ) -> None:
        """
        Args:
            scripts: The servers, by name.
            handler: Makes the calls; `manager.call_tool` by default.
            config: More entries for the configuration of every server.
            sockets: Servers behind connections that several requests use in turn.
            seed: Seed of the manager's jitter.
            policy: The manager's; its default if None.
        """
        # Imported late, because the package imports its test tools before its manager.
        from mcpconn.manager import Manager

        self.scripts = dict(scripts)
        self.transports: dict[str, ScriptTransport | MemoryTransport] = {
            name: MemoryTransport(script) if name in sockets else ScriptTransport(script)
            for name, script in self.scripts.items()
        }
        self._config = dict(config or {})
        self.manager = Manager(
            {name: self._entry(name) for name in self.scripts}, clock=virtual_clock(seed), policy=policy
        )
        self.history = History()
        self.callers: list[Caller] = []
        self._handler = handler
        self._epochs = dict.fromkeys(self.scripts, 0)
        self._states = dict.fromkeys(self.scripts, State.IDLE)
        self._losses: dict[tuple[str, int], int] = {}
        self._convergence = {name: Convergence() for name in self.scripts}
        self._complaints: list[str] = []
        self._stack = AsyncExitStack()
        self._group: TaskGroup | None = None
        self._tasks = 0

    def _entry(self, name: str) -> dict[str, Any]:
        return {"url": f"http://{name}.test/mcp", "http_transport": self.transports[name], **self._config}

    async def __aenter__(self) -> Sandbox:
        self._tasks = len(anyio.get_running_tasks())
        self.manager.subscribe(self._watch)
        for transport in self.transports.values():
            if isinstance(transport, MemoryTransport):
                await self._stack.enter_async_context(transport.serving())
        await self._stack.enter_async_context(self.manager)
        self._group = await self._stack.enter_async_context(anyio.create_task_group())
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        """Close the manager. Unless something was wrong before, check that no task is left and that callers were told
        the truth."""
        assert self._group is not None
        self._group.cancel_scope.cancel()
        await self._stack.aclose()
        if exc is None:
            await settle()
            if len(left := anyio.get_running_tasks()) > self._tasks:
                raise Broken(f"tasks left behind, among them: {left}")
            self.history.check(*self.scripts.values())

    # -- callers

    def call(
        self,
        server: str,
        tool: str,
        arguments: Mapping[str, Any] | None = None,
        *,
        timeout: float | None = None,
        idempotent: bool | None = None,
    ) -> Call:
        """Begin a call. It continues while other actions are taken.

        Args:
            server: Name of the server.
            tool: Name of the tool.
            arguments: Its arguments.
            timeout: Its deadline in seconds; the policy's by default. Not for a handler.
            idempotent: Whether running it twice is harmless; None: by the tool's annotations. Not for a handler.
        """
        assert self._group is not None
        annotations = self.scripts[server].tools[tool].annotations
        hinted = bool(annotations.get("readOnlyHint") or annotations.get("idempotentHint"))
        safe = hinted if idempotent is None else idempotent
        due, options = None, ToolOptions()
        if self._handler is None:
            seconds = timeout if timeout is not None else self.manager[server].policy.call_timeout
            due = anyio.current_time() + seconds if seconds is not None else None
            options = ToolOptions(timeout=seconds, idempotent=idempotent)
        begun = self.history.call(tool, arguments, safe=safe)
        caller = Caller(begun, server, due)
        self.callers.append(caller)
        self._group.start_soon(self._make, caller, options)
        return begun

    async def _make(self, caller: Caller, options: ToolOptions) -> None:
        call, server = caller.call, caller.server
        before, began = self._standing(server), anyio.current_time()
        with caller.scope:
            try:
                with call:
                    if self._handler is not None:
                        call.answer = await self._handler(self.manager, caller.server, call.tool, call.arguments)
                    else:
                        call.answer = await self.manager.call_tool(caller.server, call.tool, call.arguments, **options)
            except AssertionError:
                raise
            except Exception as error:  # recorded; `check` decides whose fault it is
                call.bug = self._handler is not None and not isinstance(error, (MCPError, Said))
                # A passed deadline proves nothing, because the tool may be slow.
                if isinstance(error, MCPError) and not isinstance(error, (CallTimeout, Overloaded)):
                    after, now = self._standing(server), anyio.current_time()
                    if late := self._convergence[server].ended(before, after, began=began, now=now):
                        self._complaints.append(f"{server}: {late}")

    def _standing(self, server: str) -> Standing | None:
        """The standing of a connection that is ready and has no fault, except that its session may be forgotten."""
        transport = self.transports[server]
        connection = self.manager.get(server)
        if connection is None or connection.state is not State.READY:
            return None
        if transport.down or transport.refusing or self.scripts[server].troubled:
            return None
        return Standing(connection.epoch, self._convergence[server].troubles)

    def cancel(self, index: int) -> None:
        """Cancel one of the calls in progress: the one with this number, modulo their count."""
        pending = self.pending
        if pending:
            pending[index % len(pending)].scope.cancel()

    @property
    def pending(self) -> list[Caller]:
        """The calls in progress, in the order in which they were begun."""
        return [caller for caller in self.callers if not caller.call.ended]

    # -- servers

    def inject(
        self,
        server: str,
        fault: str,
        *,
        times: int | None = 1,
        method: str | None = "tools/call",
        tool: str | None = None,
    ) -> None:
        """Arm a fault of `FAULTS` or `SOCKET_FAULTS` by its name; the other arguments are those of `Script.inject`."""
        self._convergence[server].troubles += 1
        make = FAULTS.get(fault) or SOCKET_FAULTS[fault]
        self.scripts[server].inject(make(), times=times, method=method, tool=tool)

    def forget(self, server: str) -> None:
        """The server forgets its sessions."""
        if self.scripts[server].has_sessions:
            self._convergence[server].forget(self._epochs[server])
        self.scripts[server].forget_sessions()

    def restart(self, server: str) -> None:
        """The server drops all requests in progress, and forgets its sessions."""
        self._convergence[server].troubles += 1
        self.scripts[server].streams.close()
        self.transports[server].drop()
        self.forget(server)

    def take_down(self, server: str) -> None:
        """The server ends; its port refuses."""
        self.transports[server].down = True
        self.restart(server)

    def bring_up(self, server: str) -> None:
        """The server is back."""
        self.transports[server].down = False

    def refuse(self, server: str, times: int = 1) -> None:
        """The next requests find no connection: they are dropped before they are written."""
        self._convergence[server].troubles += 1
        self.transports[server].refusing += times

    def heal(self) -> None:
        """End all faults."""
        for name, script in self.scripts.items():
            script.clear()
            self.transports[name].refusing = 0
            self.bring_up(name)

    # -- the manager

    def reconnect(self, server: str) -> None:
        """Request a new session."""
        assert self._group is not None
        self._group.start_soon(self._reconnect, server)

    async def _reconnect(self, server: str) -> None:
        try:
            await self.manager[server].reconnect(60)
        except MCPError:
            return

    def replace(self, server: str) -> None:
        """Take the server out of the manager, and add it again."""
        self.manager.remove(server)
        self._convergence[server] = Convergence()
        self._epochs[server] = 0
        self._states[server] = State.IDLE
        self._losses = {key: count for key, count in self._losses.items() if key[0] != server}
        self.manager.add(server, self._entry(server))

    # -- one after another

    async def perform(self, verb: str, *args: Any, **options: Any) -> None:
        """Do one of the above by its name, run all tasks until they wait for time to pass, and check."""
        done = getattr(self, verb)(*args, **options)
        if done is not None and hasattr(done, "__await__"):
            await done
        await self.settle()

    async def settle(self) -> None:
        """Run all tasks until they wait for time to pass, and check."""
        await settle()
        self.check()

    async def advance(self, seconds: float) -> None:
        """Let virtual time pass, and check."""
        await anyio.sleep(seconds)
        await self.settle()

    # -- promises

    def _watch(self, change: Any) -> None:
        """Check a transition against the table, the previous transition, and its epoch."""
        name = change.server
        if (change.source, change.event, change.target) not in _ROWS:
            self._complaints.append(f"{change}: not in the table")
        if change.source is not self._states[name]:
            self._complaints.append(f"{change}: but it was {self._states[name]}")
        grown = change.epoch - self._epochs[name]
        if grown != (change.event is Event.ESTABLISHED):
            self._complaints.append(f"{change}: the epoch grew by {grown}")
        self._states[name], self._epochs[name] = change.target, change.epoch
        if change.source is State.READY and change.target is not State.READY:
            key = (name, change.epoch)
            self._losses[key] = self._losses.get(key, 0) + 1
            if self._losses[key] > 1:
                self._complaints.append(f"{change}: epoch {change.epoch} ended twice")

    def check(self) -> None:
        """Check all promises.

        Raises:
            Broken: a connection has broken one.
            HistoryError: a caller was not told the truth.
        """
        complaints, now = self._complaints, anyio.current_time()
        for name, connection in self.manager.items():
            status = connection.status()
            state = connection.state
            if status["waiting"] and state in (State.FAILED, State.CLOSED):
                complaints.append(f"{name}: {status['waiting']} calls wait for a {state} connection")
            if status["waiting"] and state is State.READY and status["in_flight"] < connection.policy.max_in_flight:
                complaints.append(f"{name}: {status['waiting']} calls wait for a connection that is ready")
            if status["in_flight"] < 0 or status["in_flight"] > connection.policy.max_in_flight:
                complaints.append(f"{name}: {status['in_flight']} calls in flight")
        for caller in self.pending:
            if caller.due is not None and now > caller.due + OVERTIME:
                complaints.append(f"{caller.server}: {caller.call.id} should have ended {now - caller.due:g} s ago")
        if complaints:
            raise Broken("\n".join(complaints))
        self.history.check(*self.scripts.values(), pending=True)

    async def recover(self) -> None:
        """End all faults: every connection that is not closed must answer again, or report that it needs a person."""
        self.heal()
        # Longer than any deadline, probe, and cool-down.
        await self.advance(400)
        for connection in tuple(self.manager.values()):
            if connection.state is State.FAILED and connection.status()["retry_in"] is None:
                await connection.reconnect(60)
            if connection.state is not State.CLOSED:
                await self._answered(connection)
            if len(connection._supervisor.dialling.sessions) > 1:
                self._complaints.append(f"{connection.name}: an old session has not ended")
        self.check()
        if self.pending and self._handler is not None:
            # A handler may try several times, each until a deadline. A handler that never answers is found here.
            await self.advance(HANDLER_PATIENCE)
            self.history.check(*self.scripts.values())

    async def _answered(self, connection: Any) -> None:
        """List the tools until that succeeds, because the server may have forgotten the session."""
        until = anyio.current_time() + FAILING_LIMIT
        while True:
            try:
                await connection.list_tools(cache_mode="refresh", timeout=60)
            except MCPError as error:
                if anyio.current_time() >= until:
                    raise Broken(f"{connection.name}: calls still fail after {FAILING_LIMIT:g} s: {error}") from error
                await anyio.sleep(1)
            else:
                return


HANDLER_PATIENCE = 3600.0
"""Virtual seconds, with all servers healthy, within which a handler must have answered: sixty times a call's
deadline."""
_ROWS = frozenset((row.source, row.event, row.target) for row in TRANSITIONS)
