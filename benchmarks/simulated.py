"""Ten thousand connections of one manager lose their servers for ten minutes, in virtual time.

Everything but the wire is the real thing: manager, supervisors, pace, gates, limits, journal. A dial takes as
long as a handshake over a wide-area network does, or is refused; nothing is sent.

Python's garbage collector runs less often meanwhile, as in a gateway's process (`mcpconn.gateway.http.garbage`). With
its own thresholds it looks at the objects of ten thousand connections again and again, for a third of the time, and
finds nothing: a dial leaves no cycles.
"""

from __future__ import annotations

import gc
import time
from bisect import bisect_right
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import anyio
from mcp_types import ServerCapabilities

from benchmarks.measure import Report, span
from mcpconn import Evidence, Manager, Policy, State
from mcpconn.core.attempt import Attempt
from mcpconn.core.failures import Phase
from mcpconn.core.stream import StreamRecord
from mcpconn.testing import clock

FLEET = 10_000
ORIGINS = 1_000
"""Hosts that they are spread over."""
HANDSHAKE = 1.0
"""Seconds: TLS, discover, initialize, initialized and the listings, at 200 ms a round trip."""
REFUSED = 0.05
"""Seconds until a connect is refused."""
OUTAGE = 600.0
POLICY = Policy()
COLLECTOR = (100_000, 50, 50)
"""Thresholds of the garbage collector during the simulation; Python's are 700, 10 and 10 (2,000 since 3.13)."""


class World:
    """All the servers, and what was asked of them."""

    def __init__(self) -> None:
        self.up = True
        self.dials: list[float] = []
        self.under_way = 0
        self.most = 0
        """Dials in progress at once, at the worst moment."""
        self.links: set[Link] = set()

    def go_down(self) -> None:
        """End every session at once."""
        self.up = False
        links, self.links = self.links, set()
        for link in links:
            link.ended = anyio.EndOfStream()
            link.idle_failure(Evidence(exception=link.ended, from_wire=False, phase="idle"))


class Refused(Exception):
    """A dial that came to nothing."""

    evidence = Evidence(exception=ConnectionRefusedError("refused"), written=False, phase="dial")


class Link:
    """A session without a server."""

    version = "2025-11-25"
    era = "legacy"
    client: Any = None
    server_info = session_id = pid = None
    forgettable = False
    capabilities = ServerCapabilities()
    probes = ("ping",)

    def __init__(self, idle_failure: Callable[[Evidence], None]) -> None:
        self.idle_failure = idle_failure
        self.stream = StreamRecord(lambda: 0.5)
        self.ended: BaseException | None = None
        self.doubt: Evidence | None = None
        self.ending = 0.0

    def new_attempt(self, phase: Phase) -> Attempt:
        """As every link does."""
        return Attempt(phase, "legacy")

    def restore_tools(self, tools: object) -> None:
        """Nothing to hand on."""

    def mark_lost(self) -> None:
        """Nothing to be kept from saying."""


class Dialer:
    """Dials in the world."""

    patience = progress = pid = None
    spent = False
    stderr = ()
    last_words = ""

    def __init__(self, world: World) -> None:
        self._world = world

    @asynccontextmanager
    async def open(self, idle_failure: Callable[[Evidence], None]) -> AsyncIterator[Link]:
        """A dial, and a session while the block lasts."""
        world = self._world
        world.dials.append(anyio.current_time())
        world.under_way += 1
        world.most = max(world.most, world.under_way)
        try:
            await anyio.sleep(HANDSHAKE if world.up else REFUSED)
        finally:
            world.under_way -= 1
        if not world.up:
            raise Refused
        link = Link(idle_failure)
        world.links.add(link)
        yield link
        world.links.discard(link)

    async def aclose(self) -> None:
        """Nothing is open."""


async def fleet(quick: bool) -> Report:
    """Not run in this loop, but in a virtual one."""
    count = FLEET // 10 if quick else FLEET
    began = time.perf_counter()
    with relaxed_collector():
        seen = await anyio.to_thread.run_sync(lambda: clock.run(_outage, count, seed=1))
    real = time.perf_counter() - began
    report = Report()
    bound = POLICY.dials
    minimum = count * HANDSHAKE / bound
    report.add(
        f"fleet of {count:,}, {OUTAGE / 60:.0f} minutes' outage: dials/s at the worst second after",
        seen["worst"],
        "",
        target=bound / HANDSHAKE * 1.05,
        note=f"the limit is {bound} at once, of {HANDSHAKE:g} s each; at most {seen['most']} were under way",
    )
    report.add(
        f"fleet of {count:,}: time until 99 % are ready, against what the limits allow",
        seen["ready_99"] / minimum,
        "x",
        target=2.0,
        note=f"{span(seen['ready_99'])} against {span(minimum)}; the first after {span(seen['ready_first'])}",
    )
    report.add(f"fleet of {count:,}: dials while the servers were away", seen["during"] / count, "a connection")
    report.add(
        f"fleet of {count:,}: real time of the simulation",
        real,
        "s",
        target=30.0,
        note=f"with thresholds of {', '.join(f'{each:,}' for each in COLLECTOR)} for the garbage collector",
    )
    report.series["fleet"] = seen["series"]
    return report


@contextmanager
def relaxed_collector() -> Iterator[None]:
    """For the block, collect less often, and nothing of what was there before."""
    before = gc.get_threshold()
    gc.collect()
    gc.freeze()
    gc.set_threshold(*COLLECTOR)
    try:
        yield
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()


async def _outage(count: int) -> dict[str, Any]:
    world = World()
    origins = max(1, count * ORIGINS // FLEET)
    config = {f"s{number}": {"url": f"http://host{number % origins}/mcp"} for number in range(count)}
    manager = Manager(config, policy=POLICY, clock=clock.virtual_clock(1))
    for connection in manager.values():
        connection._supervisor.dialling._dialer = Dialer(world)  # type: ignore[assignment]
    ready: list[float] = []

    async with manager:
        await manager.wait_ready()
        away = anyio.current_time()
        world.go_down()
        await anyio.sleep(OUTAGE)
        world.up = True
        back = anyio.current_time()
        manager.subscribe(lambda change: ready.append(anyio.current_time() - back) if _restored(change) else None)
        enough = int(count * 0.99)
        while len(ready) < enough and anyio.current_time() < back + 3600:  # noqa: ASYNC110 - virtual time
            await anyio.sleep(1)
        assert len(ready) >= enough, f"only {len(ready)} came back"
        after = Counter(int(at - back) for at in world.dials if at >= back)
        seconds = range(int(ready[enough - 1]) + 2)
        series = {
            "seconds": list(seconds),
            "dials": [after[second] for second in seconds],
            "ready": [bisect_right(ready, second) for second in seconds],
        }
    return {
        "worst": max(after.values()),
        "most": world.most,
        "ready_first": ready[0],
        "ready_99": ready[enough - 1],
        "during": sum(away <= at < back for at in world.dials),
        "series": series,
    }


def _restored(change: Any) -> bool:
    return bool(change.target is State.READY and change.source is State.RECONNECTING)


GROUPS: dict[str, Callable[[bool], Any]] = {"simulated": fleet}
