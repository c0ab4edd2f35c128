"""The state machine alone, and the cost of importing it all."""

from __future__ import annotations

import gc
import logging
import statistics
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Callable
from typing import Any

from benchmarks.measure import Report, ratio
from mcpconn.core.machine import Cell, fire
from mcpconn.core.states import Event, State

CELLS = 100_000
LIFE = (Event.CONNECT, Event.ESTABLISHED, Event.SUSPECTED, Event.LOST, Event.ATTEMPT_FAILED, Event.ESTABLISHED)
"""What happens to a cell here; each event leads to the next."""


async def transitions(quick: bool) -> Report:
    """One machine, many cells."""
    report = Report()
    logging.getLogger("transitions").setLevel(logging.WARNING)
    count = CELLS // 20 if quick else CELLS
    gc.collect()
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    cells = [Cell() for _ in range(count)]
    after, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    times: list[float] = []
    for event in LIFE:
        began = time.perf_counter()
        for cell in cells:
            fire(cell, event)
        times.append((time.perf_counter() - began) / count)
    assert all(cell.state is State.READY for cell in cells)
    report.add("a transition", statistics.median(times) * 1e6, "µs", target=20.0, spread=_micro(times))
    report.add(f"a cell, one of {count:,}", (after - before) / count, "bytes", target=200.0)
    return report


def _micro(times: list[float]) -> tuple[float, float]:
    return min(times) * 1e6, max(times) * 1e6


async def imports(quick: bool) -> Report:
    """`import mcpconn` against `import mcp`, each in a process of its own, in processor time."""
    report = Report()
    took: dict[str, list[float]] = {"mcp": [], "mcpconn": []}
    for turn in range(4 if quick else 16):
        for name in ("mcp", "mcpconn") if turn % 2 else ("mcpconn", "mcp"):
            took[name].append(_import(name))
    # The first of each may have read from the disk.
    found = ratio(took["mcpconn"][1:], took["mcp"][1:])
    report.compare("import mcpconn against import mcp", found, target=1.03)
    return report


def _import(name: str) -> float:
    # Processor time: what else runs on the machine changes it less, and an import waits for nothing but the disk.
    line = f"import time; began = time.process_time(); import {name}; print(time.process_time() - began)"
    return float(subprocess.run([sys.executable, "-c", line], stdout=subprocess.PIPE, check=True).stdout)


GROUPS: dict[str, Callable[[bool], Any]] = {"transitions": transitions, "import": imports}
