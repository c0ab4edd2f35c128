"""One replica of the gateway, as a process that can be paused and killed."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from random import Random
from typing import TYPE_CHECKING, Any

import anyio

from mcpconn import Manager
from mcpconn.gateway import App, Settings
from mcpconn.gateway.access.config import AccessSettings
from mcpconn.gateway.access.credentials import Identity, Refused
from mcpconn.gateway.access.keys import hash_of, principal_of_key
from mcpconn.gateway.fleet.config import FleetSettings
from mcpconn.testing.clock import virtual_clock
from tests.simulated_fleet.links import MemoryLinks
from tests.simulated_fleet.logins import provider
from tests.simulated_fleet.network import ServerTransport
from tests.simulated_fleet.processes import Process
from tests.simulated_fleet.store import FaultyStore

if TYPE_CHECKING:
    from tests.simulated_fleet.world import World

NETWORKS = (ipaddress.ip_network("10.0.0.0/8"),)


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
        entries["safe"]["auth"] = provider(self.store, world.ring)
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
