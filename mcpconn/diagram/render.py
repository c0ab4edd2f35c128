"""The machine as Mermaid, as Graphviz DOT and as a Markdown table."""

from __future__ import annotations

from typing import Protocol

from mcpconn.core.states import TRANSITIONS, State


class HasState(Protocol):
    """A connection, for what is drawn here."""

    @property
    def state(self) -> State:
        """Where it is."""


Highlight = State | str | HasState | None
"""A state, its name, or a connection that is in it."""

# The blue is 4.6:1 against white: readable as a filled box and as a border.
ACCENT = "#2563c9"
MUTED = "#57606a"

INITIAL = State.IDLE
FINAL = frozenset(State) - {row.source for row in TRANSITIONS}
"""States that nothing leaves."""


def highlighted(highlight: Highlight) -> State | None:
    """The state to mark.

    Raises:
        ValueError: there is no state of this name.
    """
    if highlight is None:
        return None
    if isinstance(highlight, str):
        try:
            return State(highlight)
        except ValueError:
            names = ", ".join(state.value for state in State)
            raise ValueError(f"there is no state {str(highlight)!r}; the states are: {names}") from None
    return State(highlight.state)


def mermaid(highlight: Highlight = None) -> str:
    """A Mermaid state diagram.

    Args:
        highlight: A state, its name, or a connection, to be marked as where things stand.

    Raises:
        ValueError: there is no state of this name.
    """
    marked = highlighted(highlight)
    lines = ["stateDiagram-v2", f"    [*] --> {INITIAL.value}"]
    lines += [f"    {row.source.value} --> {row.target.value}: {row.event.value}" for row in TRANSITIONS]
    lines += [f"    {state.value} --> [*]" for state in State if state in FINAL]
    if marked is not None:
        lines += [
            f"    classDef current fill:{ACCENT},stroke:{ACCENT},color:#ffffff",
            f"    class {marked.value} current",
        ]
    return "\n".join(lines) + "\n"


def dot(highlight: Highlight = None) -> str:
    """A Graphviz DOT graph.

    Args:
        highlight: As for `mermaid`.

    Raises:
        ValueError: there is no state of this name.
    """
    marked = highlighted(highlight)
    lines = [
        "digraph connection {",
        '    graph [rankdir=LR, nodesep=0.6, ranksep=1.1, fontname="sans-serif"];',
        '    node [shape=box, style="rounded,filled", fillcolor="#ffffff", fontname="sans-serif", margin="0.2,0.1"];',
        '    edge [fontname="monospace", fontsize=10];',
        '    start [shape=point, width=0.15, label="", style=filled, fillcolor=black];',
    ]
    for state in State:
        attributes = ["peripheries=2"] if state in FINAL else []
        if state is marked:
            attributes += [f'fillcolor="{ACCENT}"', f'color="{ACCENT}"', 'fontcolor="#ffffff"']
        shown = f" [{', '.join(attributes)}]" if attributes else ""
        lines.append(f"    {state.value}{shown};")
    lines.append(f"    start -> {INITIAL.value};")
    lines += [
        f'    {row.source.value} -> {row.target.value} [label="{row.event.value}", tooltip="{_quoted(row.when)}"];'
        for row in TRANSITIONS
    ]
    return "\n".join([*lines, "}"]) + "\n"


def markdown_table(highlight: Highlight = None) -> str:
    """The table of transitions in Markdown.

    Args:
        highlight: As for `mermaid`: the rows that leave this state are bold.

    Raises:
        ValueError: there is no state of this name.
    """
    marked = highlighted(highlight)
    rows = []
    for row in TRANSITIONS:
        cells = [f"`{row.source.value}`", f"`{row.event.value}`", f"`{row.target.value}`", row.when]
        rows.append([f"**{cell}**" for cell in cells] if row.source is marked else cells)
    return table(["from", "event", "to", "when"], rows)


def table(header: list[str], rows: list[list[str]]) -> str:
    """A Markdown table."""
    lines = [header, ["---"] * len(header), *([cell.replace("|", "\\|") for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def _quoted(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"')
