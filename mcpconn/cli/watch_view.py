"""The display of `mcpconn watch`: a table of connections, failed ones first, and their last transitions."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from mcpconn.cli.output import STYLES, one_line, seconds, shown_state
from mcpconn.cli.watch_sources import Row, Source
from mcpconn.core.states import Event, State
from mcpconn.runtime.clock import Clock

KEPT = 1000
"""Transitions kept for a terminal that grows."""
ORDER = [State.FAILED, State.RECONNECTING, State.CONNECTING, State.READY, State.IDLE, State.CLOSED]
"""States in the order of urgency."""
OPTIONAL = ("last failure", "next try", "for", "epoch")
"""Columns that a terminal may be too narrow for; the last goes first. Name and state are never cut."""
ROOM = 16
"""Columns that a failure needs to be worth showing."""
LEAST = 3
"""Lines that transitions have below a table that is too long for the terminal."""


class View:
    """What is on the screen, and what the keys have done to it."""

    def __init__(self, source: Source, clock: Clock | None = None) -> None:
        self.source = source
        self.clock = clock or Clock()
        self.began = self.clock.wall()
        self.changes: deque[Row] = deque(maxlen=KEPT)
        self.selected: str | None = None
        self.detailed = False
        """Whether the selected connection is shown in full, in place of the transitions."""
        self.note = ""
        """The result of the last action."""
        self._first = 0
        """The row at the top of the table."""

    # -- keys

    def press(self, key: str) -> str | None:
        """Handle a key. Returns the name of a connection to reconnect, or "quit"."""
        names = [row["name"] for row in self._rows()]
        steps = {"up": -1, "down": 1, "page up": -10, "page down": 10}
        if key == "q":
            return "quit"
        if key == "escape":
            self.detailed, self.selected = False, self.selected if self.detailed else None
        elif key in steps and names:
            at = names.index(self.selected) if self.selected in names else (-1 if steps[key] > 0 else len(names))
            self.selected = names[min(max(at + steps[key], 0), len(names) - 1)]
        elif key == "enter":
            self.detailed = not self.detailed and self.selected is not None
        elif key == "r" and self.selected in names:
            return self.selected
        return None

    # -- picture

    def picture(self, console: Console) -> Group:
        """The connections, and as many of the last transitions as there is room for."""
        rows = self._rows()
        room = max(1, console.height - 7 - (0 if self.detailed else LEAST))
        if self.detailed:
            room = max(1, min(room, console.height // 3))
        shown = self._window(rows, room)
        above: list[RenderableType] = [self.heading(rows), Text(), self._table(shown, console.width)]
        hidden = len(rows) - len(shown)
        if hidden:
            above.append(Text(f"{hidden} more: up and down scroll", style="dim"))
        above += [Text(), Rule((self.detailed and self.selected) or "transitions", style="dim")]
        used = sum(len(console.render_lines(each, pad=False)) for each in above)
        left = max(1, console.height - used - 1)
        return Group(*above, *(self._detail(console, left) if self.detailed else self._newest(console, left, rows)))

    def _rows(self) -> list[Row]:
        return sorted(self.source.rows().values(), key=lambda row: ORDER.index(State(row["state"])))

    def _window(self, rows: list[Row], room: int) -> list[Row]:
        """As many rows as fit, the selected one among them."""
        names = [row["name"] for row in rows]
        at = names.index(self.selected) if self.selected in names else 0
        self._first = min(max(self._first, at - room + 1), at, max(0, len(rows) - room))
        return rows[self._first : self._first + room]

    def heading(self, rows: list[Row]) -> Text:
        """One line: the source, the number of ready connections, the elapsed time, and the keys."""
        states = [row["state"] for row in rows]
        ready = states.count("ready")
        text = Text(no_wrap=True, overflow="ellipsis")
        text.append(f"{ready} of {len(rows)} ready", style="green" if ready == len(rows) else "yellow")
        text.append(f"  {one_line(self.source.title)}", style="bold")
        if self.source.trouble or self.note:
            text.append(f"  {one_line(self.source.trouble or self.note)}", style="red" if self.source.trouble else "")
        text.append(f"  {seconds(round(self.clock.wall() - self.began))}  keys: up, down, enter, r, q", style="dim")
        return text

    def _table(self, rows: list[Row], width: int) -> Table:
        now = self.clock.wall()
        cells = [self._cells(row, now) for row in rows]
        columns = self._columns(cells, width)
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold", expand=True)
        for column in columns:
            fills = column == "last failure"
            table.add_column(
                column,
                justify="right" if column in ("for", "epoch", "next try") else "left",
                no_wrap=column != "server",
                overflow="ellipsis" if fills else "fold",
                ratio=1 if fills or (column == "server" and "last failure" not in columns) else None,
            )
        for row, each in zip(rows, cells, strict=True):
            style = "reverse" if row["name"] == self.selected else ""
            table.add_row(*(each[column] for column in columns), style=style)
        return table

    @staticmethod
    def _columns(cells: list[dict[str, Text]], width: int) -> list[str]:
        """The columns that there is room for."""
        columns = ["server", "state", "for", "epoch", "next try", "last failure"]
        widths = {name: max(len(name), *(row[name].cell_len for row in cells)) + 2 if cells else 0 for name in columns}
        widths["last failure"] = ROOM
        for name in OPTIONAL[::-1]:
            if sum(widths[each] for each in columns) > width:
                columns.remove(name)
        return columns

    def _cells(self, row: Row, now: float) -> dict[str, Text]:
        last = row["progress"] or row["failure"] or "-"
        retry_at = row["retry_at"]
        return {
            "server": Text(one_line(row["name"])),
            "state": shown_state(row["state"]),
            "for": Text(seconds(max(0, round(now - (row["since"] or self.began))))),
            "epoch": Text(str(row["epoch"])),
            "next try": Text(seconds(max(0, math.ceil(retry_at - now))) if retry_at is not None else "-"),
            "last failure": Text(one_line(last), style="dim" if row["state"] == "ready" else ""),
        }

    def _newest(self, console: Console, room: int, rows: list[Row]) -> list[Text]:
        width = max((len(one_line(row["name"])) for row in rows), default=0)
        lines: list[Text] = []
        for change in reversed(self.changes):
            line = line_of(change, width)
            line.truncate(console.width, overflow="ellipsis")
            lines.append(line)
            if len(lines) >= room:
                break
        return lines[::-1]

    def _detail(self, console: Console, room: int) -> list[Text]:
        """The selected connection: its failure in full, and its own transitions."""
        row = self.source.rows().get(self.selected or "")
        if row is None:
            return [Text("it was removed")]
        facts = f"{row['transport']}, {row['address']}; epoch {row['epoch']}, {row['calls']} calls, "
        facts += f"{row['in_flight']} in flight, {row['waiting']} waiting, {row['unknown']} with unknown outcome"
        texts = [Text(one_line(facts), style="dim")]
        if row["failure"] is not None:
            texts.append(
                Text(f"{'last failure' if row['state'] == 'ready' else 'because'}: {one_line(row['failure'])}")
            )
        own = [line_of(change) for change in self.changes if change["name"] == row["name"]]
        lines = [line for text in texts for line in text.wrap(console, console.width, overflow="fold")]
        newest = [line for text in own for line in text.wrap(console, console.width, overflow="fold")]
        rest = max(0, room - len(lines))
        return [*lines[:room], *(newest[-rest:] if rest else [])]


def line_of(change: Mapping[str, Any], width: int = 0) -> Text:
    """A transition in one line.

    Args:
        change: The transition, as `mcpconn.asgi.rows.news` makes it.
        width: Characters to fill the server's name up to.
    """
    style, sign = STYLES[State(change["to"])]
    text = Text(no_wrap=True, overflow="ellipsis")
    text.append(datetime.fromtimestamp(change["at"]).astimezone().strftime("%H:%M:%S  "), style="dim")
    text.append(f"{one_line(change['name']):<{width}}  ", style="bold")
    text.append(f"{change['from']} -> {sign} {change['to']}", style=style)
    text.append(f"  {change['event']}")
    if change["event"] == Event.ESTABLISHED:
        text.append(f" after {seconds(change['elapsed'])}", style="dim")
    if change["failure"] is not None:
        text.append(f": {one_line(change['failure']['summary'])}")
    if change["wait"] and change["to"] != State.CLOSED:
        text.append(f" (next try in {seconds(change['wait'])})", style="dim")
    return text
