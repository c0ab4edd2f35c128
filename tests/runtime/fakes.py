"""A wire that does as it is told, for tests of the runtime alone."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import anyio
from anyio.lowlevel import checkpoint
from mcp import MCPError

from mcpconn import Change, Policy, classify
from mcpconn.core.attempt import Attempt
from mcpconn.core.backoff import ReplayBudget
from mcpconn.core.failures import Era, Evidence, Phase
from mcpconn.core.stream import StreamRecord
from mcpconn.runtime.calls import Calls
from mcpconn.runtime.clock import Clock
from mcpconn.runtime.common import Common
from mcpconn.runtime.dials import Dials
from mcpconn.runtime.journal import Journal
from mcpconn.runtime.protocols import Link
from mcpconn.runtime.session import Session
from mcpconn.runtime.supervisor import Supervisor
from mcpconn.testing.clock import settle

GONE = Evidence(http_status=404, code=-32600, message="Session not found", session_sent=True, from_wire=True)
"""Proof that the session is gone, before anything ran."""
UNLISTED = Evidence(http_status=400, content_type="", session_sent=True)
"""A refusal in no words at all."""
CUT = Evidence(exception=ConnectionResetError("reset"), written=True)
"""The outcome is unknown."""
REFUSED = Evidence(exception=ConnectionRefusedError("refused"), written=False, phase="dial")
"""The server is down."""


class CallError(Exception):
    """An error with the evidence for it."""

    def __init__(self, evidence: Evidence) -> None:
        super().__init__(evidence)
        self.evidence = evidence


async def nothing(*_: Any) -> None:
    await checkpoint()


class FakeLink:
    """An open session without a server."""

    version = "2025-11-25"
    server_info: Any = None
    capabilities: Any = None

    def __init__(self, dialer: FakeDialer, idle_failure: Callable[[Evidence], None]) -> None:
        self.client: Any = self
        self.era: Era = "legacy"
        self.stream = StreamRecord()
        self.ended: BaseException | None = None
        self.idle_failure = idle_failure
        self.on_probe: Callable[[], Awaitable[None]] = nothing
        self.over = anyio.Event()
        self.lost = False
        self.doubt: Evidence | None = None
        self.ending = 0.0
        self.forgettable = False
        self.session_id: str | None = None
        self.asked: list[str] = []
        """The requests of probes, in order."""
        self.on_listing: Callable[[], Awaitable[None]] | None = None
        """What a listing does that a probe asks for; None: the same as a ping."""
        self.probes: tuple[str, ...] = ("ping", "tools/list")
        self.broken = anyio.Event()
        self.error: Exception | None = None
        self._dialer = dialer

    def new_attempt(self, phase: Phase) -> Attempt:
        return Attempt(phase, self.era)

    def evidence(self, error: BaseException, attempt: Attempt) -> Evidence:
        if isinstance(error, CallError):
            return error.evidence
        if isinstance(error, MCPError):
            return Evidence(code=error.code, message=error.message, from_wire=True, phase=attempt.phase)
        return Evidence(exception=error, phase=attempt.phase)

    def misfit(self, error: BaseException, attempt: Attempt) -> str | None:
        return None

    def restore_tools(self, tools: Sequence[Any]) -> None:
        pass

    def listen(self, **wanted: bool) -> Any:
        raise NotImplementedError("a fake link announces nothing")

    async def discover(self) -> Any:
        return self.capabilities

    def mark_lost(self) -> None:
        self.lost = True

    async def probe(self, method: str) -> None:
        self.asked.append(method)
        await (self.on_listing if method != "ping" and self.on_listing is not None else self.on_probe)()

    @property
    def closed(self) -> bool:
        return self.over.is_set()

    async def during(self, answer: Awaitable[Any]) -> Any:
        """Await `answer`, unless the session ends before it is there."""
        result: list[Any] = []
        failure: Exception | None = None
        async with anyio.create_task_group() as group:

            async def end() -> None:
                await self.over.wait()
                group.cancel_scope.cancel()

            group.start_soon(end)
            try:
                result.append(await answer)
            except Exception as error:
                failure = error
            group.cancel_scope.cancel()
        if failure is not None:
            raise failure
        if not result:
            raise CallError(Evidence(exception=anyio.EndOfStream()))
        return result[0]

    def break_down(self, error: Exception) -> None:
        """End the session from within."""
        self.error = error
        self.broken.set()


class NothingCarried:
    """For connections whose sessions have nothing in common."""

    async def before_calls(self, link: Link) -> None:
        """There is nothing to restore."""

    async def beside_calls(self, session: Session) -> None:
        """There is nothing left to restore."""


class FakeDialer:
    """Opens sessions, or does not."""

    def __init__(self) -> None:
        self.links: list[FakeLink] = []
        self.dials = 0
        self.plans: list[Callable[[FakeLink], Awaitable[None]]] = []
        """What the next dials do before they succeed, one after another; a dial without a plan succeeds."""
        self.always: Callable[[FakeLink], Awaitable[None]] = nothing
        self.at: list[float] = []
        self.shut = False
        self.patience: float | None = None
        self.progress: str | None = None
        self.last_words = ""
        self.spent = False

    def open(self, idle_failure: Callable[[Evidence], None]) -> AbstractAsyncContextManager[FakeLink]:
        return self._open(idle_failure)

    @asynccontextmanager
    async def _open(self, idle_failure: Callable[[Evidence], None]) -> AsyncIterator[FakeLink]:
        self.dials += 1
        self.at.append(anyio.current_time())
        link = FakeLink(self, idle_failure)
        await (self.plans.pop(0) if self.plans else self.always)(link)
        self.links.append(link)
        try:
            async with anyio.create_task_group() as group:

                async def breakable() -> None:
                    await link.broken.wait()
                    assert link.error is not None
                    raise link.error

                group.start_soon(breakable)
                yield link
                group.cancel_scope.cancel()
        finally:
            link.over.set()

    async def aclose(self) -> None:
        self.shut = True


def answering(seconds: float, answer: Any = "answer") -> Callable[[Attempt], Awaitable[Any]]:
    """An attempt that takes this long to be answered."""

    async def attempt(attempt: Attempt) -> Any:
        await anyio.sleep(seconds)
        return answer

    return attempt


def failing(evidence: Evidence) -> Callable[[FakeLink], Awaitable[None]]:
    """A plan: the dial fails so."""

    async def plan(link: FakeLink) -> None:
        await checkpoint()
        raise CallError(evidence)

    return plan


class Rig:
    """A supervisor, its calls, and everything they said."""

    def __init__(self, policy: Policy | None = None, *, dials: Dials | None = None, **options: Any) -> None:
        self.policy = policy or Policy()
        self.dialer = FakeDialer()
        self.journal = Journal()
        self.clock = Clock(rng=random.Random(7))
        self.notices: list[Any] = []
        self.journal.subscribe(self.notices.append)
        self.budget = ReplayBudget()
        common = Common("fake", self.policy, classify, self.clock, self.journal)
        self.carried = NothingCarried()
        self.supervisor = Supervisor(common, self.dialer, dials or Dials(self.policy), self.carried, **options)
        self.lifecycle = self.supervisor.lifecycle
        self.calls = Calls(common, self.lifecycle, budget=self.budget, progress=lambda: self.dialer.progress)

    @property
    def events(self) -> list[str]:
        return [notice.event.value for notice in self.notices if isinstance(notice, Change)]

    @property
    def link(self) -> FakeLink:
        """The latest session's."""
        return self.dialer.links[-1]

    async def call(self, *answers: Any, safe: bool = False, timeout: float | None = 60, **options: Any) -> Any:
        """Make a call whose attempts end like this, one after another: an exception is raised, a coroutine
        function awaited, anything else returned."""
        left = list(answers)

        async def issue(client: Any, attempt: Attempt) -> Any:
            await checkpoint()
            answer = left.pop(0)
            if isinstance(answer, BaseException):
                raise answer
            return await client.during(answer(attempt)) if callable(answer) else answer

        async def is_safe() -> bool:
            return safe

        return await self.calls.run("tools/call", issue, safe=is_safe, timeout=timeout, **options)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Rig]:
        """Own the connection; it is closed at the end, and has to end well."""
        # Virtual seconds: a deadlock fails at once.
        with anyio.fail_after(1_000_000):
            async with self._running():
                yield self

    @asynccontextmanager
    async def _running(self) -> AsyncIterator[Rig]:
        async with anyio.create_task_group() as group:
            group.start_soon(self.supervisor.run)
            try:
                yield self
            finally:
                self.lifecycle.close()
        await settle()
        assert self.dialer.shut
        assert all(link.closed for link in self.dialer.links)
        assert (self.lifecycle.gate.in_flight, self.lifecycle.gate.waiting) == (0, 0)

    async def ready(self) -> None:
        await self.calls.ready(None)
