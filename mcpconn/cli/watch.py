"""`mcpconn watch`: all connections, live, their transitions scrolling below."""

from __future__ import annotations

import json
import math
import sys
from collections import deque
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path

import anyio
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from mcpconn.cli.connect import DRAIN
from mcpconn.cli.output import STYLES, grid, one_line, seconds, shown_state, stdout
from mcpconn.config import ServerConfig
from mcpconn.core.states import Event, State
from mcpconn.manager import Manager
from mcpconn.policy import Policy
from mcpconn.runtime import Clock
from mcpconn.runtime.journal import Change
from mcpconn.status import change_status

TICK = 0.5
"""Seconds between two pictures while nothing happens: the clocks in it go on."""
KEPT = 1000
"""Transitions kept for a terminal that grows."""


async def watch(
    servers: Mapping[str, ServerConfig], path: Path, *, probe: float, duration: float | None, as_json: bool
) -> None:
    """Show the connections until Ctrl-C.

    Args:
        servers: By name.
        path: The configuration file, for the heading.
        probe: Seconds after which a quiet connection is probed. Nobody calls here, so nobody else would notice.
        duration: Seconds to watch; None: until Ctrl-C.
        as_json: A line of JSON for each transition, in place of the view.
    """
    manager = Manager(servers, policy=Policy(keepalive=probe, drain_timeout=DRAIN))
    with anyio.move_on_after(math.inf if duration is None else duration):
        if as_json or not sys.stdout.isatty():
            manager.subscribe(_print_json if as_json else _print_line)
            async with manager:
                await anyio.sleep_forever()
        else:
            await _show(manager, path)


def _print_json(change: Change) -> None:
    sys.stdout.write(json.dumps({"server": change.server, **change_status(change)}) + "\n")
    sys.stdout.flush()


def _print_line(change: Change) -> None:
    sys.stdout.write(line_of(change).plain + "\n")
    sys.stdout.flush()


async def _show(manager: Manager, path: Path) -> None:
    view = View(manager, path)
    news = anyio.Event()

    def note(change: Change) -> None:
        view.changes.append(change)
        news.set()

    manager.subscribe(note)
    with Live(console=stdout(), screen=True, auto_refresh=False) as live:
        async with manager:
            while True:
                live.update(view.picture(live.console), refresh=True)
                with anyio.move_on_after(TICK):
                    await news.wait()
                news = anyio.Event()


class View:
    """What is on the screen."""

    def __init__(self, manager: Manager, path: Path, clock: Clock | None = None) -> None:
        self.manager = manager
        self.path = path
        self.clock = clock or Clock()
        self.began = self.clock.wall()
        self.changes: deque[Change] = deque(maxlen=KEPT)

    def picture(self, console: Console) -> Group:
        """The connections, and as many of the last transitions as there is room for."""
        table = self.table()
        above: list[RenderableType] = [self.heading(), Text(), table, Text(), Rule("transitions", style="dim")]
        used = sum(len(console.render_lines(each, pad=False)) for each in above)
        room = max(1, console.height - used - 1)
        lines: list[Text] = []
        for change in reversed(self.changes):
            line = line_of(change, max(map(len, self.manager), default=0))
            line.truncate(console.width, overflow="ellipsis")
            lines.append(line)
            if len(lines) >= room:
                break
        return Group(*above, *lines[::-1])

    def heading(self) -> Text:
        """One line: the file, how many are ready, how long this has been going on."""
        ready = [connection.state for connection in self.manager.values()].count(State.READY)
        text = Text(no_wrap=True, overflow="ellipsis")
        text.append(str(self.path), style="bold")
        text.append(
            f"  {ready} of {len(self.manager)} ready", style="green" if ready == len(self.manager) else "yellow"
        )
        text.append(f"  {seconds(round(self.clock.wall() - self.began))}  Ctrl-C ends it", style="dim")
        return text

    def table(self) -> Table:
        """One row a connection."""
        table = grid(
            "server",
            "state",
            "for",
            "epoch",
            "next try",
            "last failure",
            right=("for", "epoch", "next try"),
            fill="last failure",
        )
        for name, connection in self.manager.items():
            status = connection.status()
            since = status["since"] or self.began
            failure = status["last_failure"]
            last = failure["summary"] if failure else "-"
            healed = connection.state is State.READY
            table.add_row(
                Text(one_line(name)),
                shown_state(connection.state),
                seconds(max(0, round(self.clock.wall() - since))),
                str(status["epoch"]),
                seconds(math.ceil(status["retry_in"])) if status["retry_in"] is not None else "-",
                Text(one_line(status["progress"] or last), style="dim" if healed else ""),
            )
        return table


def line_of(change: Change, width: int = 0) -> Text:
    """A transition in one line.

    Args:
        change: The transition.
        width: Characters to fill the server's name up to.
    """
    style, sign = STYLES[change.target]
    text = Text(no_wrap=True, overflow="ellipsis")
    text.append(datetime.fromtimestamp(change.at).astimezone().strftime("%H:%M:%S  "), style="dim")
    text.append(f"{one_line(change.server):<{width}}  ", style="bold")
    text.append(f"{change.source} -> {sign} {change.target}", style=style)
    text.append(f"  {change.event}")
    if change.event is Event.ESTABLISHED:
        text.append(f" after {seconds(change.elapsed)}", style="dim")
    if change.failure is not None:
        text.append(f": {one_line(change.failure.summary)}")
    if change.wait and change.target is not State.CLOSED:
        text.append(f" (next try in {seconds(change.wait)})", style="dim")
    return text
