"""The output of the command line: tables for people, JSON for programs, errors in one line."""

from __future__ import annotations

import io
import json
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import IO, Any

from rich.console import Console
from rich.live import Live
from rich.spinner import Spinner
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
PLAIN_SIGNS = {"●": "+", "◌": "~", "✖": "x", "○": "-"}
"""For terminals with ASCII only."""
UNLIMITED = 200
"""Width of a table that goes to a file or a pipe."""

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def clean(text: str) -> str:
    """`text` without terminal control characters, because it may come from a server."""
    return _CONTROL.sub("�", text.replace("\r\n", "\n"))


def one_line(text: str) -> str:
    """`text` in one line."""
    return " ".join(clean(text).split())


def can_show(character: str) -> bool:
    """Whether standard output has this character."""
    try:
        character.encode(sys.stdout.encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return False
    return not (sys.stdout.isatty() and _is_ascii_terminal())


def _is_ascii_terminal() -> bool:
    """Whether the terminal is ASCII-only according to the locale. Python itself writes UTF-8 in that case (PEP 540)."""
    locale = next((os.environ[name] for name in ("LC_ALL", "LC_CTYPE", "LANG") if os.environ.get(name)), "C.UTF-8")
    return locale in ("C", "POSIX") or os.environ.get("TERM") == "dumb"


def prepare_streams() -> None:
    """Prepare the standard streams. One that the caller has closed (`>&-`) discards what is written to it. Characters
    that standard output and error cannot encode are replaced, because servers may send any text."""
    # In the order of their numbers: each takes the lowest free one, so that no socket or pipe to a child takes it.
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115 - open until the process ends
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


_live: list[Live] = []
"""The display that redraws a line of the terminal; at most one."""


@contextmanager
def live(shown: Any) -> Iterator[None]:
    """Show a changing line on standard error while the block runs."""
    spinner = Spinner("dots" if can_show("⠋") else "line", shown, style="status.spinner")
    # Not redirected: rich's substitute for sys.stdout is no terminal and has no encoding.
    line = Live(
        spinner,
        console=stderr(),
        refresh_per_second=12.5,
        transient=True,
        redirect_stdout=False,
        redirect_stderr=False,
    )
    with line:
        _live.append(line)
        try:
            yield
        finally:
            _live.remove(line)


@contextmanager
def paused() -> Iterator[None]:
    """Remove that line while others are written."""
    for line in _live:
        line.stop()
    try:
        yield
    finally:
        for line in _live:
            line.start()


def discard(stream: IO[str]) -> None:
    """Send what is still written to `stream` nowhere, because its reader has closed the pipe. Without this, Python
    writes the rest of the buffer again at exit, and reports an error."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


class _Console(Console):
    """Raises the error of a closed pipe, which rich turns into exit status 1."""

    def on_broken_pipe(self) -> None:
        raise


def stdout() -> Console:
    """Where results go."""
    return _Console(width=None if sys.stdout.isatty() else UNLIMITED, highlight=False, soft_wrap=False)


def stderr() -> Console:
    """Where everything else goes."""
    return _Console(stderr=True, highlight=False)


def say(message: str) -> None:
    """A line on standard error, not cut or wrapped at any width."""
    with paused():
        sys.stderr.write(f"{clean(hide(message))}\n")


def complain(message: str) -> None:
    """An error on standard error: one line. Nothing happens if nobody reads it."""
    try:
        sys.stderr.write(f"error: {one_line(hide(message))}\n")
        sys.stderr.flush()
    except BrokenPipeError:
        discard(sys.stderr)


def print_json(data: Any) -> None:
    """Data on standard output, for programs."""
    sys.stdout.write(json.dumps(data, indent=2, ensure_ascii=False) + "\n")


def shown_state(state: State | str) -> Text:
    """A state with its colour and its symbol; a terminal without colours shows the symbol."""
    style, sign = STYLES[State(state)]
    return Text(f"{sign if can_show(sign) else PLAIN_SIGNS[sign]} {State(state).value}", style=style)


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
