"""Ten, a hundred, a thousand connections: what changes for each."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import anyio

from benchmarks.apart import child
from benchmarks.calls import ARGUMENTS
from benchmarks.fleet import ready
from benchmarks.measure import Report
from benchmarks.servers import running


async def ours_growth(url: str, count: int, calls: int) -> dict[str, float]:
    """Calls a second over all of many connections, and the weight of one."""
    async with ready(url, count) as (manager, weight):
        names = list(manager)
        turn = 0

        async def caller(until: int) -> None:
            nonlocal turn
            while turn < until:
                turn += 1
                await manager.call_tool(names[turn % count], "add", ARGUMENTS)

        rates = []
        for part in range(4):
            # The first round opens the sockets that the others use.
            share = max(calls // 4, count if part == 0 else 0)
            turn, began = 0, time.perf_counter()
            async with anyio.create_task_group() as group:
                for _ in range(10):
                    group.start_soon(caller, share)
            rates.append(share / (time.perf_counter() - began))
    return {"rate": statistics.median(rates[1:]), "bytes": weight}


async def growth(quick: bool) -> Report:
    """Ten, a hundred, a thousand connections: what changes for each."""
    report = Report()
    counts = (10, 100) if quick else (10, 100, 1000)
    repeats = 1 if quick else 3
    rates: dict[int, list[float]] = {count: [] for count in counts}
    weights: dict[int, list[float]] = {count: [] for count in counts}
    for turn in range(repeats):
        for count in counts if turn % 2 else reversed(counts):
            with running("scripted") as servers:
                found = child(__name__, "ours_growth", url=servers.url, count=count, calls=400 if quick else 4000)
            rates[count].append(found["rate"])
            weights[count].append(found["bytes"])
    rate = {count: statistics.median(found) for count, found in rates.items()}
    weight = {count: statistics.median(found) for count, found in weights.items()}
    for name, by, unit in (("calls/s", rate, 1.0), ("KiB a connection", weight, 1024.0)):
        listing = ", ".join(f"{by[count] / unit:.0f} at {count}" for count in counts)
        worst = by[counts[0]] / by[counts[-1]] if by is rate else by[counts[-1]] / by[counts[0]]
        report.add(f"growth, {name}: {counts[-1]} against {counts[0]}", worst, "x", target=1.10, note=listing)
    report.series["growth"] = {"rate": rate, "bytes": weight}
    return report


GROUPS: dict[str, Callable[[bool], Any]] = {"growth": growth}
