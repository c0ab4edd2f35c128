"""The demo itself: continuous callers, one fault after another, and a record of both."""

from __future__ import annotations

import itertools
import random
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any

import anyio
from mcp import MCPError

from mcpconn.core import Delivery, Event, State
from mcpconn.demo.breakages import Breakage
from mcpconn.demo.processes import DemoError
from mcpconn.demo.tally import ANSWERED, NOT_RUN, UNKNOWN, WRONG, CallRecord, Recovery, count
from mcpconn.demo.timeline import BOLD, Timeline
from mcpconn.errors import CallFailed
from mcpconn.manager import Manager
from mcpconn.runtime.journal import Change, Notice, Replay

CALLERS = 2
"""Callers of each tool on each server."""
PAUSE = 0.1
"""Seconds that a caller waits between two calls, plus or minus half, so that callers do not all wait at the same
time."""
PATIENCE = 90.0
"""Seconds after which the demo considers a connection broken that has not recovered: six times what a slow machine
takes."""
HARMLESS = {
    Delivery.NOT_SENT: "it had not left",
    Delivery.REJECTED: "it was refused before it ran",
    Delivery.UNKNOWN: "its tool only reads",
}
"""The reason for which a call may be retried."""
GLANCE = 0.2
"""Seconds between two updates of the live line."""


class Show:
    """One run of the demo."""

    def __init__(self, manager: Manager, timeline: Timeline) -> None:
        self.calls: list[CallRecord] = []
        self.recoveries: list[Recovery] = []
        self.replayed: Counter[str] = Counter()
        self.trouble: DemoError | None = None
        """Why the demo had to be aborted."""
        self._manager = manager
        self._timeline = timeline
        self._orders = itertools.count(1)
        self._over = False
        self._ready_at = dict.fromkeys(manager, 0.0)
        """When each connection last became ready."""
        self._answered = dict.fromkeys(manager, 0.0)
        """The start of the latest answered call."""
        self._under_way: dict[str, list[float]] = {server: [] for server in manager}
        """The start of each call in progress."""
        self._news = anyio.Event()
        manager.observe(self._noticed)

    # -- what is seen

    def _noticed(self, notice: Notice) -> None:
        if isinstance(notice, Change):
            if notice.event is Event.ESTABLISHED:
                self._ready_at[notice.server] = self._timeline.now()
            self._timeline.change(notice)
            self._tell()
        elif isinstance(notice, Replay) and notice.method == "tools/call":
            self.replayed[notice.server] += 1
            wait = notice.failure.retry_after
            later = f"; the server asks to wait {wait:g} s" if wait is not None else ""
            self._timeline.gather(notice.server, "replay", HARMLESS[notice.failure.delivery] + later)

    def _tell(self) -> None:
        news, self._news = self._news, anyio.Event()
        news.set()

    # -- callers

    async def _read(self, server: str) -> None:
        for a in itertools.count():
            if self._over:
                return
            await self._call(server, "add", {"a": a, "b": 1}, a + 1)
            await anyio.sleep(PAUSE * random.uniform(0.5, 1.5))

    async def _charge(self, server: str) -> None:
        while not self._over:
            order = f"{server}-{next(self._orders)}"
            await self._call(server, "charge", {"order": order}, order)
            await anyio.sleep(PAUSE * random.uniform(0.5, 1.5))

    async def _call(self, server: str, tool: str, arguments: dict[str, Any], right: Any) -> None:
        began = self._timeline.now()
        self._under_way[server].append(began)
        try:
            result = await self._manager.call_tool(server, tool, arguments)
        except CallFailed as error:
            outcome = UNKNOWN if error.outcome == "unknown" else NOT_RUN
            self._timeline.gather(server, type(error).__name__, f"{tool}: {error.failure.summary}")
        except MCPError as error:
            outcome = WRONG
            self._timeline.gather(server, type(error).__name__, f"{tool}: {error}")
        else:
            outcome = ANSWERED if (result.structured_content or {}).get("result") == right else WRONG
        self.calls.append(CallRecord(server, tool, outcome, began, self._timeline.now(), arguments.get("order", "")))
        if outcome == ANSWERED:
            self._answered[server] = max(self._answered[server], began)
        self._under_way[server].remove(began)
        self._tell()

    # -- faults

    async def _suffer(self, faults: list[Breakage], seconds: float, began: float) -> None:
        """Cause one server's faults, each after the previous one is over."""
        for fault in faults:
            await anyio.sleep(max(0.0, began + fault.at * seconds - self._timeline.now()))
            recovery = await self._recover(fault)
            self.recoveries.append(recovery)
            if recovery.over is None:
                return

    async def _recover(self, fault: Breakage) -> Recovery:
        server, began = fault.server, self._timeline.now()
        epoch = self._manager[server].epoch
        away = await fault.inflict(lambda what: self._timeline.event(server, f"*** {what}", colour=BOLD))
        inflicted = self._timeline.now()
        over = None
        with anyio.move_on_after(PATIENCE):
            # A call that began after the fault has been answered, which an old session or a killed process cannot have
            # done.
            while self._answered[server] < inflicted and self._manager[server].state is not State.CLOSED:
                await self._news.wait()
            # The next fault must not hit a call that is being retried because of this one, because a call is retried
            # only once.
            while any(call < inflicted for call in self._under_way[server]):
                await self._news.wait()
        if self._answered[server] >= inflicted:
            over = self._timeline.now()
        ready = self._ready_at[server] - began if self._manager[server].epoch > epoch else None
        return Recovery(server, fault.cause, began, away, ready, over)

    # -- all of it

    async def run(self, faults: list[Breakage], seconds: float) -> None:
        """Run callers and faults; return when the faults and the time are over."""
        async with anyio.create_task_group() as group:
            group.start_soon(self._glances)
            try:
                await self._play(faults, seconds)
            finally:
                group.cancel_scope.cancel()

    async def _play(self, faults: list[Breakage], seconds: float) -> None:
        began = self._timeline.now()
        async with anyio.create_task_group() as callers:
            for server in self._manager:
                for _ in range(CALLERS):
                    callers.start_soon(self._read, server)
                    callers.start_soon(self._charge, server)
            async with anyio.create_task_group() as troubles:
                for server in self._manager:
                    own = [fault for fault in faults if fault.server == server]
                    troubles.start_soon(self._guarded, partial(self._suffer, own, seconds, began), callers)
                troubles.start_soon(anyio.sleep, seconds)
            self._over = True

    async def _guarded(self, work: Callable[[], Any], group: Any) -> None:
        """End a demo that cannot continue with one error instead of a group."""
        try:
            await work()
        except DemoError as error:
            self.trouble = error
            group.cancel_scope.cancel()

    async def _glances(self) -> None:
        while True:
            self._timeline.flush()
            states = ", ".join(f"{name} {connection.state}" for name, connection in self._manager.items())
            answered = sum(count(self.calls, ANSWERED).values())
            self._timeline.live(f"{self._timeline.now():6.1f}  {states}; {len(self.calls)} calls, {answered} answered")
            await anyio.sleep(GLANCE)
