"""Exhaustive search of a model: every world that can be reached, breadth first, each checked."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from inspect import getdoc

from mcpconn.core.machine import IllegalTransition
from tests.model.invariants import INVARIANTS, Invariant, only_legal_events
from tests.model.model import Model
from tests.model.worlds import Step, World


@dataclass(frozen=True)
class Counterexample:
    """The shortest way to a broken invariant."""

    invariant: str
    meaning: str
    path: tuple[Step, ...]
    """The last step is the one that breaks it."""

    def __str__(self) -> str:
        steps = (f"  {number}. {step.words}\n     -> {step.after}" for number, step in enumerate(self.path, 1))
        return "\n".join((f"{self.invariant} does not hold: {self.meaning}", *steps))


@dataclass(frozen=True)
class Result:
    """What a search went through, and what it found."""

    worlds: int
    steps: int
    counterexample: Counterexample | None


def search(model: Model, invariants: Iterable[Invariant] = INVARIANTS) -> Result:
    """Go through every world that `model` can reach, and stop at the first invariant that does not hold.

    Args:
        model: What can happen.
        invariants: What must hold of every step.
    """
    checks = tuple(invariants)
    # How each world was first reached. Breadth first makes that a shortest way.
    came_from: dict[World, tuple[World, Step] | None] = {model.start: None}
    pending = deque(came_from)
    steps = 0
    while pending:
        world = pending.popleft()
        try:
            met: set[tuple[World, int | None]] = set()
            for step in model.steps(world):
                steps += 1
                effect = (step.after, step.reported)
                if step.after is world or effect in met:
                    continue
                met.add(effect)
                for holds in checks:
                    if not holds(world, step):
                        found = _counterexample(holds, came_from, world, step)
                        return Result(len(came_from), steps, found)
                after = step.after if step.after in came_from else model.canonical(step.after)
                if after not in came_from:
                    came_from[after] = (world, step)
                    pending.append(after)
        except IllegalTransition as error:
            found = _counterexample(only_legal_events, came_from, world, Step(str(error), world))
            return Result(len(came_from), steps, found)
    return Result(len(came_from), steps, None)


def _counterexample(
    invariant: Invariant, came_from: dict[World, tuple[World, Step] | None], world: World, last: Step
) -> Counterexample:
    path = [last]
    while (origin := came_from[world]) is not None:
        world, step = origin
        path.append(step)
    meaning = " ".join((getdoc(invariant) or "").split())
    return Counterexample(invariant.__name__, meaning, tuple(reversed(path)))
