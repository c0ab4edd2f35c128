"""How the command line speaks: tables for people, JSON for programs, errors in one line."""

from __future__ import annotations

import json
import re
import sys
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from mcpconn.cli.hiding import hide
from mcpconn.core.states import State

STYLES = {
    State.READY: ("green", "●"),
    State.CONNECTING: ("yellow", "◌"),
    State.RECONNECTING: ("yellow", "◌"),
    State.FAILED: ("red", "✖"),
    State.IDLE: ("dim", "○"),
    State.CLOSED: ("dim", "○"),
}
UNLIMITED = 200
"""Columns of a table that goes to a file or a pipe, where no terminal says how many there are."""

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def clean(text: str) -> str:
    """`text` without characters that would command the terminal: a server's words must not."""
    return _CONTROL.sub("�", text.replace("\r\n", "\n"))


def one_line(text: str) -> str:
    """`text` in one line."""
    return " ".join(clean(text).split())


def stdout() -> Console:
    """Where results go."""
    return Console(width=None if sys.stdout.isatty() else UNLIMITED, highlight=False, soft_wrap=False)


def stderr() -> Console:
    """Where everything else goes."""
    return Console(stderr=True, highlight=False)


def say(message: str) -> None:
    """A line on standard error, not cut or wrapped at any width."""
    sys.stderr.write(f"{clean(hide(message))}\n")


def complain(message: str) -> None:
    """An error on standard error: one line."""
    sys.stderr.write(f"error: {one_line(hide(message))}\n")


def print_json(data: Any) -> None:
    """Data on standard output, for programs."""
    sys.stdout.write(json.dumps(data, indent=2, ensure_ascii=False) + "\n")


def grid(*columns: str, right: tuple[str, ...] = (), fold: str = "", fill: str = "") -> Table:
    """An empty table. Every cell is one line and as wide as it has to be, with two exceptions.

    Args:
        columns: Headings.
        right: Those whose cells are set to the right.
        fold: The column that is folded where there is no room for it.
        fill: The column that takes the room there is, and is cut.
    """
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold", expand=bool(fill))
    for column in columns:
        table.add_column(
            column,
            justify="right" if column in right else "left",
            no_wrap=column != fold,
            overflow="fold" if column == fold else "ellipsis",
            ratio=1 if column == fill else None,
        )
    return table


def shown_state(state: State | str) -> Text:
    """A state with its colour and its sign: a terminal without colours shows the sign."""
    style, sign = STYLES[State(state)]
    return Text(f"{sign} {State(state).value}", style=style)


def seconds(value: float | None) -> str:
    """A duration for people; a whole number of seconds stays one."""
    if value is None:
        return "-"
    if isinstance(value, int) and value < 100:
        return f"{value} s"
    if value < 1:
        return f"{value * 1000:.0f} ms"
    if value < 100:
        return f"{value:.1f} s"
    minutes, rest = divmod(round(value), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
