"""Runs the official suite's scenarios for servers: against a server itself, and against the gateway in front of it.

The server is the reference: the example that the SDK brings for this suite, from its sdist. The gateway shows it in a
view without prefixes, so that the names are the server's own.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.conformance.suite import ROOT, Suite
from tests.sdk_suite import suite as sdist

RUN = 120.0
"""Seconds for all scenarios."""
START = 60.0
"""Seconds for the start of a server."""
LOOK_AGAIN = 0.05
"""Seconds between two tries to connect to a server that is being started."""


@dataclass
class Verdict:
    """What came of one scenario."""

    specification: str = ""
    passed: Counter[str] = field(default_factory=Counter)
    """How often each check was passed."""
    failed: dict[str, str] = field(default_factory=dict)
    """Why, by check."""
    warned: set[str] = field(default_factory=set)
    """Checks of what a server should do, and does not have to."""

    def __str__(self) -> str:
        total = sum(self.passed.values())
        return f"**failed** {total}/{total + len(self.failed)}" if self.failed else f"passed {total}/{total}"


def run(suite: Suite, url: str) -> dict[str, Verdict]:
    """Run every scenario for servers against `url`; returns the verdicts by scenario."""
    with tempfile.TemporaryDirectory() as folder:
        # Without a terminal it prints what it writes into the folder as well, so that is not read.
        suite.call("server", "--url", url, "--suite", "all", "--output-dir", folder, timeout=RUN)
        found = {scenario: Verdict(versions) for scenario, versions in suite.scenarios("--server").items()}
        for scenario, verdict in found.items():
            (checks,) = Path(folder).glob(f"server-{scenario}-2*/checks.json")
            for check in json.loads(checks.read_text(encoding="utf-8")):
                if check["status"] == "SUCCESS":
                    verdict.passed[check["id"]] += 1
                elif check["status"] == "FAILURE":
                    verdict.failed[check["id"]] = str(check.get("errorMessage"))
                elif check["status"] == "WARNING":
                    verdict.warned.add(check["id"])
    return found


@contextmanager
def reference() -> Iterator[str]:
    """The SDK's example server, as a process; its URL.

    Raises:
        subprocess.CalledProcessError: its source cannot be fetched.
    """
    folder = sdist() / "examples" / "servers" / "everything-server"
    port = _free_port()
    command = [sys.executable, "-m", "mcp_everything_server", "--port", str(port), "--log-level", "ERROR"]
    with _process(command, port, cwd=folder):
        yield f"http://127.0.0.1:{port}/mcp"


@contextmanager
def gateway(url: str) -> Iterator[str]:
    """`mcpconn serve` in front of a server; the URL of a view that shows the server as it is."""
    with tempfile.TemporaryDirectory() as folder:
        file, port = Path(folder) / "mcp.json", _free_port()
        view = {"servers": ["all"], "prefix": False}
        file.write_text(json.dumps({"mcpServers": {"all": {"url": url}}, "gateway": {"views": {"as-it-is": view}}}))
        command = [sys.executable, "-m", "mcpconn", "serve", str(file), "--listen", f"127.0.0.1:{port}"]
        with _process([*command, "--state", str(Path(folder) / "state")], port):
            yield f"http://127.0.0.1:{port}/mcp/as-it-is"


@contextmanager
def both() -> Iterator[tuple[str, str]]:
    """The URLs of the reference server and of the gateway in front of it."""
    with ExitStack() as stack:
        url = stack.enter_context(reference())
        yield url, stack.enter_context(gateway(url))


@contextmanager
def _process(command: list[str], port: int, cwd: Path = ROOT) -> Iterator[None]:
    """A server's process, from when it accepts connections."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join((str(cwd), str(ROOT)))}
    # A file, because nobody would read a pipe, and a server that cannot write its log stands still.
    with (
        tempfile.TemporaryFile("w+") as said,
        subprocess.Popen(command, cwd=cwd, env=environment, stdout=said, stderr=said) as process,
    ):
        try:
            give_up = time.monotonic() + START
            while not _accepts(port):
                if process.poll() is not None or time.monotonic() > give_up:
                    said.seek(0)
                    raise AssertionError(f"{command} does not serve: {said.read()}")
                time.sleep(LOOK_AGAIN)
            yield
        finally:
            process.kill()


def _accepts(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port)).close()
    except ConnectionRefusedError:
        return False
    return True


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return int(listening.getsockname()[1])
