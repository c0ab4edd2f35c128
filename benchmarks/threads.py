"""A call from a thread, through `SyncManager`, against the same call in the event loop."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import anyio
import anyio.to_thread

from benchmarks.calls import ARGUMENTS, warm, work
from benchmarks.measure import Report, ratio
from benchmarks.servers import one
from mcpconn import Connection, SyncManager

THREADS = 50


async def threads(quick: bool) -> Report:
    """One thread that calls, and fifty, each side in turn."""
    report = Report()
    with one("scripted") as servers:
        entry = {"url": servers.url, "mode": "legacy"}
        manager = SyncManager({"a": entry})
        await anyio.to_thread.run_sync(manager.start)
        try:
            async with Connection(entry) as connection:
                await warm(connection)
                await anyio.to_thread.run_sync(_calls, manager, 30)
                await _alone(report, manager, connection, quick)
                await _crowd(report, manager, connection, quick)
        finally:
            await anyio.to_thread.run_sync(manager.close)
    return report


def _calls(manager: SyncManager, calls: int) -> list[float]:
    """In a thread: how long each call took, in seconds."""
    took = []
    for _ in range(calls):
        began = time.perf_counter()
        manager.call_tool("a", "add", ARGUMENTS)
        took.append(time.perf_counter() - began)
    return took


async def _alone(report: Report, manager: SyncManager, connection: Connection, quick: bool) -> None:
    rounds, calls = (6, 50) if quick else (20, 100)
    medians: dict[str, list[float]] = {"thread": [], "loop": []}
    call = work(connection)
    for turn in range(rounds):
        for side in ("thread", "loop") if turn % 2 else ("loop", "thread"):
            took = []
            if side == "thread":
                took = await anyio.to_thread.run_sync(_calls, manager, calls)
            else:
                for _ in range(calls):
                    began = time.perf_counter()
                    await call()
                    took.append(time.perf_counter() - began)
            medians[side].append(statistics.median(took))
    found = ratio(medians["thread"], medians["loop"])
    report.compare("a call from a thread, against one in the event loop", found)
    report.add("a call from a thread: more", found.more * 1e6, "µs", target=150.0)


async def _crowd(report: Report, manager: SyncManager, connection: Connection, quick: bool) -> None:
    each = 6 if quick else 30
    rates: dict[str, list[float]] = {"threads": [], "tasks": []}

    def from_threads() -> None:
        with ThreadPoolExecutor(THREADS) as pool:
            list(pool.map(lambda _: _calls(manager, each), range(THREADS)))

    async def from_tasks() -> None:
        async def caller() -> None:
            for _ in range(each):
                await connection.call_tool("add", ARGUMENTS)

        async with anyio.create_task_group() as group:
            for _ in range(THREADS):
                group.start_soon(caller)

    for turn in range(6):
        for side in ("threads", "tasks") if turn % 2 else ("tasks", "threads"):
            began = time.perf_counter()
            if side == "threads":
                await anyio.to_thread.run_sync(from_threads)
            else:
                await from_tasks()
            rates[side].append(each * THREADS / (time.perf_counter() - began))
    ratios = [ours / other for ours, other in zip(rates["threads"], rates["tasks"], strict=True)]
    note = f"{statistics.median(rates['threads']):.0f} calls/s against {statistics.median(rates['tasks']):.0f}"
    report.add(
        f"calls/s of {THREADS} threads, against {THREADS} tasks",
        statistics.median(ratios),
        "x",
        least=0.9,
        note=note,
        spread=(min(ratios), max(ratios)),
    )


GROUPS: dict[str, Callable[[bool], Any]] = {"threads": threads}
