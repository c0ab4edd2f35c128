"""The state machine alone, and the cost of importing it all."""

from __future__ import annotations

import gc
import logging
import os
import statistics
import subprocess
import sys
import tempfile
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
    lines = {"mcp": "import mcp", "mcpconn": "import mcpconn", "manager": "from mcpconn import Manager"}
    took: dict[str, list[float]] = {name: [] for name in lines}
    with tempfile.TemporaryDirectory() as cache:
        for turn in range(6 if quick else 31):
            for name in sorted(lines, reverse=turn % 2 == 1):
                took[name].append(_import(lines[name], cache))
    # The first of each has compiled the files.
    found = ratio(took["mcpconn"][1:], took["mcp"][1:])
    report.compare("import mcpconn against import mcp", found, target=1.03)
    report.compare("the same, with what a connection needs", ratio(took["manager"][1:], took["mcp"][1:]))
    return report


def _import(statement: str, cache: str) -> float:
    # Processor time: what else runs on the machine changes it less, and an import waits for nothing but the disk.
    line = f"import time; began = time.process_time(); {statement}; print(time.process_time() - began)"
    # Both sides are read from compiled files. If PYTHONDONTWRITEBYTECODE is set, only installed packages have them, and
    # mcpconn would be compiled at each import (measured: 1.36 x instead of 1.13 x).
    environment = {**os.environ, "PYTHONPYCACHEPREFIX": cache}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    done = subprocess.run([sys.executable, "-c", line], stdout=subprocess.PIPE, check=True, env=environment)
    return float(done.stdout)


GROUPS: dict[str, Callable[[bool], Any]] = {"transitions": transitions, "import": imports}
