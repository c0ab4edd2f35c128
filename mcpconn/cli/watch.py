"""`mcpconn watch`: all connections live, with their transitions below."""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Mapping
from pathlib import Path

import anyio
from rich.live import Live

from mcpconn.cli.connect import DRAIN
from mcpconn.cli.failures import USAGE, CliError
from mcpconn.cli.keyboard import Keyboard, keyboard
from mcpconn.cli.output import discard, stdout
from mcpconn.cli.watch_sources import Attached, Own, Row, Source
from mcpconn.cli.watch_view import View, line_of
from mcpconn.config import ServerConfig
from mcpconn.manager import Manager
from mcpconn.policy import Policy

TICK = 0.5
"""Seconds between updates without events, to update the displayed times."""
KEY_VARIABLE = "MCPCONN_KEY"


def own(servers: Mapping[str, ServerConfig], path: Path, *, probe: float) -> Source:
    """The command's own connections: second sessions, and second copies of child processes.

    Args:
        servers: By name.
        path: The configuration file, for the heading.
        probe: Seconds after which an idle connection is probed, because there are no calls that would reveal a loss.
    """
    return Own(Manager(servers, policy=Policy(keepalive=probe, drain_timeout=DRAIN)), f"{path} (own sessions)")


def attached(url: str, *, key_file: Path | None, names: tuple[str, ...]) -> Source:
    """The connections of a running host.

    Args:
        url: Where its status page is.
        key_file: A file that holds the page's key. Without it, the key is `MCPCONN_KEY`'s value, if there is one.
        names: Those to be shown; all if there are none.

    Raises:
        CliError: the URL or the file cannot be used.
    """
    key = os.environ.get(KEY_VARIABLE)
    if key_file is not None:
        try:
            key = key_file.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is not text"
            raise CliError(f"--key-file {key_file}: {reason}", USAGE) from None
    if key and not key.isascii():
        raise CliError("the key holds characters that no HTTP header can carry", USAGE)
    return Attached(url, key=key or None, names=names)


async def watch(source: Source, *, duration: float | None, as_json: bool) -> None:
    """Show connections until Ctrl-C, or until the output is closed.

    Args:
        source: The connections.
        duration: Seconds to watch; None: until Ctrl-C.
        as_json: A line of JSON for each transition, in place of the view.
    """
    with anyio.move_on_after(math.inf if duration is None else duration):
        if as_json or not sys.stdout.isatty():
            await _print(source, as_json=as_json)
        else:
            await _show(source)


async def _print(source: Source, *, as_json: bool) -> None:
    unread = anyio.Event()

    def write(change: Row) -> None:
        named = {"server": change["name"], **{key: value for key, value in change.items() if key != "name"}}
        try:
            sys.stdout.write((json.dumps(named) if as_json else line_of(change).plain) + "\n")
            sys.stdout.flush()
        except BrokenPipeError:
            discard(sys.stdout)
            unread.set()

    async with source.running(write):
        await unread.wait()


async def _show(source: Source) -> None:
    view = View(source)
    news = anyio.Event()

    def note(change: Row) -> None:
        view.changes.append(change)
        news.set()

    async def obey(keys: Keyboard, scope: anyio.CancelScope) -> None:
        while True:
            asked = view.press(await keys.key())
            if asked == "quit":
                scope.cancel()
            elif asked is not None:
                view.note = await source.reconnect(asked) or f"{asked}: asked to reconnect"
            news.set()

    with keyboard() as keys, Live(console=stdout(), screen=True, auto_refresh=False) as live:
        async with source.running(note), anyio.create_task_group() as group:
            group.start_soon(obey, keys, group.cancel_scope)
            while True:
                live.update(view.picture(live.console), refresh=True)
                with anyio.move_on_after(TICK):
                    await news.wait()
                news = anyio.Event()
