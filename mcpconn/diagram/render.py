"""The machine as Mermaid, as Graphviz DOT and as a Markdown table."""

from __future__ import annotations

from mcpconn.core.states import TRANSITIONS, State
from mcpconn.diagram.highlight import COLOURS, Highlight, highlighted

INITIAL = State.IDLE
FINAL = frozenset(State) - {row.source for row in TRANSITIONS}
"""Final states."""


def mermaid(highlight: Highlight = None) -> str:
    """A Mermaid state diagram.

    Args:
        highlight: What to highlight: a state or its name, a connection, or a manager, whose connections are counted by
            state. Each state has its own colour: `failed` is red, `ready` green.

    Raises:
        ValueError: there is no state with this name.
    """
    marked = highlighted(highlight)
    lines = ["stateDiagram-v2", f"    [*] --> {INITIAL.value}"]
    lines += [f"    {row.source.value} --> {row.target.value}: {row.event.value}" for row in TRANSITIONS]
    lines += [f"    {state.value} --> [*]" for state in State if state in FINAL]
    for state in State:
        if state not in marked:
            continue
        name = f"{state.value}_now"
        if marked.fleet:
            lines.append(f"    {state.value}: {marked.label(state)}")
        lines += [
            f"    classDef {name} fill:{COLOURS[state]},stroke:{COLOURS[state]},color:#ffffff",
            f"    class {state.value} {name}",
        ]
    return "\n".join(lines) + "\n"


def dot(highlight: Highlight = None) -> str:
    """A Graphviz DOT graph.

    Args:
        highlight: As for `mermaid`.

    Raises:
        ValueError: there is no state with this name.
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
        if state in marked:
            attributes += [f'fillcolor="{COLOURS[state]}"', f'color="{COLOURS[state]}"', 'fontcolor="#ffffff"']
            attributes += [f'label="{marked.label(state)}"'] if marked.fleet else []
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
        highlight: As for `mermaid`: the rows that leave a highlighted state are bold.

    Raises:
        ValueError: there is no state with this name.
    """
    marked = highlighted(highlight)
    rows = []
    for row in TRANSITIONS:
        cells = [f"`{row.source.value}`", f"`{row.event.value}`", f"`{row.target.value}`", row.when]
        rows.append([f"**{cell}**" for cell in cells] if row.source in marked else cells)
    return table(["from", "event", "to", "when"], rows)


def table(header: list[str], rows: list[list[str]]) -> str:
    """A Markdown table."""
    lines = [header, ["---"] * len(header), *([cell.replace("|", "\\|") for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def _quoted(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"')
