"""What the demo prints while it runs: one line per event, in columns, and on a terminal a line that is updated."""

from __future__ import annotations

import os
import shutil
import textwrap
import time
from typing import TextIO

from mcpconn.core import Event, State
from mcpconn.runtime.journal import Change

MARGIN = 16
"""Columns for time and server."""
WHAT = 24
"""Columns for what happened; the reason gets the rest of the line."""
NARROW = 30
"""Below so many columns left for the reason, lines are not folded: a narrow terminal folds them itself."""
WIDE = 100
"""Width if there is no terminal."""

BOLD, RED, GREEN, YELLOW, DIM = "1", "31", "32", "33", "2"


def describe(change: Change) -> tuple[str, str]:
    """A transition in words, and why it happened."""
    why = change.failure.summary if change.failure is not None else ""
    if change.event is Event.SUSPECTED:
        return "ready, probing", why
    if change.event is Event.ATTEMPT_FAILED:
        later = f"; next within {change.wait:.1f} s" if change.wait is not None else ""
        return change.target.value, f"dial {change.attempt}: {why}{later}"
    if change.event is Event.ESTABLISHED:
        why = f"session {change.epoch}, in {change.elapsed:.2f} s"
    return f"{change.source} -> {change.target}", why


def colour_of(change: Change) -> str:
    """Green if calls succeed, red if they cannot, yellow in between."""
    if change.target is State.READY:
        return YELLOW if change.event is Event.SUSPECTED else GREEN
    return RED if change.target in (State.RECONNECTING, State.FAILED) else DIM


class Timeline:
    """Writes events with the time since the start. Events of many calls are combined into one line."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._began = time.monotonic()
        self._gathered: dict[tuple[str, str, str], list[float]] = {}
        terminal = out.isatty() and os.environ.get("TERM", "") != "dumb" and os.name != "nt"
        self._lively = terminal
        self._coloured = terminal and not os.environ.get("NO_COLOR")
        self._width = shutil.get_terminal_size((WIDE, 24)).columns if out.isatty() else WIDE

    def now(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self._began

    def paint(self, text: str, colour: str) -> str:
        """`text` in a colour, if the terminal supports it."""
        return f"\x1b[{colour}m{text}\x1b[0m" if self._coloured and text else text

    def plain(self, text: str = "") -> None:
        """Write a line unchanged."""
        self.flush()
        self._write(text)

    def heading(self) -> None:
        """Write the columns' headings."""
        self._write(self.paint(f"{'time':>6}  {'server':<8}{'transition':<{WHAT}}cause", DIM))

    def event(self, server: str, what: str, why: str = "", colour: str = "") -> None:
        """Write a line with the time, after the combined events that came before it."""
        self.flush()
        self._event(self.now(), server, what, why, colour)

    def change(self, change: Change) -> None:
        """Write a transition."""
        self.event(change.server, *describe(change), colour_of(change))

    def gather(self, server: str, what: str, why: str) -> None:
        """Count an event of many calls, for one line about all of them."""
        self._gathered.setdefault((server, what, why), []).append(self.now())

    def flush(self) -> None:
        """Write the combined events."""
        gathered, self._gathered = self._gathered, {}
        for (server, what, why), times in gathered.items():
            self._event(times[0], server, f"  {len(times)} x {what}", why, DIM)

    def live(self, text: str) -> None:
        """Show a line that the next one overwrites; on a terminal only."""
        if self._lively:
            self._out.write(f"\r\x1b[K{self.paint(text[: self._width - 1], DIM)}")
            self._out.flush()

    def _event(self, at: float, server: str, what: str, why: str, colour: str) -> None:
        left = self._width - MARGIN - WHAT
        folded = textwrap.wrap(why, left) if left >= NARROW else [why]
        first, *others = folded or [""]
        padded = what.ljust(WHAT) if first else what
        self._write(f"{at:6.2f}  {server:<8}{self.paint(padded, colour)}{first}")
        for line in others:
            self._write(" " * (MARGIN + WHAT) + line)

    def _write(self, text: str) -> None:
        self._out.write(f"\r\x1b[K{text}\n" if self._lively else f"{text}\n")
        self._out.flush()
