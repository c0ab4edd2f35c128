"""One scripted server of the chaos run, as a process that writes down each run of a tool before it answers.

`server.py --journal FILE --port PORT --era legacy|modern`, or `server.py --journal FILE --pids FOLDER` on stdin and
stdout.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Generator, Mapping
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

if __name__ == "__main__" and "--pids" in sys.argv:
    # One is started for each client: it loads the modules of scripted servers alone, which takes a tenth of the time.
    _ROOT = Path(__file__).resolve().parents[3]
    for _name in ("mcpconn", "mcpconn.testing", "mcpconn.testing.scripted"):
        _package = sys.modules[_name] = ModuleType(_name)
        _package.__path__ = [str(_ROOT.joinpath(*_name.split(".")))]

from mcpconn.testing.scripted import stdio_server
from mcpconn.testing.scripted.script import Script
from mcpconn.testing.scripted.steps import Sleep, encode
from mcpconn.testing.scripted.tools import READ_ONLY, Progress, ScriptedTool

if TYPE_CHECKING:
    from mcpconn.testing.scripted.records import Execution
    from mcpconn.testing.scripted.steps import Message, Reply

SCHEMA: Mapping[str, Any] = {"type": "object", "properties": {"id": {"type": "string"}, "canary": {"type": "string"}}}


class Journal:
    """What has run, one line each. A line is one write at the file's end, so it outlives a SIGKILL, and is whole."""

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def note(self, execution: Execution) -> None:
        """A tool has begun to run."""
        line = {"tool": execution.tool, "pid": os.getpid(), **execution.arguments}
        os.write(self._descriptor, json.dumps(line).encode() + b"\n")


class ChaosScript(Script):
    """Tools that repeat what they were given, and one that keeps state for each session."""

    def __init__(self, era: Any) -> None:
        super().__init__(
            era=era,
            answer="sse",
            event_ids=True,
            tools=(
                ScriptedTool("charge", self._charge, {}, "Not idempotent.", SCHEMA),
                ScriptedTool("look", self._charge, READ_ONLY, "Changes nothing.", SCHEMA),
                ScriptedTool("remember", self._remember, READ_ONLY, "Says who called first.", SCHEMA),
            ),
        )
        self._first: dict[str, str] = {}

    def _charge(self, arguments: Mapping[str, Any]) -> Generator[Progress | Sleep, None, object]:
        yield Progress(1, 2, str(arguments["canary"]))
        yield Sleep(float(arguments["seconds"]))
        return f"{arguments['id']} {arguments['canary']}"

    def _remember(self, arguments: Mapping[str, Any]) -> object:
        session = str(arguments.get("session", ""))
        return f"{arguments['id']} {self._first.setdefault(session, str(arguments['canary']))}"

    def decide(self, http_method: str, headers: Mapping[str, str], body: bytes) -> Reply:
        session = next((value for name, value in headers.items() if name.lower() == "mcp-session-id"), None)
        if session is not None and b'"tools/call"' in body:
            # A tool is not told its session otherwise.
            message: Message = json.loads(body)
            message["params"]["arguments"]["session"] = session
            body = encode(message)
        return super().decide(http_method, headers, body)


def main() -> int:
    """Serve until the end of stdin, or indefinitely."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--journal", type=Path, required=True)
    parser.add_argument("--era", default="legacy")
    parser.add_argument("--port", type=int)
    parser.add_argument("--pids", type=Path)
    options = parser.parse_args()
    script = ChaosScript(options.era)
    script.on_execute = Journal(options.journal).note
    if options.pids is not None:
        own = options.pids / str(os.getpid())
        own.touch()
        output = stdio_server._Output()
        for line in sys.stdin.buffer:
            stdio_server._play(script.exchange(json.loads(line)), output)
        own.unlink(missing_ok=True)
        return 0

    import anyio

    from mcpconn.testing import HttpServer

    async def serve() -> None:
        async with HttpServer(script, port=options.port):
            sys.stdout.write("ready\n")
            sys.stdout.flush()
            await anyio.sleep_forever()

    anyio.run(serve)
    return 0


if __name__ == "__main__":
    sys.exit(main())
