"""The official conformance suite, and its scenarios for clients, run against `examples/conformance_client.py`."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.node import NODE, find_modules, node_in

ROOT = Path(__file__).resolve().parents[2]
READY = Path(__file__).resolve().with_name("ready.py")
PACKAGE = "@modelcontextprotocol/conformance"
NEXT = "conformance-next"
"""The newest alpha of the same, under a name of its own beside it. It has scenarios for the 2026-07-28 protocol."""
TIMEOUT = 60.0
"""Seconds for one scenario. The suite itself gives a client 30."""

PASSED = re.compile(r"Passed: (\d+)/(\d+)")
FAILED = re.compile(r"^ +- ([^:]+): ", re.MULTILINE)
ERROR = re.compile(r"^(?: *\| )*([\w.]+Error: .+|mcpconn\.errors\.\w+: .+)$", re.MULTILINE)


@dataclass(frozen=True)
class Result:
    """What came of one scenario."""

    passed: bool
    checks: str
    """Checks passed, of all."""
    failed: tuple[str, ...]
    """Names of the checks that failed."""
    error: str
    """The last error that the client printed."""
    output: str


class Suite:
    """The suite, as it is installed here."""

    def __init__(self, node: Path, entry: Path) -> None:
        self.node = node
        self.entry = entry
        self._socket = ""

    @classmethod
    def find(cls, package: str = PACKAGE) -> Suite:
        """The suite and a node that runs it. Use `ready` before `run`.

        Args:
            package: Its name in node_modules.

        Raises:
            LookupError: one of them is missing; the text says which.
        """
        if not hasattr(os, "fork"):
            raise LookupError("the client is forked for each scenario, which this system cannot do")
        modules = find_modules()
        entry = modules / package / "dist" / "index.js"
        if not entry.is_file():
            raise LookupError(f"no {package} in {modules}; .ci/run installs it")
        node = node_in(modules)
        if node is None:
            raise LookupError(f"the conformance suite needs node {NODE}; .ci/run installs it")
        return cls(node, entry)

    @contextmanager
    def ready(self) -> Iterator[None]:
        """Have the client at hand."""
        with tempfile.TemporaryDirectory() as folder:
            self._socket = str(Path(folder) / "client")
            server = subprocess.Popen(
                [sys.executable, READY, "serve", self._socket],
                stdout=subprocess.PIPE,
                cwd=ROOT,
                env={**os.environ, "PYTHONPATH": str(ROOT)},
            )
            try:
                assert server.stdout is not None
                assert server.stdout.readline() == b"ready\n"
                yield
            finally:
                server.kill()
                server.communicate()

    def version(self) -> str:
        """The suite's version."""
        return self.call("--version").stdout.strip()

    def scenarios(self, of: str = "--client") -> dict[str, str]:
        """The scenarios for clients or servers, and the versions of the specification that each is about."""
        listed = self.call("list", of).stdout
        return {found[1]: found[2] for found in re.finditer(r"^ +- (\S+) \[(.*)\]$", listed, re.MULTILINE)}

    def run(self, scenario: str, *, bare: bool = False) -> Result:
        """Run one scenario.

        Args:
            scenario: Its name.
            bare: Run the SDK's client in place of a `Connection`.
        """
        client = [sys.executable, "-I", "-S", str(READY), "run", self._socket, *(["--bare"] if bare else [])]
        with tempfile.TemporaryDirectory() as folder:
            done = self.call("client", "--command", shlex.join(client), "--scenario", scenario, "--output-dir", folder)
        output = re.sub(r"\x1b\[[0-9;]*m", "", done.stdout + done.stderr)
        passed = PASSED.findall(output)
        errors = ERROR.findall(output)
        return Result(
            done.returncode == 0,
            "/".join(passed[-1]) if passed else "none",
            tuple(FAILED.findall(output.rpartition("Failed Checks:")[2])) if "Failed Checks:" in output else (),
            re.sub(r"localhost:\d+", "localhost", errors[-1]) if errors else "",
            output,
        )

    def call(self, *arguments: str, timeout: float = TIMEOUT) -> subprocess.CompletedProcess[str]:
        """Run the suite's program, for `timeout` seconds at most."""
        return subprocess.run(
            [self.node, self.entry, *arguments],
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
            cwd=ROOT,
        )
