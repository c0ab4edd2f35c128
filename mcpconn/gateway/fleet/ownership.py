"""Which replica owns a session: a record that names the replica, changed by compare-and-set only.

    (none) --take--> R1        the first to serve it
    R1 --R1's lease has ended, take over--> R2
    R1 --release--> (none)     put away, deleted, or R1 is being stopped

The record's version is the fencing number. What is owned has a key: `session/SID` for a legacy session with its
upstream sessions, `principal/DIGEST` for what a principal's modern clients share at servers that keep state.
"""

from __future__ import annotations

import json
from collections import OrderedDict
from dataclasses import dataclass

from mcpconn.gateway.clients.session_ids import LIFETIME
from mcpconn.gateway.fleet.membership import Membership, Replica
from mcpconn.gateway.store import Key, Store, StoreUnavailable
from mcpconn.observe import log
from mcpconn.seal import NotSealedHere, Sealer

TTL = LIFETIME + 86_400.0
"""Seconds that a record is kept: longer than a session's id is good, so that no record ends under its owner."""
KNOWN = 50_000
"""Sessions of other replicas whose owner is remembered, so that a request costs no look at the store."""


@dataclass(frozen=True)
class Owner:
    """Who owns something, and under which number."""

    key: str
    replica: Replica
    number: int
    mine: bool
    taken: bool = False
    """It was taken just now: what its last owner had open is to be ended first."""


class Ownership:
    """What this replica owns, and what it knows about the others."""

    def __init__(self, store: Store, membership: Membership, sealer: Sealer) -> None:
        """
        Args:
            store: Where the records are.
            membership: This replica's, and the others' leases.
            sealer: Seals records: what was not written by a replica counts as nothing.
        """
        self._store = store
        self._membership = membership
        self._sealer = sealer
        self._mine: dict[str, Owner] = {}
        self._theirs: OrderedDict[str, Owner] = OrderedDict()
        self.leaving = False
        """This replica is being stopped: it takes nothing for which it knows another replica."""

    def mine(self, key: str) -> Owner | None:
        """What this replica owns under a key."""
        return self._mine.get(key)

    async def find(self, key: str) -> Owner:
        """The owner; this replica, if there was none or it is gone.

        Raises:
            StoreUnavailable: it cannot be known.
        """
        # A replica that was paused: what it holds according to itself may be another's by now.
        await self._membership.settle()
        known = self._mine.get(key) or self._theirs.get(key)
        if known is not None:
            return known
        place = self.place(key)
        while True:
            me = self._membership.name
            if not self._membership.joined:
                await self._membership.renew()
                if not self._membership.joined:
                    raise StoreUnavailable("this replica could not join the fleet")
            record = await self._store.get(place)
            holder = None if record is None else self._holder(key, record.value)
            if record is not None and holder == me:
                return self._took(Owner(key, Replica(me, ""), record.version, mine=True, taken=True))
            replica = None if holder is None else await self._membership.find(holder)
            if record is not None and replica is not None:
                return self._remember(Owner(key, replica, record.version, mine=False))
            heir = await self._heir() if self.leaving else None
            value = self._sealed(key, me if heir is None else heir.name)
            if record is None:
                number = await self._store.add(place, value, ttl=TTL)
            else:
                number = await self._store.swap(place, record.version, value, ttl=TTL)
            if number is None:
                # Another was faster: look who.
                continue
            if heir is not None:
                return self._remember(Owner(key, heir, number, mine=False))
            if me != self._membership.name:
                # The lease was lost meanwhile; the record names a replica that is gone, and is taken over as such.
                continue
            return self._took(Owner(key, Replica(me, ""), number, mine=True, taken=True))

    async def _heir(self) -> Replica | None:
        """Another replica that runs; None if none is known."""
        for name in {owner.replica.name for owner in reversed(self._theirs.values())}:
            if (replica := await self._membership.find(name)) is not None:
                return replica
        return None

    async def accept(self, key: str, number: int) -> Owner | None:
        """Take what another replica has made over to this one; None if it has not.

        Raises:
            StoreUnavailable: it cannot be known.
        """
        record = await self._store.get(self.place(key))
        if record is None or record.version != number or self._holder(key, record.value) != self._membership.name:
            return None
        return self._took(Owner(key, Replica(self._membership.name, ""), number, mine=True, taken=True))

    async def confirmed(self, key: str) -> bool:
        """Whether the store, too, has this replica as the owner."""
        own, record = self._mine.get(key), await self._store.get(self.place(key))
        return own is not None and record is not None and record.version == own.number

    def forget(self, owner: Owner) -> None:
        """What was known of another's ownership turned out to be over."""
        if self._theirs.get(owner.key) == owner:
            del self._theirs[owner.key]

    def superseded(self, key: str, number: int) -> bool:
        """Another replica knows of a later owner than this one. Whether this one owned it until now."""
        own = self._mine.get(key)
        if own is None or number <= own.number:
            return False
        del self._mine[key]
        return True

    async def release(self, key: str) -> None:
        """Give up ownership, if this replica has it. Never raises: a remaining record is taken over later."""
        own = self._mine.pop(key, None)
        if own is not None:
            try:
                await self._store.delete(self.place(key), version=own.number)
            except StoreUnavailable as error:
                log.debug("gateway.fleet_not_released", error=str(error))

    def drop_all(self) -> list[str]:
        """The lease was lost: nothing is this replica's any more. Returns the keys of what was."""
        lost = list(self._mine)
        self._mine.clear()
        return lost

    @property
    def keys(self) -> list[str]:
        """The keys of what this replica owns."""
        return list(self._mine)

    @staticmethod
    def place(key: str) -> Key:
        """Where the record of a key is."""
        return Key(key, "owner")

    def _took(self, owner: Owner) -> Owner:
        # A later request is not told again that it was taken over.
        self._mine[owner.key] = Owner(owner.key, owner.replica, owner.number, mine=True)
        return owner

    def _remember(self, owner: Owner) -> Owner:
        self._theirs[owner.key] = owner
        while len(self._theirs) > KNOWN:
            self._theirs.popitem(last=False)
        return owner

    def _sealed(self, key: str, name: str) -> bytes:
        return self._sealer.seal(json.dumps({"replica": name}).encode(), key).encode("ascii")

    def _holder(self, key: str, value: bytes) -> str | None:
        try:
            return str(json.loads(self._sealer.open(value.decode("ascii", "replace"), key))["replica"])
        except NotSealedHere:
            log.error("gateway.fleet_record_forged", key=key)
            return None
