"""What goes wrong in a fleet."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import TYPE_CHECKING

import anyio

from tests.simulated_fleet.replicas import Replica
from tests.simulated_fleet.store import FaultyStore

if TYPE_CHECKING:
    from tests.simulated_fleet.world import World

SECONDS = 20.0
"""How long clients make calls, and troubles begin."""
TROUBLES = (
    *("kill", "kill", "pause", "pause", "retire", "links", "server down", "server forgets", "revoke"),
    "server hangs",
    *("store away", "store away for all", "store slow", "store mute", "failover", "failover"),
)
"""What can happen, each as likely as it is often named."""


class Troubles:
    """Each takes a replica, so many seconds, and a source of choices."""

    def __init__(self, world: World, kinds: Sequence[str], seconds: float) -> None:
        self._world = world
        self._kinds = kinds
        self._seconds = seconds

    async def happen(self, random: Random) -> None:
        """Let one of them happen, some time."""
        await anyio.sleep(random.uniform(1, self._seconds * 0.8))
        what = random.choice(self._kinds)
        self._world.minute.troubles[what] += 1
        found = [each for each in self._world.replicas if each.accepting and not each.process.paused]
        if not found:
            return
        one = random.choice(found)
        self._tell(f"{what} {one.process.name}")
        seconds = random.choice((0.5, 2, 4, 8))
        await getattr(self, f"_{what.replace(' ', '_')}")(one, seconds, random)
        self._tell(f"{what} {one.process.name}: over")

    def _tell(self, words: str) -> None:
        self._world.trace.append(f"{anyio.current_time():.2f} {words}")

    async def _kill(self, one: Replica, seconds: float, random: Random) -> None:
        one.kill()
        self._world.replicas.remove(one)
        self._world.buried.append(one)
        await anyio.sleep(seconds)
        await self._world.start_replica()

    async def _pause(self, one: Replica, seconds: float, random: Random) -> None:
        one.process.pause()
        await anyio.sleep(seconds)
        if not one.process.dead:
            one.process.wake()

    async def _retire(self, one: Replica, seconds: float, random: Random) -> None:
        await self._world.start_replica()
        one.stop.set()
        # The balancer sees at its next look that it does not accept.
        self._world.replicas.remove(one)
        self._world.buried.append(one)
        await anyio.sleep(seconds)

    async def _store_away(self, one: Replica, seconds: float, random: Random) -> None:
        await self._away([one.store], seconds)

    async def _store_away_for_all(self, one: Replica, seconds: float, random: Random) -> None:
        await self._away([each.store for each in self._world.replicas], seconds)

    async def _away(self, stores: Sequence[FaultyStore], seconds: float) -> None:
        await self._for_a_while(stores, "away", seconds)

    @staticmethod
    async def _for_a_while(hit: Sequence[object], flag: str, seconds: float) -> None:
        for each in hit:
            setattr(each, flag, True)
        await anyio.sleep(seconds)
        for each in hit:
            setattr(each, flag, False)

    async def _store_mute(self, one: Replica, seconds: float, random: Random) -> None:
        await self._for_a_while([one.store], "mute", seconds)

    async def _store_slow(self, one: Replica, seconds: float, random: Random) -> None:
        stores = [each.store for each in self._world.replicas]
        for store in stores:
            store.latency = 1.0
        await anyio.sleep(seconds)
        for store in stores:
            store.latency = 0.0005

    async def _failover(self, one: Replica, seconds: float, random: Random) -> None:
        self._world.shared.fail_over(random)
        await self._away([each.store for each in self._world.replicas], random.choice((0.1, 1, 2)))

    async def _links(self, one: Replica, seconds: float, random: Random) -> None:
        self._world.network.apart.add(one.process)
        self._world.network.cut_links(one.process)
        await anyio.sleep(seconds)
        self._world.network.apart.discard(one.process)

    async def _server_down(self, one: Replica, seconds: float, random: Random) -> None:
        name = random.choice(list(self._world.scripts))
        await self._for_a_while([each.servers[name] for each in self._world.replicas], "down", seconds)

    async def _server_hangs(self, one: Replica, seconds: float, random: Random) -> None:
        name = random.choice(list(self._world.scripts))
        await self._for_a_while([each.servers[name] for each in self._world.replicas], "hangs", seconds)

    async def _server_forgets(self, one: Replica, seconds: float, random: Random) -> None:
        self._world.scripts["old"].forget_sessions()
        # All replicas find out at once that they need another token.
        self._world.logins.revoke_access()

    async def _revoke(self, one: Replica, seconds: float, random: Random) -> None:
        if self._world.revoked:
            return
        name = random.choice(self._world.clients).name
        one.keys.remove(name)
        self._world.revoked[name] = anyio.current_time()
