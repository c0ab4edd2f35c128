"""The demo's command: arguments, starting and stopping the servers, the summary, the exit status."""

from __future__ import annotations

import argparse
import asyncio
import logging
import signal
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import anyio

from mcpconn.demo.breakages import DEFAULT_SECONDS, HTTP, STDIO, schedule
from mcpconn.demo.processes import SERVER, START_TIMEOUT, DemoError, HttpServer
from mcpconn.demo.show import CALLERS, Show
from mcpconn.demo.summary import Outcome, write
from mcpconn.demo.timeline import Timeline
from mcpconn.manager import Manager

BROKEN, UNABLE, INTERRUPTED = 1, 2, 130
"""Exit statuses: the promise was broken; the demo could not run; Ctrl-C ended it (128 + SIGINT)."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the demo; returns its exit status: 0 if the promise was kept."""
    parser = argparse.ArgumentParser(
        prog="python -m mcpconn.demo",
        description="Calls two MCP servers while their sessions expire and their processes are killed. "
        "Exit status 0: no call was executed twice, and everything recovered.",
    )
    parser.add_argument(
        "--seconds", type=_seconds, default=DEFAULT_SECONDS, help="how long to go on (default: %(default)g)"
    )
    parser.add_argument("--log", type=Path, metavar="FILE", help="write the library's log lines to a file")
    options = parser.parse_args(argv)
    _set_up_logging(options.log)
    # SIGTERM ends it as cleanly as Ctrl-C does, even if SIGINT is ignored, as in a shell's background jobs.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    timeline = Timeline(sys.stdout)
    try:
        return anyio.run(_perform, timeline, options.seconds)
    except (KeyboardInterrupt, asyncio.CancelledError):
        # On Python 3.10, an interrupted loop ends with the cancellation itself.
        timeline.plain("\nInterrupted. Both servers have been ended.")
        return INTERRUPTED
    except DemoError as error:
        timeline.plain()
        print(error, file=sys.stderr)
        return UNABLE


def _seconds(text: str) -> float:
    value = float(text)
    if not 0 < value < 3600:
        raise argparse.ArgumentTypeError("must be more than 0 and less than 3600")
    return value


def _set_up_logging(file: Path | None) -> None:
    """Send the logs to a file or nowhere, because the timeline shows the same."""
    if file is None:
        logging.getLogger().addHandler(logging.NullHandler())
        return
    logging.basicConfig(filename=file, level=logging.INFO, format="%(asctime)s %(name)s %(levelname)s %(message)s")


async def _perform(timeline: Timeline, seconds: float) -> int:
    with tempfile.TemporaryDirectory(prefix="mcpconn-demo-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        http, pid_file = HttpServer(folder), folder / "stdio.pid"
        timeline.plain("Starting two MCP servers ...")
        try:
            await http.start()
            show, states = await _connected(timeline, http, pid_file, seconds)
        finally:
            await http.kill()
        if show.trouble is not None:
            raise show.trouble
        ledger = Counter(http.ledger.read_text(encoding="utf-8").split()) if http.ledger.exists() else Counter[str]()
    outcome = Outcome(show.calls, show.recoveries, show.replayed, ledger, states)
    return 0 if write(outcome, timeline) else BROKEN


async def _connected(
    timeline: Timeline, http: HttpServer, pid_file: Path, seconds: float
) -> tuple[Show, dict[str, str]]:
    child = [str(SERVER), "--ledger", str(http.ledger), "--pid-file", str(pid_file)]
    # The protocol of 2026-07-28 has no sessions that could expire; the previous one has.
    servers = {
        HTTP: {"url": http.url, "mode": "legacy"},
        STDIO: {"command": sys.executable, "args": child},
    }
    manager = Manager(servers)
    timeline.plain(f"  {HTTP:<8}the SDK's MCPServer, with sessions, at {http.url}")
    timeline.plain(f"  {STDIO:<8}the same server as a child process")
    timeline.plain(f"On each, {CALLERS} callers of add (it only reads) and {CALLERS} of charge (never to run twice)")
    timeline.plain("keep calling. None of them retries or reconnects. Lines with *** are what goes wrong.\n")
    timeline.heading()
    show = Show(manager, timeline)
    async with manager:
        await manager.wait_ready(START_TIMEOUT)
        if any(connection.state != "ready" for connection in manager.values()):
            show.trouble = DemoError(f"the servers could not be connected to: {manager!r}")
        else:
            await show.run(schedule(http, pid_file, seconds), seconds)
        states = {name: connection.state.value for name, connection in manager.items()}
    return show, states
