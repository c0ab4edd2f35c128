"""A `SyncManager` and the end of programs, and forks of them. The programs are in `tests/sync_programs.py`."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
LIMIT = 200
"""Seconds for all programs together; each ends itself long before."""

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")


@pytest.fixture(scope="module")
def reports() -> dict[tuple[str, str], dict[str, Any]]:
    """What became of each program, by its name and event loop."""
    command = [sys.executable, "-m", "tests.sync_programs"]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=LIMIT, check=False)
    assert run.returncode == 0, run.stderr
    found = [json.loads(line) for line in run.stdout.splitlines()]
    return {(each["program"], each["backend"]): each for each in found}


@pytest.mark.parametrize(
    ("program", "backend", "ended"),
    [
        pytest.param("forgotten", "asyncio", 0, id="that forgets to close it"),
        pytest.param("forgotten", "trio", 0, id="that forgets to close it, on trio"),
        pytest.param("crashed", "asyncio", 1, id="that raises"),
        pytest.param("in_a_call", "asyncio", 0, id="whose daemon thread waits for a call"),
        pytest.param("in_a_call", "trio", 0, id="whose daemon thread waits for a call, on trio"),
        pytest.param("interrupted", "asyncio", -signal.SIGINT, id="that is interrupted in a call"),
        pytest.param("interrupted", "trio", -signal.SIGINT, id="that is interrupted in a call, on trio"),
    ],
)
def test_a_program_exits_with_its_servers(
    program: str, backend: str, ended: int, reports: dict[tuple[str, str], dict[str, Any]]
) -> None:
    report = reports[program, backend]
    assert len(report["said"]["children"]) == 1
    assert (report["ended"], report["left"]) == (ended, [])


def test_threads_that_outlive_the_main_thread_can_still_call(reports: dict[tuple[str, str], dict[str, Any]]) -> None:
    report = reports["called_after_the_main_thread", "trio"]
    assert report["said"]["late"] == "3"
    assert (report["ended"], report["left"]) == (0, [])


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_forked_child_has_to_make_its_own(backend: str, reports: dict[tuple[str, str], dict[str, Any]]) -> None:
    report = reports["forked", backend]
    child = report["said"]["told"]
    assert len(child["refused"]) == 5
    assert all("make a SyncManager of its own here" in each for each in child["refused"][:4])
    assert (child["own"], report["said"]["ended"]) == ("3", 0)
    assert (report["said"]["untouched"], report["said"]["still"]) == (True, "3")
    assert (report["ended"], report["left"]) == (0, [])
