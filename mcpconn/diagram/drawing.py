"""The machine as an SVG picture, drawn without Graphviz: places for the states, everything else computed.

An event that leads from every other state to the same one (`close`) is drawn once, from a frame around them:
five arrows that say the same would hide the rest.
"""

from __future__ import annotations

import math
from html import escape
from typing import NamedTuple

from mcpconn.core.states import TRANSITIONS, Event, State, Transition
from mcpconn.diagram.render import ACCENT, FINAL, INITIAL, Highlight, highlighted

PLACES: dict[State, tuple[int, int]] = {
    State.IDLE: (0, 0),
    State.CONNECTING: (1, 0),
    State.READY: (2, 0),
    State.CLOSED: (0, 1),
    State.FAILED: (1, 1),
    State.RECONNECTING: (2, 1),
}
"""Column and row of each state. Bottom left is outside the frame."""

WIDTH, HEIGHT = 920, 440
NODE = (136.0, 46.0)
STEP = (270.0, 164.0)
ORIGIN = (136.0, 178.0)
LOOP = 44.0
"""How far an edge from a state to itself reaches."""
ARC = 118.0
"""How far the handles of an edge over other states reach; it rises to three quarters of that."""
PARALLEL = 11.0
"""Half the distance between an edge and the one in the other direction."""

STYLE = """\
    .node { fill: #ffffff; stroke: #24292f; stroke-width: 1.5 }
    .name { font: 600 15px system-ui, "Segoe UI", Helvetica, Arial, sans-serif; fill: #24292f; text-anchor: middle }
    .edge { fill: none; stroke: #57606a; stroke-width: 1.5; marker-end: url(#arrow) }
    .event { font: 13px ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; fill: #24292f;
             paint-order: stroke; stroke: #ffffff; stroke-width: 5px; stroke-linejoin: round }
    .frame { fill: none; stroke: #8c959f; stroke-width: 1.25; stroke-dasharray: 5 4 }
    .current .node { fill: ACCENT; stroke: ACCENT }
    .current .name { fill: #ffffff }""".replace("ACCENT", ACCENT)


SIZE = f'width="{WIDTH}" height="{HEIGHT}" role="img" aria-labelledby="title desc"'
HEAD = [
    "  <style>",
    STYLE,
    "  </style>",
    "  <defs>",
    '    <marker id="arrow" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="8" markerHeight="8" orient="auto">',
    '      <path d="M 0 1 L 10 5 L 0 9 z" fill="#57606a"/>',
    "    </marker>",
    "  </defs>",
    # A card of its own: the picture reads the same on a light page and on a dark one.
    f'  <rect width="{WIDTH}" height="{HEIGHT}" rx="12" fill="#ffffff"/>',
]


class Point(NamedTuple):
    """A place on the canvas, in pixels."""

    x: float
    y: float


def svg(highlight: Highlight = None) -> str:
    """The machine as an SVG picture.

    Args:
        highlight: A state, its name, or a connection, to be marked as where things stand.

    Raises:
        ValueError: there is no state of this name.
    """
    marked = highlighted(highlight)
    common = _common_event()
    rows = [row for row in TRANSITIONS if common is None or (row.event, row.target) != common]
    body = [] if common is None else _frame(*common)
    body += _start()
    for row in rows:
        body += _edge(row, both_ways=any((o.source, o.target) == (row.target, row.source) for o in rows))
    for state in State:
        body += _node(state, current=state is marked)
    where = f" The connection is {marked.value}." if marked is not None else ""
    lines = [
        f"<!-- mcpconn:svg{f' highlight={marked.value}' if marked is not None else ''} -->",
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" {SIZE}>',
        '  <title id="title">The states of a connection</title>',
        f'  <desc id="desc">{escape(" ".join(_sentence(row) for row in TRANSITIONS))}{where}</desc>',
        *HEAD,
    ]
    return "\n".join([*lines, *(f"  {line}" for line in body), "</svg>", ""])


def _sentence(row: Transition) -> str:
    return f"{row.source.value}, {row.event.value}: {row.target.value}."


def _common_event() -> tuple[Event, State] | None:
    """The event that leads from every other state to the same one, and that one."""
    for row in TRANSITIONS:
        sources = {each.source for each in TRANSITIONS if (each.event, each.target) == (row.event, row.target)}
        if sources == set(State) - {row.target}:
            return row.event, row.target
    return None


def _centre(state: State) -> Point:
    column, row = PLACES[state]
    return Point(ORIGIN[0] + column * STEP[0], ORIGIN[1] + row * STEP[1])


def _node(state: State, *, current: bool) -> list[str]:
    centre = _centre(state)
    left, top = centre.x - NODE[0] / 2, centre.y - NODE[1] / 2
    rounded = [f'  <rect class="node" x="{left:g}" y="{top:g}" width="{NODE[0]:g}" height="{NODE[1]:g}" rx="11"/>']
    if state in FINAL:
        around = f'width="{NODE[0] + 8:g}" height="{NODE[1] + 8:g}" rx="14"'
        rounded.insert(0, f'  <rect class="node" x="{left - 4:g}" y="{top - 4:g}" {around}/>')
    return [
        f'<g id="{state.value}" class="current">' if current else f'<g id="{state.value}">',
        *rounded,
        f'  <text class="name" x="{centre.x:g}" y="{centre.y + 5:g}">{state.value}</text>',
        "</g>",
    ]


def _start() -> list[str]:
    centre = _centre(INITIAL)
    left = centre.x - NODE[0] / 2
    return [
        f'<circle cx="{left - 40:g}" cy="{centre.y:g}" r="6" fill="#24292f"/>',
        f'<path class="edge" d="M {left - 33:g} {centre.y:g} L {left:g} {centre.y:g}"/>',
    ]


def _frame(event: Event, target: State) -> list[str]:
    """The frame around all states but `target`, which stands in the corner that is cut out."""
    centre = _centre(target)
    left, right, top, bottom = 14.0, WIDTH - 14.0, 14.0, HEIGHT - 14.0
    inner_x, inner_y = centre.x + STEP[0] / 2 + 6, centre.y - STEP[1] / 2
    corners = [
        Point(left, top),
        Point(right, top),
        Point(right, bottom),
        Point(inner_x, bottom),
        Point(inner_x, inner_y),
        Point(left, inner_y),
    ]
    end = centre.x + NODE[0] / 2 + 4
    sources = ", ".join(row.source.value for row in TRANSITIONS if (row.event, row.target) == (event, target))
    return [
        f'<path class="frame" d="{_rounded(corners, 10)}"/>',
        _drawn(f"M {inner_x:g} {centre.y:g} L {end:g} {centre.y:g}", f"{sources} --{event}--> {target}"),
        _text(Point((inner_x + end) / 2, centre.y - 9), event.value, "middle"),
    ]


def _rounded(corners: list[Point], radius: float) -> str:
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


def _edge(row: Transition, *, both_ways: bool) -> list[str]:
    start, end = _centre(row.source), _centre(row.target)
    if row.source is row.target:
        path, label, anchor = _loop(start, last=PLACES[row.source][0] == max(place[0] for place in PLACES.values()))
    elif start.y == end.y and abs(PLACES[row.source][0] - PLACES[row.target][0]) > 1:
        path, label, anchor = _arc(start, end)
    else:
        path, label, anchor = _straight(start, end, PARALLEL if both_ways else 0.0)
    title = f"{row.source} --{row.event}--> {row.target}: {row.when}"
    return [_drawn(path, title), _text(label, row.event.value, anchor)]


def _drawn(path: str, title: str) -> str:
    return f'<path class="edge" d="{path}"><title>{escape(title)}</title></path>'


def _text(at: Point, text: str, anchor: str) -> str:
    return f'<text class="event" x="{at.x:g}" y="{at.y:g}" text-anchor="{anchor}">{escape(text)}</text>'


def _loop(centre: Point, *, last: bool) -> tuple[str, Point, str]:
    """From a state to itself: to the right of the last column, else above."""
    if last:
        x = centre.x + NODE[0] / 2
        handles = f"{x + LOOP:g} {centre.y - 26:g} {x + LOOP:g} {centre.y + 26:g}"
        path = f"M {x:g} {centre.y - 10:g} C {handles} {x:g} {centre.y + 10:g}"
        return path, Point(x + LOOP * 0.75 + 8, centre.y + 4), "start"
    y = centre.y - NODE[1] / 2
    handles = f"{centre.x - 32:g} {y - LOOP:g} {centre.x + 32:g} {y - LOOP:g}"
    path = f"M {centre.x - 14:g} {y:g} C {handles} {centre.x + 14:g} {y:g}"
    return path, Point(centre.x, y - LOOP * 0.75 - 8), "middle"


def _arc(start: Point, end: Point) -> tuple[str, Point, str]:
    """Over the states between."""
    y = start.y - NODE[1] / 2
    path = f"M {start.x:g} {y:g} C {start.x:g} {y - ARC:g} {end.x:g} {y - ARC:g} {end.x:g} {y:g}"
    return path, Point((start.x + end.x) / 2, y - ARC * 0.75 - 9), "middle"


def _straight(start: Point, end: Point, aside: float) -> tuple[str, Point, str]:
    """Along the line between the centres, or beside it on the left of the way, where the label stands, too."""
    length = math.dist(start, end)
    left = Point((end.y - start.y) / length, -(end.x - start.x) / length)
    first = Point(start.x + left.x * aside, start.y + left.y * aside)
    last = Point(end.x + left.x * aside, end.y + left.y * aside)
    begin, stop = _leaves(first, last, start), _leaves(last, first, end)
    # The label of an oblique edge stands nearer to its end: at the middle it would meet those of its neighbours.
    part = 0.5 if 0 in (begin.x - stop.x, begin.y - stop.y) else 0.68
    middle = Point(begin.x + (stop.x - begin.x) * part, begin.y + (stop.y - begin.y) * part)
    anchor = "middle" if abs(left.x) < 0.3 else ("start" if left.x > 0 else "end")
    # Text hangs from its baseline: above a line it needs less room than below it.
    drop = 4.0 + 5.0 * left.y
    label = Point(middle.x + left.x * 9, middle.y + left.y * 9 + drop)
    return f"M {begin.x:g} {begin.y:g} L {stop.x:g} {stop.y:g}", label, anchor


def _leaves(start: Point, end: Point, centre: Point) -> Point:
    """Where the way from `start` to `end` leaves the node around `centre`."""
    dx, dy = end.x - start.x, end.y - start.y
    parts = []
    if dx:
        parts.append((centre.x + math.copysign(NODE[0] / 2, dx) - start.x) / dx)
    if dy:
        parts.append((centre.y + math.copysign(NODE[1] / 2, dy) - start.y) / dy)
    part = min(parts)
    return Point(round(start.x + dx * part, 1), round(start.y + dy * part, 1))
