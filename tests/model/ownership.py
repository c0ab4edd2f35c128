"""A small model of ownership in a fleet, searched exhaustively.

Two replicas, one session, one store. A replica may stop between any two steps and go on later: that is a pause, and no
step of its own. A store's lease ends only after its holder's clock says so, because the holder counts from before it
asked. Everything else may happen in any order.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

WRITER_HOLDS_THE_LEASE = "whoever writes to a server holds its lease at the moment in which it looks"
ONE_OWNER = "of two replicas that may write for a session, one at most is its owner"
SESSIONS_ARE_NOT_SHARED = "no two replicas write on one upstream session"
ANSWERS_COUNT_UNDER_THE_LEASE = "an answer is given only by a replica that holds its lease when the answer has come"
INVARIANTS = (WRITER_HOLDS_THE_LEASE, ONE_OWNER, SESSIONS_ARE_NOT_SHARED, ANSWERS_COUNT_UNDER_THE_LEASE)

GENERATIONS = (2, 1)
"""Times that each replica may join: the first one may come back."""
SESSIONS = 2
"""Upstream sessions that may be opened."""
REPLICAS = "AB"


@dataclass(frozen=True)
class Rules:
    """What replicas keep to; each can be left out."""

    checks_before: bool = True
    """A write is made only within the lease, by the clock."""
    checks_after: bool = True
    """An answer is given only within the lease."""
    opens_its_own: bool = True
    """A successor opens an upstream session of its own, instead of using the one that is in the store."""
    looks_at_the_lease: bool = True
    """Nothing is taken from a replica that holds its lease."""
    compares: bool = True
    """A session is taken only if its record is still the one that was read."""
    drops: bool = True
    """A replica that has lost its lease drops what it held."""
    gives_up_first: bool = True
    """A holder counts its lease from before it asked for it."""


@dataclass(frozen=True)
class Replica:
    generation: int = 0
    joined: bool = False
    clock: bool = False
    """By its clock, its lease goes on."""
    seen: int | None = None
    """The number of the record that it read, and is about to replace."""
    mine: int | None = None
    """The number under which it owns the session according to itself."""
    upstream: int | None = None
    looked: bool = False
    """It has looked at its lease, and writes next."""
    waits: bool = False
    """It has written, and its answer comes next."""


@dataclass(frozen=True)
class World:
    replicas: tuple[Replica, ...] = (Replica(), Replica())
    leases: frozenset[tuple[int, int]] = frozenset()
    """Replica and generation, in the store."""
    owner: tuple[int, int] | None = None
    number: int = 0
    """Of the record; it grows."""
    noted: int | None = None
    """The upstream session that the store knows of."""
    opened: int = 0
    ended: frozenset[int] = frozenset()
    """Upstream sessions that were ended."""
    writers: frozenset[tuple[int, int]] = frozenset()
    """Upstream session and replica, for each write that ran."""


@dataclass(frozen=True)
class Step:
    words: str
    after: World
    broken: str | None = None


class Model:
    """What can happen."""

    def __init__(self, rules: Rules = Rules()) -> None:
        self._rules = rules

    def steps(self, world: World) -> Iterator[Step]:
        for index, own in enumerate(world.replicas):
            yield from self._lease(world, index, own)
            if own.mine is None:
                yield from self._taking(world, index, own)
            else:
                yield from self._writing(world, index, own)

    def _lease(self, world: World, index: int, own: Replica) -> Iterator[Step]:
        name, lease = REPLICAS[index], (index, own.generation)
        held = lease in world.leases
        if own.clock:
            yield Step(f"{name}'s clock passes the end of its lease", _with(world, index, clock=False))
        if held and (not own.clock or not self._rules.gives_up_first):
            yield Step(f"{name}'s lease ends in the store", replace(world, leases=world.leases - {lease}))
        if held:
            yield Step(f"{name} renews its lease", _with(world, index, clock=True))
        elif own.joined:
            kept = {} if self._rules.drops else {"mine": own.mine, "upstream": own.upstream}
            after = _with(world, index, fresh=True, generation=own.generation + 1, **kept)
            yield Step(f"{name} finds that it has lost its lease", after)
        elif own.generation < GENERATIONS[index]:
            joined = _with(world, index, clock=True, joined=True)
            yield Step(f"{name} joins", replace(joined, leases=world.leases | {lease}))

    def _taking(self, world: World, index: int, own: Replica) -> Iterator[Step]:
        name = REPLICAS[index]
        if not own.clock:
            return
        if own.seen is None:
            if world.owner is None or world.owner not in world.leases or not self._rules.looks_at_the_lease:
                yield Step(f"{name} finds no owner", _with(world, index, seen=world.number))
            return
        if own.seen != world.number and self._rules.compares:
            yield Step(f"{name} is too late to take it", _with(world, index, seen=None))
            return
        upstream = None if self._rules.opens_its_own else world.noted
        after = _with(world, index, seen=None, mine=world.number + 1, upstream=upstream)
        after = replace(after, owner=(index, own.generation), number=world.number + 1)
        yield Step(f"{name} takes it", after, self._two_owners(after))
        if world.noted is not None and self._rules.opens_its_own:
            ended = replace(after, ended=world.ended | {world.noted})
            yield Step(f"{name} takes it, and ends the upstream session", ended, self._two_owners(ended))

    def _writing(self, world: World, index: int, own: Replica) -> Iterator[Step]:
        name, held = REPLICAS[index], (index, own.generation) in world.leases
        if own.upstream is None:
            if world.opened >= SESSIONS:
                return
            if world.number != own.mine:
                # What it would note is compared with what it read, so that it sees that it is no longer the owner.
                yield Step(f"{name} finds that another has taken it", _with(world, index, mine=None))
                return
            opened = _with(world, index, upstream=world.opened)
            yield Step(
                f"{name} opens an upstream session", replace(opened, opened=world.opened + 1, noted=world.opened)
            )
        elif own.waits:
            if own.clock or not self._rules.checks_after:
                broken = None if held else ANSWERS_COUNT_UNDER_THE_LEASE
                yield Step(f"{name} gives the answer", _with(world, index, waits=False), broken)
        elif own.looked:
            if own.upstream in world.ended:
                yield Step(f"{name}'s write gets a 404", _with(world, index, looked=False, upstream=None))
                return
            writers = world.writers | {(own.upstream, index)}
            shared = len([each for each in writers if each[0] == own.upstream]) > 1
            after = replace(_with(world, index, looked=False, waits=True), writers=writers)
            yield Step(f"{name} writes", after, SESSIONS_ARE_NOT_SHARED if shared else None)
        elif own.clock or not self._rules.checks_before:
            broken = None if held else WRITER_HOLDS_THE_LEASE
            yield Step(f"{name} looks at its lease", _with(world, index, looked=True), broken)

    def _two_owners(self, world: World) -> str | None:
        owners = [
            index
            for index, each in enumerate(world.replicas)
            if each.mine is not None and each.clock and (index, each.generation) in world.leases
        ]
        return ONE_OWNER if len(owners) > 1 else None


def _with(world: World, index: int, *, fresh: bool = False, **changes: object) -> World:
    """The world with another state of one replica."""
    before = Replica() if fresh else world.replicas[index]
    replicas = list(world.replicas)
    replicas[index] = replace(before, **changes)  # type: ignore[arg-type]
    return replace(world, replicas=tuple(replicas))
