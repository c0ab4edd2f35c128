"""A minute in the life of a fleet, in virtual time: replicas, a store, servers, clients, and what goes wrong.

The replicas are real `App` objects; what is simulated is around them: processes that are paused and killed, a store
that is away, slow, or loses its last writes, connections that break, clocks that differ. Everything comes from one
seed.
"""

from __future__ import annotations

import hashlib
import ipaddress
import logging
from collections import Counter
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from random import Random
from typing import Any

import anyio
import httpx2
from mcp.client.auth import OAuthClientProvider
from mcp.shared.auth import OAuthClientInformationFull, OAuthClientMetadata, OAuthToken
from pydantic import AnyUrl

from mcpconn import Manager
from mcpconn.gateway import App, Settings
from mcpconn.gateway.access.config import AccessSettings
from mcpconn.gateway.access.credentials import Identity, Refused
from mcpconn.gateway.access.keys import hash_of, principal_of_key
from mcpconn.gateway.fleet.config import FleetSettings
from mcpconn.gateway.principals import Principal
from mcpconn.gateway.seal import KeyRing
from mcpconn.gateway.upstream_auth.tokens import PrincipalTokens
from mcpconn.testing import Script, ScriptedTool, ScriptTransport
from mcpconn.testing.clock import virtual_clock
from mcpconn.testing.scripted.steps import Sleep
from tests.auth.servers import ORIGIN, Answer, AuthServer, Guarded
from tests.simulated_fleet.checks import broken_promises
from tests.simulated_fleet.clients import LEGACY, MODERN, Client
from tests.simulated_fleet.network import AppTransport, MemoryLinks, Network, ServerTransport
from tests.simulated_fleet.processes import Process, ProcessLoop, clocks_of_processes
from tests.simulated_fleet.store import FaultyStore, SharedStore

SECONDS = 20.0
"""How long there is trouble."""
QUIET = 12.0
"""Seconds without trouble before the last calls: leases end after 3, an owner is looked for during 8."""
REPLICAS = 3
CLIENTS = 4
TROUBLES = (
    *("kill", "kill", "pause", "pause", "retire", "links", "server down", "server forgets", "revoke"),
    *("store away", "store away for all", "store slow", "store mute", "failover", "failover"),
)
"""What can happen, each as likely as it is often named."""
NETWORKS = (ipaddress.ip_network("10.0.0.0/8"),)
TOKENS_TAKE = 0.4
"""Seconds from the use of a refresh token to the arrival of what it returns."""
LOGIN = OAuthClientMetadata(redirect_uris=[AnyUrl("http://localhost:1/callback")])
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


class Keys:
    """The keys of one replica, in place of a `KeyFile`."""

    def __init__(self, keys: Mapping[str, str]) -> None:
        self._names = {hash_of(key): name for name, key in keys.items()}

    def identify(self, key: str) -> Identity:
        name = self._names.get(hash_of(key))
        if name is None:
            raise Refused("the key is unknown or was removed")
        return Identity(principal_of_key(name))

    def hashes(self) -> dict[str, str]:
        return dict(self._names)

    def names(self) -> list[str]:
        return list(self._names.values())

    def remove(self, name: str) -> None:
        self._names = {key: each for key, each in self._names.items() if each != name}


class Logins(AuthServer):
    """An authorization server that knows of refresh tokens that were sent twice."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.used: set[str] = set()
        """Access tokens that a replica has sent."""
        self._reused: list[tuple[str, str]] = []

    def guard(self, headers: Mapping[str, str], metadata: str) -> Answer | None:
        self.used.add(headers.get("authorization", "").removeprefix("Bearer "))
        return super().guard(headers, metadata)

    def _refreshed(self, token: str) -> Answer:
        self._reused += [(token, access) for access in self._spent.get(token, ())[::2]]
        return super()._refreshed(token)

    @property
    def ended(self) -> list[str]:
        """Logins that a second use of a refresh token ended, although a replica had what the first use returned."""
        return [f"{token}, which returned {access}" for token, access in self._reused if access in self.used]


class SlowToAnswer(Guarded):
    """New tokens take a while to arrive: their holder can be paused or killed meanwhile, and others want them, too."""

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        response = await super().handle_async_request(request)
        if request.url.path == "/as/token":
            await anyio.sleep(TOKENS_TAKE)
        return response


class Replica:
    """One process of the gateway."""

    app: App

    def __init__(self, world: World, number: int) -> None:
        random = world.random
        self.process = Process(f"r{number}", drift=random.uniform(-2e-4, 2e-4), wall=random.uniform(-5, 5))
        self.store = FaultyStore(world.shared, self.process, Random(f"{world.seed} store {number}"))
        self.keys = Keys(world.present_keys)
        self.accepting = False
        self.started, self.stop = anyio.Event(), anyio.Event()
        self.servers = {
            name: ServerTransport(world.network, self.process, inner, lambda *seen, name=name: world.seen(name, *seen))
            for name, inner in world.inner.items()
        }
        self._world = world
        self._number = number
        self.task = self.process.run(self._main)

    async def _main(self) -> None:
        world = self._world
        entries: Any = {
            name: {
                "url": f"http://{'scripted' if name == 'safe' else name}/mcp",
                "http_transport": each,
                "mode": world.scripts[name].era,
            }
            for name, each in self.servers.items()
        }
        for entry in entries.values():
            entry["mode"] = "legacy" if entry["mode"] == "legacy" else "auto"
        entries["safe"]["auth"] = self._login()
        clock = virtual_clock(world.seed * 1000 + self._number)
        links = MemoryLinks(world.network, self.process)
        access: Any = AccessSettings(keys=self.keys)  # type: ignore[arg-type]
        async with Manager(entries, clock=clock) as manager:
            self.app = App(
                manager,
                settings=Settings(access=access),
                store=self.store,
                ring=world.ring,
                fleet=FleetSettings("10.0.0.1", 0, NETWORKS, links),
            )
            async with self.app:
                self.accepting = True
                self.started.set()
                await self.stop.wait()
                # As `serve` does at SIGTERM: no new connections here, and what is in flight has 30 s.
                self.app.drain()
                self.accepting = False
                with anyio.move_on_after(30):
                    while world.network.serves(self.process):  # noqa: ASYNC110 - as uvicorn does
                        await anyio.sleep(0.1)
        world.network.cut(self.process)

    def _login(self) -> OAuthClientProvider:
        """The login that all replicas share, at the server that asks for one."""
        sealer = self._world.ring.sealer("login")
        storage = PrincipalTokens(self.store, sealer, principal=Principal("all"), server="safe", url=f"{ORIGIN}/mcp")
        return OAuthClientProvider(f"{ORIGIN}/mcp", LOGIN, storage)

    def kill(self) -> None:
        self.accepting = False
        self.process.kill()
        self._world.network.cut(self.process)

    async def bury(self) -> None:
        """End the tasks of one that was killed, or is still there at the end."""
        self.process.dead = True
        self.process.wake()
        self.task.cancel()
        with anyio.move_on_after(60):
            while not self.task.done():  # noqa: ASYNC110 - a task of asyncio's
                await anyio.sleep(0.5)


class World:
    """Everything there is."""

    def __init__(self, minute: Minute, troubles: Sequence[str]) -> None:
        self.minute = minute
        self.troubles = troubles
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
        self.present_keys = {f"c{number}": f"mck_key{number}" for number in range(CLIENTS)}
        self.scripts = {"old": self._script("old", "legacy"), "new": self._script("new", "modern")}
        self.scripts["safe"] = self._script("safe", "modern")
        self.inner: dict[str, httpx2.AsyncBaseTransport] = {
            name: ScriptTransport(script) for name, script in self.scripts.items()
        }
        self.logins = Logins(expires_in=8)
        self.inner["safe"] = SlowToAnswer(self.logins, ScriptTransport(self.scripts["safe"]))
        await self._log_in()
        self.replicas: list[Replica] = []
        self.buried: list[Replica] = []
        async with anyio.create_task_group() as group:
            group.start_soon(self.shared.keep_copies)
            for _ in range(REPLICAS):
                await self._start()
            self.clients = [self._client(number) for number in range(CLIENTS)]
            until = anyio.current_time() + SECONDS
            async with anyio.create_task_group() as living:
                for client in self.clients:
                    living.start_soon(client.live, until, self.scripts)
                async with anyio.create_task_group() as troubles:
                    for number in range(random.randint(2, 4)):
                        troubles.start_soon(self._trouble, Random(f"{self.seed} trouble {number}"))
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

    async def _log_in(self) -> None:
        store = FaultyStore(self.shared, Process("login"), Random(0))
        sealer = self.ring.sealer("login")
        storage = PrincipalTokens(store, sealer, principal=Principal("all"), server="safe", url=f"{ORIGIN}/mcp")
        await storage.set_client_info(OAuthClientInformationFull(client_id="c", issuer=ORIGIN))
        await storage.set_tokens(OAuthToken.model_validate(self.logins.issue()))

    async def _start(self) -> Replica:
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

        name = f"c{number}"
        transport = AppTransport(self.network, choose)
        return Client(name, self.present_keys[name], random.choice((LEGACY, MODERN)), random, transport, lambda: taken)

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

    # -- what goes wrong

    async def _trouble(self, random: Random) -> None:
        await anyio.sleep(random.uniform(1, SECONDS * 0.8))
        what = random.choice(self.troubles)
        self.minute.troubles[what] += 1
        found = [each for each in self.replicas if each.accepting and not each.process.paused]
        if not found:
            return
        one = random.choice(found)
        self._tell(f"{what} {one.process.name}")
        seconds = random.choice((0.5, 2, 4, 8))
        await getattr(self, f"_{what.replace(' ', '_')}")(one, seconds, random)
        self._tell(f"{what} {one.process.name}: over")

    def _tell(self, words: str) -> None:
        self.trace.append(f"{anyio.current_time():.2f} {words}")

    async def _kill(self, one: Replica, seconds: float, random: Random) -> None:
        one.kill()
        self.replicas.remove(one)
        self.buried.append(one)
        await anyio.sleep(seconds)
        await self._start()

    async def _pause(self, one: Replica, seconds: float, random: Random) -> None:
        one.process.pause()
        await anyio.sleep(seconds)
        if not one.process.dead:
            one.process.wake()

    async def _retire(self, one: Replica, seconds: float, random: Random) -> None:
        await self._start()
        one.stop.set()
        # The balancer sees at its next look that it does not accept.
        self.replicas.remove(one)
        self.buried.append(one)
        await anyio.sleep(seconds)

    async def _store_away(self, one: Replica, seconds: float, random: Random) -> None:
        one.store.away = True
        await anyio.sleep(seconds)
        one.store.away = False

    async def _store_away_for_all(self, one: Replica, seconds: float, random: Random) -> None:
        stores = [each.store for each in self.replicas]
        for store in stores:
            store.away = True
        await anyio.sleep(seconds)
        for store in stores:
            store.away = False

    async def _store_mute(self, one: Replica, seconds: float, random: Random) -> None:
        one.store.mute = True
        await anyio.sleep(seconds)
        one.store.mute = False

    async def _store_slow(self, one: Replica, seconds: float, random: Random) -> None:
        stores = [each.store for each in self.replicas]
        for store in stores:
            store.latency = 1.0
        await anyio.sleep(seconds)
        for store in stores:
            store.latency = 0.0005

    async def _failover(self, one: Replica, seconds: float, random: Random) -> None:
        stores = [each.store for each in self.replicas]
        for store in stores:
            store.away = True
        self.shared.fail_over(random)
        await anyio.sleep(random.choice((0.1, 1, 2)))
        for store in stores:
            store.away = False

    async def _links(self, one: Replica, seconds: float, random: Random) -> None:
        self.network.apart.add(one.process)
        self.network.cut_links(one.process)
        await anyio.sleep(seconds)
        self.network.apart.discard(one.process)

    async def _server_down(self, one: Replica, seconds: float, random: Random) -> None:
        name = random.choice(list(self.scripts))
        hit = [each.servers[name] for each in self.replicas]
        for transport in hit:
            transport.down = True
        await anyio.sleep(seconds)
        for transport in hit:
            transport.down = False

    async def _server_forgets(self, one: Replica, seconds: float, random: Random) -> None:
        self.scripts["old"].forget_sessions()
        # All replicas find out at once that they need another token.
        self.logins.revoke_access()

    async def _revoke(self, one: Replica, seconds: float, random: Random) -> None:
        if self.revoked:
            return
        name = f"c{random.randrange(CLIENTS)}"
        one.keys.remove(name)
        self.revoked[name] = anyio.current_time()


@contextmanager
def _quiet() -> Iterator[None]:
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(before)


def live_through(seed: int, *, troubles: Sequence[str] = TROUBLES, loud: bool = False) -> Minute:
    """Simulate a minute.

    Args:
        seed: Where everything comes from.
        troubles: What can happen.
        loud: Leave the log on.

    Raises:
        PromiseBroken: a promise was broken.
    """
    minute = Minute(seed)
    world = World(minute, troubles)
    with clocks_of_processes(seed):
        try:
            if loud:
                anyio.run(world.run, backend="asyncio", backend_options={"loop_factory": ProcessLoop})
            else:
                with _quiet():
                    anyio.run(world.run, backend="asyncio", backend_options={"loop_factory": ProcessLoop})
        except Exception as error:
            raise PromiseBroken(seed, error, world.trace) from error
    return minute
