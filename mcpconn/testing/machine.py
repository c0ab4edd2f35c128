"""A hypothesis state machine that searches for a sequence of faults that your handler does not survive.

    class MyHandler(HandlerMachine):
        async def handle(self, manager, server, tool, arguments):
            return await my_handler(manager, server, tool, arguments)

    TestMyHandler = MyHandler.TestCase

It runs a real `Manager` with your handler on scripted servers in virtual time, causes every fault in `FAULTS`, and
compares what the handler reported for each call with how often the server ran it. A violation is shrunk to the shortest
sequence that shows it. Docs: "Test your handlers".
"""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Callable, Coroutine, Mapping
from functools import wraps
from typing import Any, ClassVar, TypeVar

from mcpconn.policy import Policy
from mcpconn.testing.clock import Spinning, VirtualLoop
from mcpconn.testing.history import HistoryError
from mcpconn.testing.history import Said as Said
from mcpconn.testing.named_faults import FAULTS
from mcpconn.testing.sandbox import Handler, Sandbox
from mcpconn.testing.scripted.script import Script

try:
    from hypothesis import Phase, settings
    from hypothesis import strategies as st
    from hypothesis.stateful import RuleBasedStateMachine, rule
except ImportError as error:  # pragma: no cover - seen in a process without it: tests/testing/test_fixtures.py
    raise ImportError("mcpconn.testing.machine needs hypothesis: pip install hypothesis") from error


T = TypeVar("T")

SETTINGS = settings(
    max_examples=50,
    stateful_step_count=20,
    deadline=None,
    report_multiple_bugs=False,
    # Without hypothesis' explain phase, which traces every line; these examples run many.
    phases=(Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink),
)
"""Settings of such a machine's `TestCase`: five to ten seconds if nothing is found, a minute if something is."""

SERVERS = st.integers(0, 7)
"""A server, by a number that is taken modulo the number of servers."""
TIMES = st.sampled_from([1, 2, 5])


ROUNDS = 1000
"""Rounds of the event loop without passing time after which a handler is reported as spinning. Between two actions a
correct handler takes at most 51 (60 examples of 30 steps)."""
ROUNDS_AGAIN = 200
"""The same after a handler was found spinning. hypothesis repeats a failure about a hundred times to shrink it, and the
loop runs this many rounds each time: with 10,000, shrinking took minutes."""


def told_alone(run: Callable[[Any], None]) -> Callable[[Any], None]:
    """A test whose failure is described in a few lines: what was broken, and the shortest sequence that shows it.

    Under pytest the traceback and the log are left out, because the frames belong to hypothesis and the sandbox, and
    the log has a line for every injected fault. `--full-trace` shows them.
    """

    @wraps(run)
    def run_test(self: Any) -> None:
        pytest = sys.modules.get("pytest")
        log = logging.getLogger("mcpconn")
        quiet, log.disabled = log.disabled, True
        try:
            run(self)
            return
        except (HistoryError, Spinning) as error:
            if pytest is None or "--full-trace" in sys.argv:
                raise
            found = [str(error), *getattr(error, "__notes__", ())]
        finally:
            log.disabled = quiet
        # Raised outside the `except` block, because the first exception would be shown as its context.
        pytest.fail("\n".join(found), pytrace=False)

    return run_test


class SandboxMachine(RuleBasedStateMachine):
    """A state machine around a `Sandbox`, without any rules yet.

    An asyncio event loop with virtual time runs from one rule to the next: calls stay in progress while other things
    happen. `act` has the sandbox do something, and `wait` runs a coroutine to completion.
    """

    servers: ClassVar[tuple[str, ...]] = ("server",)
    """Names of the servers."""
    policy: ClassVar[Policy] = Policy(max_message_size=65536)
    """The manager's."""
    config: ClassVar[Mapping[str, Any]] = {}
    """More entries for the servers' configurations: `keepalive`, `lazy` and so on."""
    _rounds: ClassVar[int] = ROUNDS

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        cls.TestCase.settings = SETTINGS
        case: Any = cls.TestCase
        case.runTest = told_alone(case.runTest)

    def __init__(self) -> None:
        super().__init__()
        self._loop = VirtualLoop(self._rounds)
        self.sandbox = Sandbox(
            {name: self.script(name) for name in self.servers},
            handler=self.handler(),
            policy=self.policy,
            config=self.config,
        )
        self._begun = asyncio.Event()
        self._over = asyncio.Event()
        # The manager's task group belongs to the task that enters it, so one task holds it open.
        self._home = self._loop.create_task(self._live())
        self.wait(self._begun.wait())
        self.wait(self.sandbox.settle())

    # -- what a subclass says

    def script(self, name: str) -> Script:
        """The server of this name."""
        return Script()

    def handler(self) -> Handler | None:
        """The function that makes the calls; None: `manager.call_tool`."""
        return None

    # -- how it runs

    def wait(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine to completion, and all other tasks meanwhile."""
        if self._home.done() and not self._over.is_set():
            # The exception that ended it is the cause.
            coroutine.close()
            self._home.result()
        try:
            return self._loop.run_until_complete(coroutine)
        except Spinning:
            type(self)._rounds = ROUNDS_AGAIN
            raise

    async def _live(self) -> None:
        async with self.sandbox:
            self._begun.set()
            await self._over.wait()

    def _name(self, number: int) -> str:
        return self.servers[number % len(self.servers)]

    def act(self, verb: str, *args: Any, **options: Any) -> None:
        """Have the sandbox do something, and check its immediate consequences."""
        self.wait(self.sandbox.perform(verb, *args, **options))

    def teardown(self) -> None:
        """End all faults, and check that every connection recovers, leaves nothing behind, and reported the truth."""
        try:
            # Not if a violation was already found, or hypothesis has stopped the example.
            if sys.exc_info()[0] is None:
                self.wait(self.sandbox.recover())
                self._over.set()
                self._loop.run_until_complete(self._home)
        finally:
            self.abandon()

    def abandon(self) -> None:
        """End everything without checks."""
        # A task that is cancelled may start others.
        while tasks := asyncio.all_tasks(self._loop):
            # Each task runs once first, because Python warns about a coroutine that was never awaited.
            self._loop.run_until_complete(asyncio.sleep(0))
            for task in tasks:
                task.cancel()
            self._loop.run_until_complete(asyncio.wait(tasks))
            for task in tasks:
                if not task.cancelled():
                    task.exception()
        self._loop.run_until_complete(self._loop.shutdown_asyncgens())
        self._loop.close()


class HandlerMachine(SandboxMachine):
    """Calls a handler while its servers fail. Subclass it and override `handle`.

    Add rules of your own with `hypothesis.stateful.rule`.
    """

    tools: ClassVar[tuple[str, ...]] = ("add", "charge", "slow", "slow_charge")
    """Tools to call. Those that are annotated readOnlyHint or idempotentHint may run twice, others may not."""

    async def handle(self, manager: Any, server: str, tool: str, arguments: dict[str, Any]) -> Any:
        """Make one call, as your program does.

        Return the result. When the call failed, raise `CallFailed` (or let it propagate): what it says about whether
        the tool ran is compared with the truth. If your handler reports failures in its return value, raise `Said` with
        that, so that it can be checked. Any other exception than an `MCPError` is a bug of the handler, and fails the
        test.
        """
        return await manager.call_tool(server, tool, arguments)

    def arguments(self, tool: str, seconds: float) -> dict[str, Any]:
        """Arguments for a tool; the id of the call is added to them."""
        return {"a": 1, "b": 2, "seconds": seconds}

    def handler(self) -> Handler | None:
        return self.handle

    # -- what can happen

    @rule(server=SERVERS, tool=st.integers(0, 15), seconds=st.sampled_from([1, 30]))
    def call(self, server: int, tool: int, seconds: float) -> None:
        """A call is made; it goes on while other things happen."""
        name = self.tools[tool % len(self.tools)]
        self.act("call", self._name(server), name, self.arguments(name, seconds))

    @rule(count=st.integers(2, 8), server=SERVERS)
    def call_at_once(self, count: int, server: int) -> None:
        """Several calls are made at the same moment."""
        for number in range(count):
            name = self.tools[number % len(self.tools)]
            self.act("call", self._name(server), name, self.arguments(name, 1))

    @rule(server=SERVERS, tool=st.integers(0, 15), fault=st.sampled_from(list(FAULTS)))
    def call_meets(self, server: int, tool: int, fault: str) -> None:
        """A call is made, and meets a fault."""
        self.act("inject", self._name(server), fault, times=1)
        self.call(server=server, tool=tool, seconds=1)

    @rule(number=st.integers(0, 7))
    def cancel(self, number: int) -> None:
        """A caller cancels its call."""
        self.act("cancel", number)

    @rule(server=SERVERS, fault=st.sampled_from(list(FAULTS)), times=TIMES)
    def fail_calls(self, server: int, fault: str, times: int) -> None:
        """The next tool calls meet a fault."""
        self.act("inject", self._name(server), fault, times=times)

    @rule(server=SERVERS, fault=st.sampled_from(list(FAULTS)), times=TIMES)
    def fail_requests(self, server: int, fault: str, times: int) -> None:
        """The next requests meet a fault, handshakes and probes among them."""
        self.act("inject", self._name(server), fault, times=times, method=None)

    @rule(server=SERVERS, times=TIMES)
    def refuse(self, server: int, times: int) -> None:
        """The next requests find no connection."""
        self.act("refuse", self._name(server), times)

    @rule(server=SERVERS)
    def forget(self, server: int) -> None:
        """The server forgets its sessions."""
        self.act("forget", self._name(server))

    @rule(server=SERVERS)
    def restart(self, server: int) -> None:
        """The server drops all requests in progress, and forgets its sessions."""
        self.act("restart", self._name(server))

    @rule(server=SERVERS)
    def take_down(self, server: int) -> None:
        """The server goes down."""
        self.act("take_down", self._name(server))

    @rule(server=SERVERS)
    def bring_up(self, server: int) -> None:
        """The server is back."""
        self.act("bring_up", self._name(server))

    @rule(server=SERVERS)
    def reconnect(self, server: int) -> None:
        """A new session is requested."""
        self.act("reconnect", self._name(server))

    @rule(server=SERVERS)
    def replace(self, server: int) -> None:
        """The connection is closed, and a new one replaces it in the manager."""
        self.act("replace", self._name(server))

    @rule(seconds=st.sampled_from([0.5, 2.0, 6.0]))
    def advance(self, seconds: float) -> None:
        """A little time passes."""
        self.act("advance", seconds)

    @rule(seconds=st.sampled_from([31.0, 65.0, 310.0]))
    def wait_long(self, seconds: float) -> None:
        """Time passes: longer than patience, a deadline, or every cool-down."""
        self.act("advance", seconds)
