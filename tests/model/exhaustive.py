"""Exhaustive search of a small model, whose steps say by themselves what they break."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

W = TypeVar("W", bound=Hashable)
W_co = TypeVar("W_co", bound=Hashable, covariant=True)


class Step(Protocol[W_co]):
    """What happened, and the world after it."""

    @property
    def words(self) -> str: ...

    @property
    def after(self) -> W_co: ...

    @property
    def broken(self) -> str | None:
        """The invariant that the step breaks."""


@dataclass(frozen=True)
class Found(Generic[W]):
    """What a search went through, and the shortest way to what is wrong."""

    worlds: int
    broken: str | None = None
    path: tuple[str, ...] = ()
    """In words; the last step is the one that breaks it."""
    ends: frozenset[W] = frozenset()
    """The worlds in which nothing more can happen."""


def search(start: W, steps: Callable[[W], Iterable[Step[W]]]) -> Found[W]:
    """Go through every world that can be reached, and stop at the first invariant that does not hold.

    Args:
        start: The first world.
        steps: Everything that can happen next in a world.
    """
    # How each world was first reached. Breadth first makes that a shortest way.
    came_from: dict[W, tuple[W, str] | None] = {start: None}
    pending = deque(came_from)
    ends = set()
    while pending:
        world = pending.popleft()
        moved = False
        for step in steps(world):
            moved = moved or step.after != world
            if step.broken is not None:
                return Found(len(came_from), step.broken, (*_path(came_from, world), step.words))
            if step.after not in came_from:
                came_from[step.after] = world, step.words
                pending.append(step.after)
        if not moved:
            ends.add(world)
    return Found(len(came_from), ends=frozenset(ends))


def _path(came_from: dict[W, tuple[W, str] | None], world: W) -> tuple[str, ...]:
    path: list[str] = []
    while (origin := came_from[world]) is not None:
        world, words = origin
        path.append(words)
    return tuple(reversed(path))
