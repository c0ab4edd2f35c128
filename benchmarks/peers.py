"""The same faults against the clients that people use today, each in an environment of its own.

They are installed under `benchmarks/.peers` where they can be beside this project's release of mcp; where they
cannot, the installer's reason is reported. Nothing here is tuned to: the figures are for orientation.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
import venv
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks.measure import Report, span
from benchmarks.servers import Servers, running
from mcpconn import __version__

HERE = Path(__file__).parent
HOME = HERE / ".peers"
PEERS = ("fastmcp", "openai-agents", "pydantic-ai", "strands-agents")
"""Names of distributions; the latest release of each is taken."""
PATIENCE = 10.0
"""Seconds that a client has to recover by itself."""
TRIALS = 3
FAULTS: dict[str, tuple[str, ...]] = {
    "session expired": ("forget",),
    "server restarted": ("stop", "start"),
    "reset after the tool ran": ("inject drop_after",),
    "stream cut after the tool ran": ("inject cut_stream",),
    "429, Retry-After 1 s": ("inject rate_limited",),
    "503": ("inject unavailable",),
}
"""What happens just before a call of a tool that is not idempotent."""


class Driver:
    """A client of one kind, open to the server, in a process of its own."""

    def __init__(self, python: str, peer: str, url: str) -> None:
        self._process = subprocess.Popen(
            [python, str(HERE / "peer_driver.py"), peer, url],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self.running = True
        self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        # What a library prints for its own purposes is passed over.
        for line in self._process.stdout:
            if line.startswith("{"):
                found: dict[str, Any] = json.loads(line)
                return found
        self.running = False
        return {"problem": "the client's process ended", "took": 0.0}

    def call(self, tool: str, **arguments: int) -> dict[str, Any]:
        """Call a tool: `problem` is empty if it was answered."""
        assert self._process.stdin is not None
        order = {"tool": tool, "arguments": arguments, "timeout": PATIENCE}
        try:
            self._process.stdin.write(json.dumps(order) + "\n")
            self._process.stdin.flush()
        except OSError:
            self.running = False
        return self._answer()

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.communicate()


def try_fault(python: str, peer: str, servers: Servers, commands: tuple[str, ...]) -> dict[str, Any]:
    """Some calls, each after the fault; what came of them."""
    answered = ran = trials = 0
    recoveries: list[float] = []
    problem = ""
    driver = Driver(python, peer, servers.url)
    try:
        driver.call("add", a=1, b=1)
        for _ in range(TRIALS):
            if not driver.running:
                break
            trials += 1
            before = servers.ask("executions").get("charge", 0)
            for command in commands:
                servers.ask(command)
            began = time.perf_counter()
            answer = driver.call("charge", amount=1)
            answered += not answer["problem"]
            problem = problem or answer["problem"]
            recovered = not answer["problem"]
            while not (recovered or time.perf_counter() - began > PATIENCE):
                recovered = not driver.call("add", a=1, b=1)["problem"]
                if not recovered:
                    time.sleep(0.1)
            if recovered:
                recoveries.append(time.perf_counter() - began)
            servers.ask("clear")
            ran = max(ran, servers.ask("executions").get("charge", 0) - before)
            if not recovered:
                break
    finally:
        driver.close()
    recoveries.sort()
    return {
        "answered": f"{answered} of {TRIALS}",
        "ran": ran,
        "recovery": span(recoveries[len(recoveries) // 2]) if len(recoveries) == trials == TRIALS else "never",
        "problem": problem,
    }


def install(peer: str) -> tuple[str, str]:
    """The peer's interpreter, and what is installed; or "" and the reason why it is not."""
    home = HOME / peer
    python = home / "bin" / "python"
    if not python.exists():
        shutil.rmtree(home, ignore_errors=True)
        venv.create(home, with_pip=True)
    pip = [str(python), "-m", "pip", "--disable-pip-version-check", "--no-input"]
    # An old release that asks for any mcp at all would be found, too; it is the current one that is of interest.
    latest = subprocess.run([*pip, "index", "versions", peer], capture_output=True, text=True, check=False).stdout
    newest = latest.partition("(")[2].partition(")")[0]
    wanted = [f"mcp=={version('mcp')}", f"{peer}=={newest}" if newest else peer]
    for choice in (wanted, [wanted[0], f"{peer}>={newest.partition('.')[0]}"] if newest else wanted):
        done = subprocess.run([*pip, "install", "--quiet", *choice], capture_output=True, text=True, check=False)
        if done.returncode == 0:
            shown = subprocess.run([*pip, "show", peer], capture_output=True, text=True, check=True).stdout
            return str(python), next(line[9:] for line in shown.splitlines() if line.startswith("Version: "))
    return "", _demand(pip, wanted[1])


def _demand(pip: list[str], peer: str) -> str:
    """What a release asks of mcp, in its own words."""
    look = [*pip, "install", "--quiet", "--dry-run", "--no-deps", "--ignore-installed", "--report", "-", peer]
    done = subprocess.run(look, capture_output=True, text=True, check=False)
    try:
        asked = json.loads(done.stdout)["install"][0]["metadata"]["requires_dist"]
    except (ValueError, LookupError):
        return "pip found no way"
    found = [line for line in asked if line.partition(";")[0].strip().startswith("mcp") and "extra" not in line]
    return f"{peer} requires {', '.join(found)}" if found else "pip found no way"


async def peers(quick: bool) -> Report:
    """Calls answered, tools run, time to recover."""
    report = Report()
    found: dict[str, Any] = {}
    clients = [("mcpconn", sys.executable, __version__), ("mcp", sys.executable, version("mcp"))]
    for peer in () if quick else PEERS:
        python, what = install(peer)
        if python:
            clients.append((peer, python, what))
        else:
            found[peer] = what
    for peer, python, what in clients:
        results = {}
        for fault, commands in FAULTS.items():
            with running("scripted", answer="sse" if "stream" in fault else "json") as servers:
                results[fault] = try_fault(python, peer, servers, commands)
        found[f"{peer} {what}"] = results
    report.series["peers"] = found
    return report


GROUPS: dict[str, Callable[[bool], Any]] = {"peers": peers}
