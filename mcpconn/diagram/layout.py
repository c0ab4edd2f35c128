"""The layout of the SVG picture: positions for wide and narrow pictures, and the paths between states."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, NamedTuple

from mcpconn.core.states import State, Transition

Side = Literal["above", "right", "below"]


class Point(NamedTuple):
    """A place on the canvas, in pixels."""

    x: float
    y: float


class Way(NamedTuple):
    """An edge: its path, the position of its label, and the label's anchor."""

    path: str
    label: Point
    anchor: str


@dataclass(frozen=True)
class Layout:
    """Sizes in pixels, and the column and row of each state."""

    name: str
    places: dict[State, tuple[int, int]]
    loops: dict[State, Side]
    """The side of a state on which an edge to itself is drawn."""
    width: int
    height: int
    node: tuple[float, float]
    step: tuple[float, float]
    origin: tuple[float, float]
    apart: float
    """The position of the label on an oblique edge: in the middle it would collide with neighbouring labels."""

    def centre(self, state: State) -> Point:
        """The middle of a state's box."""
        column, row = self.places[state]
        return Point(self.origin[0] + column * self.step[0], self.origin[1] + row * self.step[1])


WIDE = Layout(
    name="machine",
    places={
        State.IDLE: (0, 0),
        State.CONNECTING: (1, 0),
        State.READY: (2, 0),
        State.CLOSED: (0, 1),
        State.FAILED: (1, 1),
        State.RECONNECTING: (2, 1),
    },
    loops={State.CONNECTING: "above", State.READY: "right", State.RECONNECTING: "right"},
    width=920,
    height=440,
    node=(136.0, 46.0),
    step=(270.0, 164.0),
    origin=(136.0, 178.0),
    apart=0.68,
)
NARROW = Layout(
    name="machine-narrow",
    places={
        State.IDLE: (0, 0),
        State.CONNECTING: (1, 0),
        State.READY: (0, 1),
        State.RECONNECTING: (0, 2),
        State.FAILED: (1, 2),
        State.CLOSED: (0, 3),
    },
    loops={State.CONNECTING: "above", State.READY: "right", State.RECONNECTING: "below"},
    width=400,
    height=566,
    node=(122.0, 46.0),
    step=(184.0, 138.0),
    origin=(128.0, 108.0),
    apart=0.6,
)
"""For a phone: 400 pixels wide, so that 13-pixel letters stay readable at 320."""

_LOOP = 44.0
"""The extent of an edge from a state to itself."""
_ARC = 118.0
"""How far the handles of an edge over other states reach; it rises to three quarters of that."""
_PARALLEL = 11.0
"""Half the distance between an edge and the one in the other direction."""


def way(layout: Layout, row: Transition, *, both_ways: bool) -> Way:
    """How an edge is drawn. `both_ways`: there is another in the other direction."""
    start, end = layout.centre(row.source), layout.centre(row.target)
    if row.source is row.target:
        return _loop(layout, start, layout.loops[row.source])
    if start.y == end.y and abs(layout.places[row.source][0] - layout.places[row.target][0]) > 1:
        return _arc(layout, start, end)
    return _straight(layout, start, end, _PARALLEL if both_ways else 0.0)


def rounded(corners: list[Point], radius: float) -> str:
    """A closed path through the corners, each rounded."""
    pieces = []
    for index, corner in enumerate(corners):
        before = _towards(corner, corners[index - 1], radius)
        after = _towards(corner, corners[(index + 1) % len(corners)], radius)
        pieces.append(
            f"{'L' if index else 'M'} {before.x:g} {before.y:g} Q {corner.x:g} {corner.y:g} {after.x:g} {after.y:g}"
        )
    return " ".join([*pieces, "Z"])


def _towards(start: Point, end: Point, distance: float) -> Point:
    part = distance / math.dist(start, end)
    return Point(start.x + (end.x - start.x) * part, start.y + (end.y - start.y) * part)


def _loop(layout: Layout, centre: Point, side: Side) -> Way:
    if side == "right":
        x = centre.x + layout.node[0] / 2
        handles = f"{x + _LOOP:g} {centre.y - 26:g} {x + _LOOP:g} {centre.y + 26:g}"
        path = f"M {x:g} {centre.y - 10:g} C {handles} {x:g} {centre.y + 10:g}"
        return Way(path, Point(x + _LOOP * 0.75 + 8, centre.y + 4), "start")
    sign = -1 if side == "above" else 1
    y = centre.y + sign * layout.node[1] / 2
    handles = f"{centre.x - 32:g} {y + sign * _LOOP:g} {centre.x + 32:g} {y + sign * _LOOP:g}"
    path = f"M {centre.x - 14:g} {y:g} C {handles} {centre.x + 14:g} {y:g}"
    # Text is positioned by its baseline, so it needs more room below a line than above it.
    return Way(path, Point(centre.x, y + sign * (_LOOP * 0.75 + (8 if sign < 0 else 17))), "middle")


def _arc(layout: Layout, start: Point, end: Point) -> Way:
    """Over the states between."""
    y = start.y - layout.node[1] / 2
    path = f"M {start.x:g} {y:g} C {start.x:g} {y - _ARC:g} {end.x:g} {y - _ARC:g} {end.x:g} {y:g}"
    return Way(path, Point((start.x + end.x) / 2, y - _ARC * 0.75 - 9), "middle")


def _straight(layout: Layout, start: Point, end: Point, aside: float) -> Way:
    """Along the line between the centres, or to the left of it, with the label on the same side."""
    length = math.dist(start, end)
    left = Point((end.y - start.y) / length, -(end.x - start.x) / length)
    first = Point(start.x + left.x * aside, start.y + left.y * aside)
    last = Point(end.x + left.x * aside, end.y + left.y * aside)
    begin, stop = _leaves(layout, first, last, start), _leaves(layout, last, first, end)
    part = 0.5 if 0 in (begin.x - stop.x, begin.y - stop.y) else layout.apart
    middle = Point(begin.x + (stop.x - begin.x) * part, begin.y + (stop.y - begin.y) * part)
    anchor = "middle" if abs(left.x) < 0.3 else ("start" if left.x > 0 else "end")
    drop = 4.0 + 5.0 * left.y
    label = Point(middle.x + left.x * 9, middle.y + left.y * 9 + drop)
    return Way(f"M {begin.x:g} {begin.y:g} L {stop.x:g} {stop.y:g}", label, anchor)


def _leaves(layout: Layout, start: Point, end: Point, centre: Point) -> Point:
    """The point at which the path from `start` to `end` leaves the box around `centre`."""
    dx, dy = end.x - start.x, end.y - start.y
    parts = []
    if dx:
        parts.append((centre.x + math.copysign(layout.node[0] / 2, dx) - start.x) / dx)
    if dy:
        parts.append((centre.y + math.copysign(layout.node[1] / 2, dy) - start.y) / dy)
    part = min(parts)
    return Point(round(start.x + dx * part, 1), round(start.y + dy * part, 1))
