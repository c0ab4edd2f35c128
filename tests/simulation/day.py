"""A day in the life of fifty servers, in virtual time: outages, restarts, expiries, faults, and people who call.

Everything that happens comes from one seed, and the same seed makes the same day again. While it goes on, every
transition is compared with the table; each hour every connection against its promises; and at the end everything
that callers were told against what the servers ran.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass, field, replace
from random import Random
from typing import Any, cast

import anyio

from mcpconn import Change, Policy
from mcpconn.testing import Script, ScriptedTool, clock, default_tools
from mcpconn.testing.named_faults import FAULTS, SOCKET_FAULTS
from mcpconn.testing.sandbox import Sandbox
from mcpconn.testing.scripted.expiries import LISTED, UNLISTED
from tests.support import quiet_logs

SERVERS = 50
DAY = 86_400.0
TROUBLES = 1.5
"""Troubles of one server in a day, on average."""
VISITS = 2.0
"""Times a day at which a server is called without any trouble, on average."""
TOOLS = ("add", "charge", "slow", "slow_charge", "progress")
KINDS = ("outage", "restart", "expiry", "fault", "fault", "brownout", "replaced")
"""What trouble can be, each as likely as it is often named."""
POISON = ("poison", "poison")
"""The same, with connections that are used again."""
SHARE_OF_SOCKETS = 0.4
"""Of the servers: behind connections that are used for one request after another, with an HTTP parser at both ends."""
POLICY = Policy(max_message_size=65536)


@dataclass
class Day:
    """What came of it."""

    seed: int
    backend: str
    calls: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    transitions: Counter[str] = field(default_factory=Counter)
    troubles: Counter[str] = field(default_factory=Counter)
    digest: str = ""
    """Of everything that happened and when: the same for the same seed."""

    def __str__(self) -> str:
        parts = (
            f"{self.calls} calls: " + _listed(self.outcomes),
            f"{sum(self.troubles.values())} troubles: " + _listed(self.troubles),
            f"{sum(self.transitions.values())} transitions: " + _listed(self.transitions),
        )
        return f"seed {self.seed} on {self.backend}: " + "; ".join(parts)


def _listed(counts: Counter[str]) -> str:
    return ", ".join(f"{count} {name}" for name, count in sorted(counts.items()))


class DayFailed(AssertionError):
    """A day on which a promise was broken. The message says how to see it again."""

    def __init__(self, seed: int, backend: str, error: BaseException) -> None:
        super().__init__(
            f"seed {seed} on {backend}: {error!r}\n"
            f"To repeat it: python -m tests.simulation --seed {seed} --backend {backend}"
        )


def live_through(seed: int, backend: str, *, servers: int = SERVERS, seconds: float = DAY) -> Day:
    """Simulate a day.

    Args:
        seed: Where everything comes from.
        backend: `asyncio` or `trio`.
        servers: How many.
        seconds: How long the day is.

    Raises:
        DayFailed: a promise was broken.
    """
    day = Day(seed, backend)
    simulation = _Simulation(day, servers, seconds)
    with quiet_logs():
        try:
            clock.run(simulation.run, backend=backend, seed=seed)
        except Exception as error:
            raise DayFailed(seed, backend, error) from error
    return day


def _telling(tool: ScriptedTool) -> ScriptedTool:
    """The tool, with an answer that says which call it is for."""

    def run(arguments: Mapping[str, Any]) -> Generator[Any, None, Any]:
        answer: Any = tool.run(arguments)
        if isinstance(answer, Iterator):
            answer = yield from cast("Generator[Any, None, Any]", answer)
        if not isinstance(answer, Mapping):
            answer = {"content": [{"type": "text", "text": str(answer)}], "isError": False}
        return {**answer, "structuredContent": {"call_id": arguments.get("call_id")}}

    return replace(tool, run=run)


class _Simulation:
    def __init__(self, day: Day, servers: int, seconds: float) -> None:
        self.day = day
        self.seconds = seconds
        self.random = Random(day.seed)
        self.scripts = {f"s{number:02}": self._script() for number in range(servers)}
        self.sockets = {name for name in self.scripts if self.random.random() < SHARE_OF_SOCKETS}
        self.trace = hashlib.sha256()

    def _script(self) -> Script:
        choose = self.random.choice
        era: Any = choose(["legacy", "legacy", "modern"])
        return Script(
            era=era,
            answer=choose(["json", "sse"]),
            sessions=self.random.random() < 0.8,
            event_ids=self.random.random() < 0.3,
            page_size=choose([None, None, 2]),
            # Half of them in words that nobody can know beforehand.
            expiry=choose([choose(list(LISTED)), choose(list(UNLISTED))]),
            get_stream=choose(["open", "405"]),
            tools=map(_telling, default_tools()),
        )

    async def run(self) -> None:
        self.sandbox = Sandbox(self.scripts, sockets=self.sockets, seed=self.day.seed, policy=POLICY)
        self.sandbox.manager.subscribe(self._note)
        async with self.sandbox:
            async with anyio.create_task_group() as group:
                for name in self.scripts:
                    group.start_soon(self._trouble, name, Random(f"{self.day.seed} trouble {name}"))
                    group.start_soon(self._visit, name, Random(f"{self.day.seed} visit {name}"))
                group.start_soon(self._inspect)
            await self.sandbox.recover()
        for call in self.sandbox.history.calls:
            self._digest(call.id, call.tool, call.outcome)
        self.day.calls = len(self.sandbox.history.calls)
        self.day.outcomes = self.sandbox.history.outcomes()
        self.day.digest = self.trace.hexdigest()

    def _note(self, change: Change) -> None:
        self.day.transitions[str(change.event)] += 1
        self._digest(change.server, change.event, change.target, change.epoch, f"{change.at:.6f}")

    def _digest(self, *facts: object) -> None:
        self.trace.update(" ".join(map(str, facts)).encode())

    async def _inspect(self) -> None:
        """Look at everything once an hour."""
        for _ in range(int(self.seconds // 3600)):
            await anyio.sleep(3600)
            self.sandbox.check()

    async def _until_night(self, random: Random, times: float) -> bool:
        """Wait for the next of so many times a day; False if that is tomorrow."""
        wait = random.expovariate(times / DAY)
        if anyio.current_time() + wait >= self.seconds:
            return False
        await anyio.sleep(wait)
        return True

    # -- what goes wrong

    async def _trouble(self, name: str, random: Random) -> None:
        sandbox = self.sandbox
        while await self._until_night(random, TROUBLES):
            # Somebody is calling when it happens, as a rule, and somebody calls while it lasts.
            if random.random() < 0.7:
                self._call(name, random, random.randint(1, 3))
                await anyio.sleep(random.choice([0, 0, 0.5, 2]))
            kind = random.choice([*KINDS, *POISON] if name in self.sockets else KINDS)
            self.day.troubles[kind] += 1
            if kind == "outage":
                sandbox.take_down(name)
                self._call(name, random, random.randint(0, 2))
                # Most are short, some are not: 20 s at the median, one in fifty above half an hour.
                await anyio.sleep(random.lognormvariate(math.log(20), 2))
                sandbox.bring_up(name)
            elif kind == "restart":
                sandbox.restart(name)
            elif kind == "expiry":
                sandbox.forget(name)
            elif kind == "fault":
                method = random.choice(["tools/call", "tools/call", "initialize", None])
                sandbox.inject(name, random.choice(list(FAULTS)), times=random.randint(1, 4), method=method)
            elif kind == "brownout":
                sandbox.inject(name, random.choice(["503", "429", "hang", "502"]), times=None, method=None)
                self._call(name, random, random.randint(1, 3))
                await anyio.sleep(random.lognormvariate(math.log(20), 1))
                self.scripts[name].clear()
            elif kind == "poison":
                await self._poison(name, random)
            else:
                sandbox.replace(name)
            if random.random() < 0.7:
                self._call(name, random, random.randint(1, 3))
            if random.random() < 0.1:
                sandbox.reconnect(name)

    async def _poison(self, name: str, random: Random) -> None:
        """The server leaves something on its connections; calls follow, while those are still used."""
        self.sandbox.inject(name, random.choice(list(SOCKET_FAULTS)), times=random.randint(1, 3))
        for _ in range(5):
            self._call(name, random, random.choice([1, 1, 2]))
            await anyio.sleep(random.choice([0.05, 0.1, 0.3, 0.45, 1, 2.5]))

    # -- who calls

    async def _visit(self, name: str, random: Random) -> None:
        while await self._until_night(random, VISITS):
            self._call(name, random, random.choice([1, 1, 1, 2, 5]))
            if random.random() < 0.1:
                await anyio.sleep(random.random())
                self.sandbox.cancel(random.randrange(100))

    def _call(self, name: str, random: Random, count: int) -> None:
        for _ in range(count):
            arguments = {"a": 1, "b": 2, "seconds": random.choice([0.1, 1, 10, 70])}
            timeout = random.choice([None, None, 5.0, 300.0])
            idempotent = random.choice([None, None, None, True, False])
            self.sandbox.call(name, random.choice(TOOLS), arguments, timeout=timeout, idempotent=idempotent)
