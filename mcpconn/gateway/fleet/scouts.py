"""While a server refuses, one replica dials it in each second, and tells the others when it is back."""

from __future__ import annotations

from hashlib import sha256
from typing import Any

import anyio

from mcpconn.gateway.store import Key, Store, StoreUnavailable
from mcpconn.observe import log
from mcpconn.runtime.dials import Dials

INTERVAL = 1.0
"""Seconds for which the lease of a scout lasts. It is not given back: that is what spaces the dials."""
PATIENCE = 0.5
"""Seconds that a dial waits for the store; then it is made, as without a fleet."""
AGAIN = 1.0
"""Seconds after which a subscription is tried again."""
CHANNEL = "origins"
"""Where replicas tell each other that a server is back."""


class FleetScouts:
    """The dials of all replicas."""

    def __init__(self, store: Store, dials: Dials) -> None:
        """
        Args:
            store: Shared by all replicas.
            dials: Those of this one.
        """
        self._store = store
        self._dials = dials

    async def may_scout(self, origin: str) -> bool:
        """Whether this replica dials a server that refuses in this second. If the store is away: yes."""
        name = sha256(origin.encode("utf-8", "surrogatepass")).hexdigest()
        taken: Any = True
        try:
            with anyio.move_on_after(PATIENCE):
                taken = await self._store.add(Key(f"scout/{name}", "lease"), b"", ttl=INTERVAL)
        except StoreUnavailable:
            return True
        return taken is not None

    async def returned(self, origin: str) -> None:
        """A server is back: the other replicas need not wait for their turn."""
        try:
            with anyio.move_on_after(PATIENCE):
                await self._store.publish(CHANNEL, origin.encode("utf-8", "surrogatepass"))
        except StoreUnavailable as error:
            log.debug("gateway.fleet_not_told", error=str(error))

    async def listen(self) -> None:
        """Hear of servers that are back, for as long as this runs."""
        while True:
            try:
                async with self._store.subscribe(CHANNEL) as hints:
                    async for hint in hints:
                        self._dials.returned_elsewhere(hint.decode("utf-8", "surrogatepass"))
            except StoreUnavailable:
                await anyio.sleep(AGAIN)
