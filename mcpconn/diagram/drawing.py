"""The machine as an SVG picture, drawn without Graphviz: the positions of the states are fixed, everything else is
computed.

An event that leads from every other state to the same one (`close`) is drawn once, from a frame around them:
five equal arrows would obscure the rest.
"""

from __future__ import annotations

from html import escape

from mcpconn.core.states import TRANSITIONS, Event, State, Transition
from mcpconn.diagram.highlight import COLOURS, DARK_COLOURS, Highlight, Marked, highlighted
from mcpconn.diagram.layout import NARROW, WIDE, Layout, Point, rounded, way
from mcpconn.diagram.render import FINAL, INITIAL

_SANS = 'system-ui, "Segoe UI", Helvetica, Arial, sans-serif'
_MONO = "ui-monospace, SFMono-Regular, Menlo, Consolas, monospace"


def _both(name: str, light: str, dark: str) -> str:
    """A colour for a light background and one for a dark background. Renderers without `light-dark` use the light
    one."""
    return f"{name}: {light}; {name}: light-dark({light}, {dark})"


_PAPER, _INK, _LINE, _DASH = (
    ("#ffffff", "#0d1117"),
    ("#24292f", "#e6edf3"),
    ("#57606a", "#9198a1"),
    ("#8c959f", "#6e7681"),
)


def _style() -> str:
    rules = {
        ".paper": _both("fill", *_PAPER),
        ".start": _both("fill", *_INK),
        ".arrow": _both("fill", *_LINE),
        ".node": f"{_both('fill', *_PAPER)}; {_both('stroke', *_INK)}; stroke-width: 1.5",
        ".name": f"font: 600 15px {_SANS}; text-anchor: middle; {_both('fill', *_INK)}",
        ".edge": f"fill: none; {_both('stroke', *_LINE)}; stroke-width: 1.5",
        ".event": f"font: 13px {_MONO}; {_both('fill', *_INK)}; paint-order: stroke; {_both('stroke', *_PAPER)};"
        " stroke-width: 5px; stroke-linejoin: round",
        ".frame": f"fill: none; {_both('stroke', *_DASH)}; stroke-width: 1.25; stroke-dasharray: 5 4",
        "a:hover .node, a:focus .node": "stroke-width: 3",
        ".current .name": _both("fill", "#ffffff", "#0d1117"),
    }
    for state in State:
        pair = COLOURS[state], DARK_COLOURS[state]
        rules[f".current.{state.value} .node"] = f"{_both('fill', *pair)}; {_both('stroke', *pair)}"
    # In a separate page or an <img>, the reader's setting decides; inlined in a page, that of the page.
    lines = ["svg.mcpconn-machine:root { color-scheme: light dark }"]
    for selector, body in rules.items():
        scoped = ", ".join(f".mcpconn-machine {each}" for each in selector.split(", "))
        lines.append(f"{scoped} {{ {body} }}")
    return "\n".join(f"    {line}" for line in lines)


def svg(highlight: Highlight = None, *, links: str | None = None, narrow: bool = False) -> str:
    """The machine as an SVG picture, for light and dark pages.

    Args:
        highlight: As for `mermaid`. The counts of a manager's connections appear below the names of the states.
        links: The address of a page with a section for each state, such as "states.md": each state becomes a link
            to `page#state`, and with "" to `#state` of the same page. The links work only if the picture is inlined in
            the page, not in an `<img>`.
        narrow: A layout of 400 pixels for phones, in place of 920.

    Raises:
        ValueError: there is no state with this name.
    """
    marked = highlighted(highlight)
    layout = NARROW if narrow else WIDE
    common = _common_event()
    rows = [row for row in TRANSITIONS if common is None or (row.event, row.target) != common]
    body = [f'<rect class="paper" width="{layout.width}" height="{layout.height}" rx="12"/>']
    body += [] if common is None else _frame(layout, *common)
    body += _start(layout)
    for row in rows:
        body += _edge(layout, row, both_ways=any((o.source, o.target) == (row.target, row.source) for o in rows))
    for state in State:
        body += _node(layout, state, marked, links)
    words = " ".join(filter(None, [*(_sentence(row) for row in TRANSITIONS), marked.sentence()]))
    name, width, height = layout.name, layout.width, layout.height
    size = f'viewBox="0 0 {width} {height}" width="{width}" height="{height}"'
    described = f'aria-labelledby="{name}-title {name}-desc"'
    arrow = 'viewBox="0 0 10 10" refX="9" refY="5" markerWidth="8" markerHeight="8" orient="auto"'
    lines = [
        _marker(marked, links, narrow=narrow),
        f'<svg xmlns="http://www.w3.org/2000/svg" class="mcpconn-machine" {size} role="img" {described}>',
        f'  <title id="{name}-title">The states of a connection</title>',
        f'  <desc id="{name}-desc">{escape(words)}</desc>',
        "  <style>",
        _style(),
        "  </style>",
        "  <defs>",
        f'    <marker id="{name}-arrow" {arrow}>',
        '      <path class="arrow" d="M 0 1 L 10 5 L 0 9 z"/>',
        "    </marker>",
        "  </defs>",
    ]
    return "\n".join([*lines, *(f"  {line}" for line in body), "</svg>", ""])


def _marker(marked: Marked, links: str | None, *, narrow: bool) -> str:
    """The first line of the picture, from which `mcpconn diagram --write` makes it again."""
    shown = ", ".join(marked.label(state) for state in State if state in marked)
    attributes = [f' highlight="{shown}"' if marked.fleet else f" highlight={shown}"] if shown else []
    attributes += [f' links="{links}"'] if links is not None else []
    attributes += [" narrow"] if narrow else []
    return f"<!-- mcpconn:svg{''.join(attributes)} -->"


def _sentence(row: Transition) -> str:
    return f"{row.source.value}, {row.event.value}: {row.target.value}."


def _common_event() -> tuple[Event, State] | None:
    """The event that leads from every other state to the same one, and that one."""
    for row in TRANSITIONS:
        sources = {each.source for each in TRANSITIONS if (each.event, each.target) == (row.event, row.target)}
        if sources == set(State) - {row.target}:
            return row.event, row.target
    return None


def _node(layout: Layout, state: State, marked: Marked, links: str | None) -> list[str]:
    centre, (width, height) = layout.centre(state), layout.node
    left, top = centre.x - width / 2, centre.y - height / 2
    lines = [f'<rect class="node" x="{left:g}" y="{top:g}" width="{width:g}" height="{height:g}" rx="11"/>']
    if state in FINAL:
        around = f'width="{width + 8:g}" height="{height + 8:g}" rx="14"'
        lines.insert(0, f'<rect class="node" x="{left - 4:g}" y="{top - 4:g}" {around}/>')
    counted = marked.fleet and state in marked
    lines.append(f'<text class="name" x="{centre.x:g}" y="{centre.y + (-3 if counted else 5):g}">{state.value}</text>')
    if counted:
        lines.append(f'<text class="name count" x="{centre.x:g}" y="{centre.y + 15:g}">{marked.counts[state]:,}</text>')
    if links is not None:
        lines = [f'<a href="{escape(links)}#{state.value}">', *(f"  {line}" for line in lines), "</a>"]
    current = f' class="current {state.value}"' if state in marked else ""
    return [f'<g data-state="{state.value}"{current}>', *(f"  {line}" for line in lines), "</g>"]


def _start(layout: Layout) -> list[str]:
    """The dot from which the first state is entered: on the left, or above if there is no room."""
    centre = layout.centre(INITIAL)
    left, top = centre.x - layout.node[0] / 2, centre.y - layout.node[1] / 2
    if left > 60:
        dot, path = Point(left - 40, centre.y), f"M {left - 33:g} {centre.y:g} L {left:g} {centre.y:g}"
    else:
        dot, path = Point(centre.x, top - 40), f"M {centre.x:g} {top - 33:g} L {centre.x:g} {top:g}"
    return [f'<circle class="start" cx="{dot.x:g}" cy="{dot.y:g}" r="6"/>', _drawn(layout, path)]


def _frame(layout: Layout, event: Event, target: State) -> list[str]:
    """The frame around all states but `target`, which stands alone in the last row, or in a corner that is cut out."""
    centre = layout.centre(target)
    left, right, top, bottom = 14.0, layout.width - 14.0, 14.0, layout.height - 14.0
    inner_y = centre.y - layout.step[1] / 2
    alone = all(other is target or place[1] != layout.places[target][1] for other, place in layout.places.items())
    if alone:
        inner_y += 13
        corners = [Point(left, top), Point(right, top), Point(right, inner_y), Point(left, inner_y)]
        end = centre.y - layout.node[1] / 2 - 4
        path, label, anchor = (
            f"M {centre.x:g} {inner_y:g} L {centre.x:g} {end:g}",
            Point(centre.x + 10, (inner_y + end) / 2 + 3),
            "start",
        )
    else:
        inner_x = centre.x + layout.step[0] / 2 + 6
        corners = [
            Point(left, top),
            Point(right, top),
            Point(right, bottom),
            Point(inner_x, bottom),
            Point(inner_x, inner_y),
            Point(left, inner_y),
        ]
        end = centre.x + layout.node[0] / 2 + 4
        path, label, anchor = (
            f"M {inner_x:g} {centre.y:g} L {end:g} {centre.y:g}",
            Point((inner_x + end) / 2, centre.y - 9),
            "middle",
        )
    sources = ", ".join(row.source.value for row in TRANSITIONS if (row.event, row.target) == (event, target))
    return [
        f'<path class="frame" d="{rounded(corners, 10)}"/>',
        _drawn(layout, path, f"{sources} --{event}--> {target}"),
        _text(label, event.value, anchor),
    ]


def _edge(layout: Layout, row: Transition, *, both_ways: bool) -> list[str]:
    path, label, anchor = way(layout, row, both_ways=both_ways)
    title = f"{row.source} --{row.event}--> {row.target}: {row.when}"
    return [_drawn(layout, path, title), _text(label, row.event.value, anchor)]


def _drawn(layout: Layout, path: str, title: str = "") -> str:
    start = f'<path class="edge" marker-end="url(#{layout.name}-arrow)" d="{path}"'
    return f"{start}><title>{escape(title)}</title></path>" if title else f"{start}/>"


def _text(at: Point, text: str, anchor: str) -> str:
    return f'<text class="event" x="{at.x:g}" y="{at.y:g}" text-anchor="{anchor}">{escape(text)}</text>'
