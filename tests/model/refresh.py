"""A model of how processes refresh a login that they share: small enough to be searched to its end.

Each step is one that another process, or a fault, can come in between: a read, a compare-and-set, the token on its way,
its answer. A pause is no step of its own, because every process may take its next step at any later time. `Rules` are
those of `mcpconn.auth.renewal`, `held` and `shared`; a test breaks each of them and sees the search find what follows.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

NOBODY = -1


@dataclass(frozen=True)
class Rules:
    """What a process does. The defaults are what the code does."""

    marks: bool = True
    """It writes a mark before it sends the refresh token."""
    compares: bool = True
    """It writes only if what is stored is what it has read."""
    heeds_marks: bool = True
    """It does not send a token that another one has marked."""
    fails_open: bool = False
    """It sends the token if the store does not answer."""
    checks_epoch: bool = True
    """It does not send if the store has lost something between the read and the mark."""
    doubts: bool = True
    """It does not send a token that was written before the store lost something."""
    trusts_memory: bool = False
    """Tokens that it holds in memory end the doubt of older ones that are stored."""


class Store(NamedTuple):
    """The record as it is stored."""

    generation: int = 1
    token: int = 0
    mark: int = NOBODY
    basis: int = 0
    """The epoch in which it was the latest."""


class Process(NamedTuple):
    """Where one process is."""

    at: str = "idle"
    token: int = 0
    """The refresh token that it holds."""
    read: Store = Store()
    seen: int = 0
    """The epoch when it read."""
    basis: int = 0
    """The epoch when its tokens came."""
    left: int = 1
    """Refreshes that it will still want."""


class World(NamedTuple):
    """Everything there is."""

    processes: tuple[Process, ...]
    store: Store = Store()
    replica: Store = Store()
    epoch: int = 0
    up: bool = True
    good: int = 0
    """The refresh token that the authorization server accepts now."""
    faults: int = 0
    """Faults that may still happen."""

    def change(self, number: int, process: Process, **changes: Any) -> World:
        """This world with another process `number`."""
        processes = tuple(process if index == number else each for index, each in enumerate(self.processes))
        return self._replace(processes=processes, **changes)

    def is_held(self, token: int) -> bool:
        """Whether somebody has a token, or could still get it."""
        stored = token in (self.store.token, self.replica.token)
        return stored or any(each.token == token for each in self.processes if each.at != "dead")


class Step(NamedTuple):
    """What happened, and the world after it."""

    words: str
    after: World
    broken: str | None = None
    """The invariant that the step breaks."""


THE_FAMILY_LIVES = "the_family_lives"
"""A refresh token is sent a second time only if no process holds the tokens that the first use returned. The
authorization server would end the login of all processes."""
NO_LOGIN_WITHOUT_FAULT = "no_login_without_fault"
"""Without a fault, no new login is needed."""


@dataclass(frozen=True)
class Model:
    """Processes, a store with a replica that lags behind, and faults."""

    rules: Rules = Rules()
    processes: int = 2
    refreshes: int = 1
    """Of each process."""
    faults: int = 2

    @property
    def start(self) -> World:
        return World((Process(left=self.refreshes),) * self.processes, faults=self.faults)

    def steps(self, world: World) -> Iterator[Step]:
        """Everything that can happen next."""
        for number, process in enumerate(world.processes):
            yield from self._of(world, number, process)
        if world.replica != world.store:
            yield Step("the replica catches up", world._replace(replica=world.store))
        if not world.up:
            yield Step("the store is back", world._replace(up=True))
        if world.faults:
            less = world._replace(faults=world.faults - 1)
            yield Step("the store goes away", less._replace(up=False))
            if world.replica != world.store:
                after = less._replace(store=world.replica, epoch=world.epoch + 1)
                yield Step("the replica takes over without what it lacks", after)

    def _of(self, world: World, number: int, process: Process) -> Iterator[Step]:
        name = "ABC"[number]
        if process.at in ("dead", "login"):
            return
        if world.faults:
            yield Step(f"{name} is killed", world.change(number, process._replace(at="dead"), faults=world.faults - 1))
        if process.at == "done":
            if process.left:
                yield Step(f"{name}'s access token expires", world.change(number, process._replace(at="idle")))
        elif process.at == "idle":
            yield from self._reads(world, number, process, name)
        elif process.at == "read":
            yield from self._decides(world, number, process, name)
        elif process.at == "marked":
            yield self._sends(world, number, process, name)
        elif process.at == "renewed":
            yield from self._stores(world, number, process, name)

    def _reads(self, world: World, number: int, process: Process, name: str) -> Iterator[Step]:
        if world.up:
            after = process._replace(at="read", read=world.store, seen=world.epoch)
            yield Step(f"{name} reads", world.change(number, after))
        elif self.rules.fails_open:
            yield Step(f"{name} gets no answer and goes on", world.change(number, process._replace(at="marked")))

    def _decides(self, world: World, number: int, process: Process, name: str) -> Iterator[Step]:
        rules, read = self.rules, process.read
        again = process._replace(at="idle")
        if read.token > process.token:
            after = process._replace(at="done", token=read.token, basis=read.basis, left=process.left - 1)
            yield Step(f"{name} uses what another has stored", world.change(number, after))
            return
        in_doubt = rules.doubts and read.basis != process.seen
        if read.token < process.token and world.up:
            basis = process.seen if rules.trusts_memory else read.basis
            stored = Store(read.generation + 1, process.token, NOBODY, basis)
            if not rules.compares or world.store.generation == read.generation:
                yield Step(f"{name} stores its later tokens again", world.change(number, again, store=stored))
            else:
                yield Step(f"{name} is overtaken", world.change(number, again))
            if not in_doubt or rules.trusts_memory:
                return
        if in_doubt:
            yield self._login(world, number, process, f"{name} doubts")
            return
        if rules.heeds_marks and read.mark not in (NOBODY, number):
            yield Step(f"{name} waits for the one that has marked", world.change(number, again))
            if world.processes[read.mark].at == "dead" or world.faults < self.faults:
                # A minute has passed. One that is only paused looks the same as a dead one.
                yield self._login(world, number, process, f"{name} has waited for long enough")
            return
        if not rules.marks:
            yield Step(f"{name} marks nothing", world.change(number, process._replace(at="marked")))
            return
        if not world.up:
            yield Step(f"{name} cannot mark", world.change(number, again))
            return
        if rules.compares and world.store.generation != read.generation:
            yield Step(f"{name} is overtaken", world.change(number, again))
            return
        marked = Store(world.store.generation + 1, read.token, number, read.basis)
        good = not rules.checks_epoch or world.epoch == process.seen
        after = process._replace(at="marked" if good else "idle", read=marked, token=read.token)
        yield Step(f"{name} marks", world.change(number, after, store=marked))
        if world.faults:
            lost = world.change(number, again, store=marked, faults=world.faults - 1)
            yield Step(f"{name} marks, and does not hear of it", lost)

    def _sends(self, world: World, number: int, process: Process, name: str) -> Step:
        token = process.token
        if token == world.good:
            after = process._replace(at="renewed", token=token + 1, basis=world.epoch)
            return Step(f"{name} sends token {token} and gets {token + 1}", world.change(number, after, good=token + 1))
        broken = THE_FAMILY_LIVES if world.is_held(world.good) else None
        refused = world.change(number, process._replace(at="login"))
        return Step(f"{name} sends token {token}, which was spent", refused, broken)

    def _stores(self, world: World, number: int, process: Process, name: str) -> Iterator[Step]:
        if not world.up:
            return
        store, done = world.store, process._replace(at="done", left=process.left - 1)
        mine = store.mark == number or store.token == process.token - 1
        if not mine and self.rules.compares:
            after = done._replace(token=max(store.token, process.token))
            yield Step(f"{name} finds that another was later", world.change(number, after))
            return
        stored = Store(store.generation + 1, process.token, NOBODY, process.basis)
        yield Step(f"{name} stores token {process.token}", world.change(number, done, store=stored))
        if world.faults:
            lost = world._replace(store=stored, faults=world.faults - 1)
            yield Step(f"{name} stores token {process.token}, and does not hear of it", lost)

    def _login(self, world: World, number: int, process: Process, words: str) -> Step:
        broken = NO_LOGIN_WITHOUT_FAULT if world.faults == self.faults else None
        return Step(f"{words}: a login is needed", world.change(number, process._replace(at="login")), broken)
