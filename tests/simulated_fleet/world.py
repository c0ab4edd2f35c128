"""A minute in the life of a fleet, in virtual time: replicas, a store, servers, clients, and what goes wrong.

The replicas are real `App` objects; what is simulated is around them: processes that are paused and killed, a store
that is away, slow, or loses its last writes, connections that break, clocks that differ. Everything comes from one
seed.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Generator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from random import Random
from typing import Any

import anyio
import httpx2

from mcpconn.seal import KeyRing
from mcpconn.testing import Script, ScriptedTool, ScriptTransport
from mcpconn.testing.scripted.steps import Sleep
from tests.simulated_fleet.checks import broken_promises
from tests.simulated_fleet.clients import LEGACY, MODERN, Client
from tests.simulated_fleet.logins import Logins, SlowToAnswer, log_in
from tests.simulated_fleet.network import AppTransport, Network
from tests.simulated_fleet.processes import Process, ProcessLoop, clocks_of_processes
from tests.simulated_fleet.replicas import Replica
from tests.simulated_fleet.store import FaultyStore, SharedStore
from tests.simulated_fleet.troubles import SECONDS, TROUBLES, Troubles
from tests.support import quiet_logs

QUIET = 12.0
"""Seconds without trouble before the last calls: leases end after 3, an owner is looked for during 8."""
REPLICAS = 3
CLIENTS = 4
DELAYED = 0.15
"""Part of the clients' requests that take a while to a replica."""
SESSION: ContextVar[tuple[str, str]] = ContextVar("session", default=("", ""))
"""The upstream session, and the replica, of the request that a server serves now."""


@dataclass(frozen=True)
class Run:
    """One run of a tool."""

    call: str
    server: str
    tool: str
    session: str
    replica: str
    at: float


@dataclass
class Minute:
    """What came of it."""

    seed: int
    calls: int = 0
    runs: int = 0
    told: Counter[str] = field(default_factory=Counter)
    troubles: Counter[str] = field(default_factory=Counter)
    digest: str = ""
    """Of everything that happened: the same for the same seed."""


class PromiseBroken(AssertionError):
    """A fleet broke a promise. The message says how to see it again."""

    def __init__(self, seed: int, error: BaseException, trace: list[str]) -> None:
        happened = "".join(f"\n  {line}" for line in trace)
        again = f"To repeat it: python -m tests.simulated_fleet --seed {seed}"
        super().__init__(f"seed {seed}: {error!r}\nWhat happened:{happened}\n{again}")


class World:
    """Everything there is."""

    def __init__(self, minute: Minute, kinds: Sequence[str], seconds: float, clients: int) -> None:
        self.minute = minute
        self._kinds = kinds
        self._seconds = seconds
        self._clients = clients
        self.seed = minute.seed
        self.random = Random(minute.seed)
        self.trace: list[str] = []
        self.network = Network()
        self.runs: list[Run] = []
        self.users: dict[tuple[str, str], set[str]] = {}
        """The replicas that used an upstream session, by server and session."""
        self.revoked: dict[str, float] = {}
        """When a client's key was removed."""
        self.trouble_over = 0.0
        self._digest = hashlib.sha256()

    def _script(self, name: str, era: Any) -> Script:
        def run(arguments: Mapping[str, Any], tool: str) -> Generator[Any, None, Any]:
            session, replica = SESSION.get()
            call = str(arguments.get("call_id"))
            self.runs.append(Run(call, name, tool, session, replica, anyio.current_time()))
            if seconds := float(arguments.get("seconds", 0)):
                yield Sleep(seconds)
            said = {"call_id": call, "session": session}
            return {"content": [{"type": "text", "text": call}], "structuredContent": said, "isError": False}

        tools = [
            ScriptedTool("charge", lambda arguments: run(arguments, "charge"), {}),
            ScriptedTool("look", lambda arguments: run(arguments, "look"), {"readOnlyHint": True}),
        ]
        return Script(era=era, tools=tools, answer=self.random.choice(["json", "sse"]), get_stream="405")

    def seen(self, server: str, process: Process, method: str, headers: Mapping[str, str]) -> None:
        """A request has reached a server."""
        session = headers.get("mcp-session-id", "")
        SESSION.set((session, process.name))
        if session and method == "POST":
            self.users.setdefault((server, session), set()).add(process.name)

    async def run(self) -> None:
        random = self.random
        self.shared = SharedStore()
        self.ring = KeyRing([bytes(32)])
        self.present_keys = {f"c{number}": f"mck_key{number}" for number in range(self._clients)}
        self.scripts = {"old": self._script("old", "legacy"), "new": self._script("new", "modern")}
        self.scripts["safe"] = self._script("safe", "modern")
        self.inner: dict[str, httpx2.AsyncBaseTransport] = {
            name: ScriptTransport(script) for name, script in self.scripts.items()
        }
        self.logins = Logins(expires_in=8)
        self.inner["safe"] = SlowToAnswer(self.logins, ScriptTransport(self.scripts["safe"]))
        await log_in(FaultyStore(self.shared, Process("login"), Random(0)), self.ring, self.logins)
        self.replicas: list[Replica] = []
        self.buried: list[Replica] = []
        async with anyio.create_task_group() as group:
            group.start_soon(self.shared.keep_copies)
            for _ in range(REPLICAS):
                await self.start_replica()
            self.clients = [self._client(number) for number in range(self._clients)]
            until = anyio.current_time() + self._seconds
            troubles = Troubles(self, self._kinds, self._seconds)
            async with anyio.create_task_group() as living:
                for client in self.clients:
                    living.start_soon(client.live, until, self.scripts)
                async with anyio.create_task_group() as going:
                    for number in range(random.randint(2, 4)):
                        going.start_soon(troubles.happen, Random(f"{self.seed} trouble {number}"))
                self.trouble_over = anyio.current_time()
            await anyio.sleep(QUIET)
            last = [await client.call(server, "charge", 0) for client in self.clients for server in self.scripts]
            for call in (each for client in self.clients for each in client.calls):
                self._note(str(call))
            for each in (*self.buried, *self.replicas):
                await each.bury()
            group.cancel_scope.cancel()
        broken_promises(self, last)
        self._count()

    async def start_replica(self) -> Replica:
        """Start one, and wait until it serves."""
        made = Replica(self, len(self.replicas) + len(self.buried) + 1)
        self.replicas.append(made)
        with anyio.move_on_after(30):
            await made.started.wait()
        return made

    def _client(self, number: int) -> Client:
        random = Random(f"{self.seed} client {number}")
        taken = ""

        def choose() -> Replica | None:
            nonlocal taken
            found = [each for each in self.replicas if each.accepting]
            chosen = random.choice(found) if found else None
            taken = chosen.process.name if chosen is not None else "nobody"
            return chosen

        def losses() -> int:
            return len(self.shared.lost_at)

        delays = Random(f"{self.seed} delays {number}")

        async def travel(request: httpx2.Request) -> None:
            if delays.random() < DELAYED:
                before = losses()
                await anyio.sleep(delays.choice((0.1, delays.uniform(0, 5))))
                # One that is on its way while the store loses writes is beyond what is promised; see the page about
                # fleets.
                if losses() > before:
                    raise httpx2.ReadError("Connection reset by peer", request=request)

        name = f"c{number}"
        transport = AppTransport(self.network, choose, travel)
        era = random.choice((LEGACY, MODERN))
        return Client(name, self.present_keys[name], era, random, transport, lambda: taken, losses)

    def _note(self, words: str) -> None:
        self._digest.update(words.encode())

    def _count(self) -> None:
        minute = self.minute
        for client in self.clients:
            for call in client.calls:
                minute.calls += 1
                minute.told[call.attempts[-1].told] += 1
        minute.runs = len(self.runs)
        for run in self.runs:
            self._note(f"{run.call} {run.server} {run.at:.6f}")
        minute.digest = self._digest.hexdigest()


def live_through(
    seed: int,
    *,
    troubles: Sequence[str] = TROUBLES,
    seconds: float = SECONDS,
    clients: int = CLIENTS,
    loud: bool = False,
) -> Minute:
    """Simulate a minute.

    Args:
        seed: Where everything comes from.
        troubles: What can happen.
        seconds: For how long clients make calls; troubles begin within them.
        clients: How many there are.
        loud: Leave the log on.

    Raises:
        PromiseBroken: a promise was broken.
    """
    minute = Minute(seed)
    world = World(minute, troubles, seconds, clients)
    with clocks_of_processes(seed):
        try:
            if loud:
                anyio.run(world.run, backend="asyncio", backend_options={"loop_factory": ProcessLoop})
            else:
                with quiet_logs():
                    anyio.run(world.run, backend="asyncio", backend_options={"loop_factory": ProcessLoop})
        except Exception as error:
            raise PromiseBroken(seed, error, world.trace) from error
    return minute
