"""A server over stdio: a call, and the answer after its process was killed."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from typing import Any

import psutil
from mcp import Client
from mcp.client.stdio import StdioServerParameters, stdio_client

from benchmarks.calls import ARGUMENTS, warm, work
from benchmarks.measure import Report, alternate, ratio
from mcpconn import Connection, Policy

SERVER = ["-m", "benchmarks.stdio"]
# Killed again and again: with the usual patience that would be noticed, and starting slowed down.
FORGETFUL = Policy(proven_after=0.001)


def _children() -> set[int]:
    """Processes of servers that this one has started."""
    return {child.pid for child in psutil.Process().children() if "benchmarks.stdio" in child.cmdline()}


def _bare() -> Client:
    return Client(stdio_client(StdioServerParameters(command=sys.executable, args=SERVER, env=dict(os.environ))))


async def stdio(quick: bool) -> Report:
    """Both figures, against the SDK's client."""
    report = Report()
    entry = {"command": sys.executable, "args": SERVER, "env": {"PYTHONPATH": os.environ.get("PYTHONPATH", "")}}
    async with Connection(entry, policy=FORGETFUL) as ours:
        (pid,) = _children()
        async with _bare() as bare:
            await warm(ours, bare)
            took = await alternate({"ours": work(ours), "bare": work(bare)}, calls=200 if quick else 2000, rounds=8)
        report.compare("a call over stdio", ratio(took["ours"], took["bare"]), target=1.0)
        again: dict[str, list[float]] = {"ours": [], "bare": []}
        for turn in range(4 if quick else 12):
            for side in ("ours", "bare") if turn % 2 else ("bare", "ours"):
                if side == "ours":
                    os.kill(pid, signal.SIGKILL)
                    began = time.perf_counter()
                    await ours.call_tool("add", ARGUMENTS, idempotent=True)
                    again[side].append(time.perf_counter() - began)
                    (pid,) = _children()
                else:
                    began = time.perf_counter()
                    async with _bare() as fresh:
                        await fresh.call_tool("add", ARGUMENTS)
                        again[side].append(time.perf_counter() - began)
    report.compare(
        "stdio, SIGKILL to the next answer, against a new bare client", ratio(again["ours"], again["bare"]), target=1.0
    )
    return report


GROUPS: dict[str, Callable[[bool], Any]] = {"stdio": stdio}


if __name__ == "__main__":
    from benchmarks.calls import adder

    adder().run("stdio")
