"""A parsed diagram of any format: its edges with their line numbers."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

from mcpconn.core.states import Event, State

Edge = tuple[str, str, str]
"""Source, event, target."""

STATES = frozenset(state.value for state in State)
EVENTS = frozenset(event.value for event in Event)


@dataclass(frozen=True)
class Picture:
    """One state diagram."""

    edges: dict[Edge, int]
    """Each edge, and its line in the file."""
    line: int
    """The first line of the diagram."""
    partial: bool = False
    """Whether it declares that it shows only some states."""
    states: frozenset[str] = field(default=frozenset())
    """States that are named without an edge."""

    @property
    def shown(self) -> frozenset[str]:
        """The states in it."""
        return self.states.union(*({source, target} for source, _, target in self.edges))

    def is_about_connections(self) -> bool:
        """Whether at least two of its states, and at least half of them, are states of the machine."""
        ours = self.shown & STATES
        return len(ours) >= 2 and 2 * len(ours) >= len(self.shown)


def normal(name: str) -> str:
    """A name in the machine's spelling: `Give up`, `give-up` and `GiveUp` are `give_up`."""
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name.strip())
    return re.sub(r"[\s\-_]+", "_", spaced.lower())


def distance(edges: Iterable[Edge], machine: Iterable[Edge]) -> int:
    """The number of edges that only one of two diagrams has."""
    return len(set(edges) ^ set(machine))
