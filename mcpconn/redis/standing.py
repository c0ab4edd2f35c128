"""Which data a store may be trusted with: whether it keeps its records, and whether it may have lost some.

The server is examined at the start and every few seconds. If it evicts records, or keeps them only in memory, refresh
marks and the ledger are not stored in it, because both depend on records that are still there later. After a failover,
the new primary may lack the last writes of the old one. Its replication id differs, so a new *epoch* begins: for a
while a missing record may be a lost one, and must not be treated as never written.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Facts:
    """What the primaries of a store report."""

    persists: bool
    """Every primary writes everything to an append-only file."""
    each_write: bool
    """Every primary syncs each write to disk before it answers (`appendfsync always`)."""
    evicts: bool
    """At least one primary evicts keys when its memory is full."""
    replicas: int
    """Number of connected replicas of the primary that has the fewest."""
    ids: tuple[str, ...]
    """Their replication ids."""
    full: bool = False
    """At least one primary has reached its memory limit and evicts nothing, so it refuses writes."""

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
        """Why refresh marks and the ledger are not stored here; None if they are."""
        if self.evicts:
            return "it evicts keys when its memory is full (set maxmemory-policy noeviction)"
        if not self.persists:
            return "it keeps nothing over a restart (set appendonly yes)"
        return None

    @property
    def safe(self) -> bool:
        """Whether a restart loses nothing, and no replica with fewer records can take over."""
        return self.persists and self.each_write and not self.evicts and self.replicas == 0 and len(self.ids) == 1

    @property
    def copies(self) -> int:
        """Number of replicas that must acknowledge a durable write: with the primary, a majority."""
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
    """The current condition of a store."""

    away: str | None = None
    """Why it cannot be reached; None if it can."""
    unfit: str | None = None
    """Why refresh marks and the ledger are not stored in it."""
    epoch: str = ""
    """Changes when records may have been lost; "" for a store that loses none."""
    began: float = -math.inf
    """When the epoch began, by this process's monotonic clock, if records may have been lost then."""
    note: str | None = None
    """Further warnings for an operator."""
    other_keys: bool = False
    """Something was read lately that was not sealed with this process's keys."""

    def doubtful(self, ttl: float) -> bool:
        """Whether a missing record may have been lost, instead of expired or never written.

        Args:
            ttl: Seconds for which such records are kept.
        """
        return time.monotonic() < self.began + ttl

    @property
    def degraded(self) -> str | None:
        """What is wrong, for an operator; None if nothing is."""
        if self.away is not None:
            return self.away
        if self.unfit is not None:
            return f"no ledger and no refresh of logins, because {self.unfit}"
        return self.note


FINE = Standing()
"""The condition of a store that is always reachable and loses nothing."""
