"""This replica's lease: it tells the others that this process is running, and where it listens.

Everything that a replica owns depends on this one lease, so owning ten thousand sessions costs one renewal a second. A
replica that has lost its lease no longer owns anything: it drops what it holds, and joins again under a new name.

A replica that was paused cannot know that it lost the lease except by its clock. So `check` is asked immediately before
each write to a server: within the lease it costs nothing; after it, the store decides. While the store is unreachable
no replica can take anything over, and the replica goes on with what it has: but only as long as it has just seen that
the store is away, because a replica that was paused may have slept through the store's return.
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import anyio

from mcpconn.gateway.store import Key, Store, StoreUnavailable
from mcpconn.gateway.store.lease import Lease, Leases
from mcpconn.observe import log
from mcpconn.seal import NotSealedHere, Sealer

TTL = 3.0
"""Seconds after which a replica that does not renew its lease counts as gone; as in the ledger."""
RENEWALS = 3
"""Renewals in that time: two may fail."""
FRESH = 2 * TTL / RENEWALS
"""Seconds for which it counts that the store was seen to be away."""
PATIENCE = 1.0
"""Seconds for which a request waits for a renewal. A store that does not answer one in that time counts as away: calls
that need nothing of the store must not wait for it, and one request to it may take 10 s."""
SKEW = 0.01
"""Part of the lease that its holder gives up early: quartz clocks differ by far less."""


class OwnershipLost(Exception):
    """What this replica holds may be another's by now."""

    def __init__(self, *, sent: bool = False) -> None:
        """
        Args:
            sent: The request went out before that was seen.
        """
        what = "It is not known whether it ran." if sent else "It was not sent."
        super().__init__(f"This replica of the gateway has lost its hold on the session. {what}")
        self.sent = sent
        self.told = "unknown" if sent else "not_run"


@dataclass(frozen=True)
class Replica:
    """A replica, as the others see it."""

    name: str
    address: str
    """`HOST:PORT` of its listener."""
    asks: bool = False
    """It asks for the go-ahead of a call; see `go_ahead`. A replica of an earlier version does not, so that nothing can
    be concluded from a missing question."""


def boot_time() -> float:
    """Monotonic seconds that go on while the machine sleeps, as the store's do."""
    clock = getattr(time, "CLOCK_BOOTTIME", None)
    return time.monotonic() if clock is None else time.clock_gettime(clock)


class Membership:
    """This replica's membership of the fleet."""

    def __init__(self, store: Store, sealer: Sealer, address: str) -> None:
        """
        Args:
            store: Where leases are.
            sealer: Seals the address.
            address: `HOST:PORT` of this replica's listener.
        """
        self._store = store
        self._sealer = sealer
        self._address = address
        self._leases = Leases(store, now=boot_time)
        self._lease: Lease | None = None
        self._lock = anyio.Lock()
        self._away_at = float("-inf")
        self._left = False
        self._keeping = False
        self._wanted, self._renewed = anyio.Event(), anyio.Event()
        self.name = secrets.token_hex(8)
        """This replica's name, until it loses its lease."""
        self.lost: Callable[[], Awaitable[None]] = _nothing
        """Called when the lease was lost, before the replica joins again: drops what it held."""

    @property
    def joined(self) -> bool:
        """Whether the lease was taken, and was not lost since."""
        return self._lease is not None

    @property
    def may_write(self) -> bool:
        """Whether what this replica holds is its own now, as far as can be said without asking the store."""
        now = boot_time()
        if now < self._away_at + FRESH:
            return True
        lease = self._lease
        return lease is not None and lease.held and now < lease.until - SKEW * TTL

    async def check(self, name: str) -> None:
        """Return if what was begun under a name of this replica's may be written now.

        Args:
            name: The replica's name when it took what it writes for.

        Raises:
            OwnershipLost: the lease was lost.
        """
        await self.settle()
        if name != self.name or not self.may_write:
            raise OwnershipLost

    async def settle(self) -> None:
        """Return when it is known whether what this replica holds is its own: within its lease at once.

        After that a renewal decides, or that the store does not answer one in time. The renewal itself is not given up
        then: the store may have it already, and its answer has the version that the next one needs.
        """
        if self.may_write:
            return
        if not self._keeping:
            await self.renew()
            return
        asked = self.name
        with anyio.move_on_after(PATIENCE) as waited:
            # A renewal that this process slept through ends late; then the next one is waited for.
            while not self._settled(asked):
                self._wanted.set()
                await self._renewed.wait()
        if waited.cancelled_caught:
            self._away_at = boot_time()

    def _settled(self, asked: str) -> bool:
        return self.may_write or self._left or asked != self.name

    async def keep(self) -> None:
        """Keep the lease for as long as this runs."""
        self._keeping = True
        try:
            while not self._left:
                # Counted from the beginning of each: with a slow store the lease would end in between.
                next_at = anyio.current_time() + TTL / RENEWALS
                self._wanted = anyio.Event()
                await self.renew()
                self._renewed.set()
                self._renewed = anyio.Event()
                with anyio.move_on_after(next_at - anyio.current_time()):
                    await self._wanted.wait()
        finally:
            self._keeping = False
            self._renewed.set()

    async def renew(self) -> None:
        """Renew the lease, or join if there is none. If it was lost, what was held under it is dropped first."""
        asked = self.name
        async with self._lock:
            if asked != self.name or self._left:
                return
            try:
                if self._lease is None:
                    self._lease = await self._leases.take(self.key(self.name), self._sealed().encode("ascii"), ttl=TTL)
                elif not await self._leases.renew(self._lease, ttl=TTL):
                    self._lease, self.name = None, secrets.token_hex(8)
                    log.warning("gateway.fleet_lease_lost", replica=asked)
                    await self.lost()
                    return
                self._away_at = float("-inf")
            except StoreUnavailable as error:
                self._away_at = boot_time()
                log.warning("gateway.store_unavailable", error=str(error))

    async def leave(self) -> None:
        """Release the lease, so that other replicas can take over at once."""
        self._left = True
        async with self._lock:
            if self._lease is not None:
                try:
                    await self._leases.release(self._lease)
                except StoreUnavailable:
                    return

    async def find(self, name: str) -> Replica | None:
        """Another replica; None if it is gone, or if what the store says of it was not written by one of us.

        Raises:
            StoreUnavailable: it cannot be known.
        """
        record = await self._store.get(self.key(name))
        if record is None:
            return None
        try:
            said = json.loads(self._sealer.open(record.value.decode("ascii", "replace"), name))
            return Replica(name, said["at"], asks=said.get("asks") is True)
        except NotSealedHere:
            log.error("gateway.fleet_record_forged", replica=name)
            return None

    def _sealed(self) -> str:
        return self._sealer.seal(json.dumps({"at": self._address, "asks": True}).encode(), self.name)

    @staticmethod
    def key(name: str) -> Key:
        """Where a replica's lease is."""
        return Key(f"replica/{name}", "lease")


async def _nothing() -> None:
    """Nothing is held."""
