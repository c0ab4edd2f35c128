"""What a store can be trusted with: whether it keeps what it was given, and whether it may have lost some of it.

Redis is asked at the start and every few seconds. A store that evicts records, or that keeps them in memory alone, gets
no mark of a refresh and no ledger: both promise that something is still known later. A primary that took over from
another may lack what that one wrote last. Its replication id is another one then, and a new *epoch* begins: for a while
what is missing may have been lost, and is not taken for what never was.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Facts:
    """What the primaries of a store say of themselves."""

    persists: bool
    """Each writes everything to an append-only file."""
    each_write: bool
    """And has it on the disk before it answers (`appendfsync always`)."""
    evicts: bool
    """One drops keys when its memory is full."""
    replicas: int
    """Connected replicas, of the primary with the fewest."""
    ids: tuple[str, ...]
    """Their replication ids."""
    full: bool = False
    """One has used all the memory that it may, and evicts nothing: it takes no writes."""

    @classmethod
    def of(cls, primaries: Sequence[dict[str, str]]) -> Facts:
        """From INFO and CONFIG GET of each primary."""
        return cls(
            persists=all(each.get("aof_enabled") == "1" for each in primaries),
            each_write=all(each.get("appendfsync") == "always" for each in primaries),
            evicts=any(_evicts(each) for each in primaries),
            replicas=min(int(each.get("connected_slaves", 0)) for each in primaries),
            ids=tuple(each.get("master_replid", "") for each in primaries),
            full=any(_full(each) for each in primaries),
        )

    @property
    def unfit(self) -> str | None:
        """Why the store gets no mark and no ledger; None if it may have them."""
        if self.evicts:
            return "it evicts keys when its memory is full (set maxmemory-policy noeviction)"
        if not self.persists:
            return "it keeps nothing over a restart (set appendonly yes)"
        return None

    @property
    def safe(self) -> bool:
        """Whether a restart loses nothing, and nobody else can take over with less."""
        return self.persists and self.each_write and not self.evicts and self.replicas == 0 and len(self.ids) == 1

    @property
    def copies(self) -> int:
        """Replicas that must have a durable write: with the primary, a majority."""
        return (self.replicas + 1) // 2


def _full(said: dict[str, str]) -> bool:
    limit = int(said.get("maxmemory", 0))
    return 0 < limit <= int(said.get("used_memory", 0)) and not _evicts(said)


def _evicts(said: dict[str, str]) -> bool:
    policy = said.get("maxmemory-policy", said.get("maxmemory_policy", "noeviction"))
    # Without a limit nothing is evicted, whatever the policy. All keys here expire, so `volatile-*` evicts them too.
    return policy != "noeviction" and said.get("maxmemory", "0") != "0"


@dataclass(frozen=True)
class Standing:
    """How a store is now."""

    away: str | None = None
    """Why it cannot be reached; None while it can."""
    unfit: str | None = None
    """Why it gets no mark and no ledger."""
    epoch: str = ""
    """Changes when something may have been lost; "" for a store of which that cannot be."""
    began: float = -math.inf
    """When the epoch began, by this process's monotonic clock, if something may have been lost then."""
    note: str | None = None
    """What else a person should know of it."""

    def doubtful(self, ttl: float) -> bool:
        """Whether what is missing now may be something lost, which would not have expired yet.

        Args:
            ttl: Seconds for which such a record is kept.
        """
        return time.monotonic() < self.began + ttl

    @property
    def degraded(self) -> str | None:
        """What is wrong, for people; None if nothing is."""
        if self.away is not None:
            return self.away
        if self.unfit is not None:
            return f"no ledger and no refresh of logins, because {self.unfit}"
        return self.note


FINE = Standing()
"""Of a store that cannot be away and loses nothing."""
