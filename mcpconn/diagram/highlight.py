"""The highlighted states of a diagram: the state of one connection, or the states of many with their counts."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from mcpconn.core.states import State


class HasState(Protocol):
    """What a diagram needs from a connection."""

    @property
    def state(self) -> State:
        """Its state."""


Highlight = State | str | HasState | Mapping[str, HasState] | Mapping[str, int] | None
"""A state or its name, a connection, a manager, counts by state, or a text such as "27 ready, 1 failed"."""

# White text has a contrast of at least 4.5:1 on each colour. The status page uses the same ones.
COLOURS: dict[State, str] = {
    State.IDLE: "#6e7781",
    State.CONNECTING: "#0550ae",
    State.READY: "#1a7f37",
    State.RECONNECTING: "#9a6700",
    State.FAILED: "#cf222e",
    State.CLOSED: "#424a53",
}
DARK_COLOURS: dict[State, str] = {
    State.IDLE: "#9198a1",
    State.CONNECTING: "#58a6ff",
    State.READY: "#3fb950",
    State.RECONNECTING: "#e3b341",
    State.FAILED: "#ff7b72",
    State.CLOSED: "#8b949e",
}
"""The colours for a dark background, with black text."""

_COUNTED = re.compile(r"\s*(?P<count>\d+)\s+(?P<state>\w+)\s*")


@dataclass(frozen=True)
class Marked:
    """The highlighted states."""

    counts: dict[State, int] = field(default_factory=dict)
    """The number of connections in each highlighted state."""
    fleet: bool = False
    """Whether the counts are shown. Those of a single connection are not."""

    def __contains__(self, state: State) -> bool:
        return bool(self.counts.get(state))

    def label(self, state: State) -> str:
        """The name of a state, with the number of connections in it."""
        return f"{self.counts[state]} {state.value}" if self.fleet and state in self else state.value

    def sentence(self) -> str:
        """The same as text for screen readers."""
        states = [state for state in State if state in self]
        if not states:
            return ""
        if not self.fleet:
            return f"The connection is {states[0].value}."
        return f"Connections: {', '.join(self.label(state) for state in states)}."


def highlighted(highlight: Highlight) -> Marked:
    """What to highlight.

    Raises:
        ValueError: there is no state with this name.
    """
    if highlight is None:
        return Marked()
    if isinstance(highlight, str):
        pieces = [_COUNTED.fullmatch(piece) for piece in highlight.split(",")]
        if all(pieces):
            counts = Counter[State]()
            for piece in pieces:
                assert piece is not None
                counts[_state(piece["state"])] += int(piece["count"])
            return Marked(dict(counts), fleet=True)
        return Marked({_state(highlight): 1})
    if isinstance(highlight, Mapping):
        counts = Counter[State]()
        for name, each in highlight.items():
            if isinstance(each, int):
                counts[_state(name)] += each
            else:
                counts[State(each.state)] += 1
        return Marked(dict(counts), fleet=True)
    return Marked({State(highlight.state): 1})


def _state(name: str) -> State:
    try:
        return State(name)
    except ValueError:
        names = ", ".join(state.value for state in State)
        raise ValueError(f"there is no state {str(name)!r}; the states are: {names}") from None
