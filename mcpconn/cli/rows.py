"""Rows that are printed one by one, as soon as their data is known."""

from __future__ import annotations

import sys
from dataclasses import dataclass

from rich.text import Text

from mcpconn.cli.output import can_show, paused, stdout

GAP = 2
"""Spaces between two columns."""
NARROWEST = 8
"""Minimum width of the last column; if it is narrower, an earlier column is omitted."""


@dataclass(frozen=True)
class Column:
    """A column. Its width is fixed before its first cell is known, so that rows do not wait for each other."""

    heading: str
    width: int
    right: bool = False
    whole: bool = False
    """Never truncated and never omitted, even on a narrow terminal."""


class Rows:
    """A table that grows. On a terminal its columns are aligned and fit its width; in a pipe a tab separates cells."""

    def __init__(self, *columns: Column) -> None:
        self._columns = columns
        self._shown: list[Column] = []
        self._begun = False

    def add(self, *cells: Text | str) -> None:
        """Print a row, and the headings before the first one."""
        with paused():
            if not self._begun:
                self._begun = True
                self._shown = self._fitting()
                self._print([Text(column.heading, style="bold") for column in self._columns])
            self._print([cell if isinstance(cell, Text) else Text(cell) for cell in cells])

    def _fitting(self) -> list[Column]:
        """The columns that there is room for. The last ones go first."""
        shown = list(self._columns)
        if not sys.stdout.isatty():
            return shown
        width = stdout().width
        while sum(column.width + GAP for column in shown[:-1]) + NARROWEST > width:
            rest = [column for column in shown if not column.whole]
            if not rest:
                break
            shown.remove(rest[-1])
        return shown

    def _print(self, cells: list[Text]) -> None:
        found = dict(zip(self._columns, cells, strict=True))
        if not sys.stdout.isatty():
            sys.stdout.write("\t".join(cell.plain for cell in found.values()) + "\n")
            sys.stdout.flush()
            return
        console, line = stdout(), Text(no_wrap=True, overflow="ignore")
        for column in self._shown:
            cell, last = found[column], column is self._shown[-1]
            room = console.width - len(line.plain) if last else column.width
            if not column.whole:
                cell.truncate(max(room, 0), overflow="ellipsis" if can_show("…") else "crop")
            padding = " " * max(0, column.width - cell.cell_len)
            line.append_text(Text(padding) + cell if column.right else cell + Text("" if last else padding))
            if not last:
                line.append(" " * GAP)
        line.rstrip()
        # A name that is wider than the terminal is folded by it, and not cut.
        console.print(line, soft_wrap=True)
