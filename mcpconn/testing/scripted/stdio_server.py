"""A scripted MCP server on standard input and output.

Run it by path, which is `STDIO_SERVER`: `python .../mcpconn/testing/scripted/stdio_server.py --tools add`.
It then loads only the modules beside it, which need nothing but the standard library, so it
starts fast. `python -m mcpconn.testing.scripted.stdio_server` works too, but imports the whole package.
"""

from __future__ import annotations

import sys
import types
from pathlib import Path

_HERE = Path(__file__).resolve().parent


def _stand_alone() -> None:
    """Make the modules beside this file importable without running `mcpconn/__init__.py`."""
    # Run by path, this directory comes first on the path, and its http.py would hide the standard library's.
    if sys.path and Path(sys.path[0] or ".").resolve() == _HERE:
        del sys.path[0]
    for name, directory in (
        ("mcpconn", _HERE.parent.parent),
        ("mcpconn.testing", _HERE.parent),
        ("mcpconn.testing.scripted", _HERE),
    ):
        if name not in sys.modules:
            package = types.ModuleType(name)
            package.__path__ = [str(directory)]
            sys.modules[name] = package


if __name__ == "__main__":
    _stand_alone()

import argparse  # noqa: E402
import json  # noqa: E402
import os  # noqa: E402
import threading  # noqa: E402
import time  # noqa: E402
from collections.abc import Iterator  # noqa: E402

from mcpconn.testing.scripted.hostile import lying_tools  # noqa: E402
from mcpconn.testing.scripted.records import Execution  # noqa: E402
from mcpconn.testing.scripted.script import Script  # noqa: E402
from mcpconn.testing.scripted.steps import Message, Sleep, Verbatim, encode, error_message  # noqa: E402
from mcpconn.testing.scripted.streams import Item  # noqa: E402
from mcpconn.testing.scripted.tools import default_tools  # noqa: E402


def _arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="A scripted MCP server on standard input and output.")
    parser.add_argument("--era", choices=("legacy", "modern"), default="legacy")
    parser.add_argument("--tools", help="comma-separated names of the tools to offer; all by default")
    parser.add_argument("--count-file", type=Path, help="append the name of each executed tool, one per line")
    parser.add_argument("--pid-file", type=Path, help="write the process id here at the start")
    parser.add_argument("--exit-after-handshake", action="store_true", help="exit once the client is ready")
    parser.add_argument("--crash-on-start", metavar="TEXT", help="write TEXT to standard error and exit")
    parser.add_argument("--die-on", metavar="TOOL", help="die after running TOOL, before answering")
    parser.add_argument(
        "--first",
        choices=("exit", "ignore", "hang"),
        help="what to do about a first message other than initialize: exit, leave it unanswered, or leave all "
        "unanswered from then on",
    )
    parser.add_argument("--ignore", metavar="METHODS", default="", help="comma-separated methods never to answer")
    parser.add_argument("--refuse", metavar="CODE", type=int, help="refuse initialize with this JSON-RPC error code")
    parser.add_argument(
        "--flush", metavar="SECONDS", type=float, help="take so long to end, then append `flushed` to the count file"
    )
    return parser.parse_args(argv)


class _Output:
    """Standard output, one message per line, shared by several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()

    def write(self, message: Message | Verbatim) -> None:
        """Write one message."""
        data = message.data if isinstance(message, Verbatim) else encode(message)
        line = data + b"\n"
        with self._lock:
            sys.stdout.buffer.write(line)
            sys.stdout.buffer.flush()


def _play(items: Iterator[Item], output: _Output) -> None:
    """Write the messages; from the first pause on in a thread, so that other requests are served."""
    for item in items:
        if isinstance(item, (dict, Verbatim)):
            output.write(item)
        elif isinstance(item, Sleep):
            later = threading.Thread(target=_play_later, args=(item.seconds, items, output), daemon=True)
            later.start()
            return
        else:
            # A standing stream: nothing in this process ever sends on it.
            return


def _play_later(seconds: float, items: Iterator[Item], output: _Output) -> None:
    """Pause, then write the other messages."""
    time.sleep(seconds)
    _play(items, output)


def _make_script(options: argparse.Namespace) -> Script:
    """The script the options ask for."""
    offered = default_tools()
    if options.tools is not None:
        names = options.tools.split(",")
        offered = tuple(tool for tool in (*offered, *lying_tools()) if tool.name in names)
    script = Script(era=options.era, tools=offered)

    def executed(execution: Execution) -> None:
        if options.count_file is not None:
            with open(options.count_file, "a", encoding="utf-8") as file:
                file.write(execution.tool + "\n")
        if execution.tool == options.die_on:
            os._exit(1)

    script.on_execute = executed
    return script


def main(argv: list[str] | None = None) -> int:
    """Serve until standard input ends; returns the exit status."""
    options = _arguments(argv)
    if options.pid_file is not None:
        options.pid_file.write_text(str(os.getpid()), encoding="utf-8")
    if options.crash_on_start is not None:
        sys.stderr.write(options.crash_on_start + "\n")
        return 1
    script, output = _make_script(options), _Output()
    last_of_handshake = "server/discover" if options.era == "modern" else "notifications/initialized"
    ignored = set(options.ignore.split(","))
    met_first = False
    for line in sys.stdin.buffer:
        try:
            message: Message = json.loads(line)
        except ValueError:
            output.write(error_message(None, -32700, "Parse error"))
            continue
        method = message.get("method")
        if not met_first and method != "initialize" and options.first is not None:
            if options.first == "exit":
                return 1
            if options.first == "hang":
                sys.stdin.buffer.read()
                return 0
            ignored.add(method)
        met_first = True
        if method == "initialize" and options.refuse is not None:
            output.write(error_message(message["id"], options.refuse, "no"))
        elif method not in ignored:
            _play(script.exchange(message), output)
        if options.exit_after_handshake and method == last_of_handshake:
            return 0
    if options.flush is not None:
        time.sleep(options.flush)
        with open(options.count_file, "a", encoding="utf-8") as file:
            file.write("flushed\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
