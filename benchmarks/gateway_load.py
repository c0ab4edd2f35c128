"""The gateway under load: twenty callers at once, beside other gateways; and two processes on one port.

Other gateways are measured if they are installed; `make bench-gateways` installs them.
"""

from __future__ import annotations

import os
import socket
import statistics
import subprocess
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import anyio

from benchmarks.gateways.catalog import GATEWAYS, Gateway
from benchmarks.gateways.promises import Caller, caller
from benchmarks.gateways.running import started_upstream
from benchmarks.gateways.timing import CALLERS, WARM, measure
from benchmarks.measure import Report, ratio, worked

PEERS = ("fastmcp", "LiteLLM", "supergateway", "mcp-hub")
RATE = f"rate of {CALLERS} callers"
CLIENTS = 8
"""Bare clients, each with sockets of its own: the system hands them to the processes as these accept."""
CALLS = 20
"""Calls of each client between two looks at the processes."""


async def callers(quick: bool) -> Report:
    """Calls a second of twenty callers, as a fraction of what they get without a gateway."""
    report = Report()
    chosen = [each for each in GATEWAYS if each.kind == "own" or (each.name in PEERS and _installed(each))]
    for era, mode in (("legacy", "legacy"), ("modern", "auto")):
        found = await measure(chosen, quick, mode)
        ours = found["mcpconn"]
        if "problem" in ours:
            raise RuntimeError(ours["problem"])
        rates = {name: each[RATE]["ratio"] for name, each in found.items() if RATE in each}
        others = ", ".join(f"{name} {rate:.2f}" for name, rate in rates.items() if name != "mcpconn")
        spread = (ours[RATE]["least"], ours[RATE]["most"])
        name = f"{CALLERS} callers through the gateway, {era} client"
        report.add(name, rates.pop("mcpconn"), "x", least=0.45, note=others or "no other is installed", spread=spread)
        if rates:
            best = max(rates, key=lambda each: rates[each])
            ahead = ours[RATE]["ratio"] / rates[best]
            report.add(f"the same, against the best of the others, {era} client", ahead, "x", least=1.0, note=best)
    return report


def _installed(gateway: Gateway) -> bool:
    return (gateway.home / ".made").exists()


# -- two processes on one port


class Workers:
    """Processes of `mcpconn serve` that share a listening socket and a state directory, as a supervisor starts them."""

    def __init__(self, count: int, folder: Path, server: str) -> None:
        self._accepting = socket.create_server(("127.0.0.1", 0), backlog=2048)
        self.url = f"http://127.0.0.1:{self._accepting.getsockname()[1]}/mcp"
        folder.mkdir()
        own = GATEWAYS[0].command(Path(), folder, 0, server)
        descriptor = self._accepting.fileno()
        # systemd's protocol: the socket is descriptor 3, and the variables name the process that may take it.
        line = f'exec 3<&{descriptor}; export LISTEN_PID=$$ LISTEN_FDS=1; exec "$@"'
        self._log = (folder / "log").open("wb")
        self._processes = [
            subprocess.Popen(
                ["bash", "-c", line, "worker", *own], pass_fds=[descriptor], stdout=self._log, stderr=self._log
            )
            for _ in range(count)
        ]

    def worked(self) -> list[float]:
        """Seconds that each process has used a processor."""
        return [worked(each.pid) for each in self._processes]

    def kill(self) -> None:
        """End all of them."""
        for each in self._processes:
            each.kill()
            each.wait()
        self._log.close()
        self._accepting.close()


async def workers(quick: bool) -> Report:
    """What a call costs two processes together, against one; and how many calls a second they answer."""
    report = Report()
    for era, mode in (("legacy", "legacy"), ("modern", "auto")):
        with TemporaryDirectory() as folder:
            await _compare(report, era, mode, quick, Path(folder))
    return report


async def _compare(report: Report, era: str, mode: str, quick: bool, folder: Path) -> None:
    async with AsyncExitStack() as stack:
        server = stack.enter_context(started_upstream(folder))
        sides: dict[int, tuple[Workers, list[Caller]]] = {}
        for count in (1, 2):
            made = Workers(count, folder / f"of-{count}", server.url)
            stack.callback(made.kill)
            clients = [await caller(stack, made.url, mode) for _ in range(CLIENTS)]
            sides[count] = made, clients
            await _calls(clients, WARM)
        costs: dict[int, list[float]] = {count: [] for count in sides}
        rates: dict[int, list[float]] = {count: [] for count in sides}
        shares: list[float] = []
        for turn in range(4 if quick else 12):
            for count in sides if turn % 2 else reversed(sides):
                made, clients = sides[count]
                before, began = made.worked(), time.perf_counter()
                await _calls(clients, CALLS)
                rates[count].append(CLIENTS * CALLS / (time.perf_counter() - began))
                spent = [after - earlier for after, earlier in zip(made.worked(), before, strict=True)]
                costs[count].append(sum(spent) / CLIENTS / CALLS)
                if count == 2:
                    shares.append(min(spent) / sum(spent))
        # How the clients' sockets are shared out is the system's choice: a ratio says nothing if one process idles.
        note = f"the less busy process did {statistics.median(shares):.0%} of the work"
        report.compare(
            f"processor time a call, 2 processes on one port, {era} client",
            found := ratio(costs[2], costs[1]),
            target=1.1,
            note=f"{found}; {note}",
        )
        rate = ratio(rates[2], rates[1])
        cores = os.cpu_count() or 1
        report.add(
            f"calls a second, 2 processes on one port, {era} client",
            rate.figure,
            "x",
            least=1.8 if cores >= 6 else None,
            note=f"{cores} cores are shared by the callers, the processes and the server",
            spread=rate.spread,
        )


async def _calls(clients: Sequence[Caller], many: int) -> None:
    async def call(one: Caller) -> None:
        for _ in range(many):
            told = await one.call("add", a=1, b=2)
            if told != "= 3":
                raise RuntimeError(told)

    async with anyio.create_task_group() as group:
        for one in clients:
            group.start_soon(call, one)


GROUPS: dict[str, Any] = {"callers": callers, "workers": workers}
