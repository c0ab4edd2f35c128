"""The garbage collector of a gateway's process."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from mcpconn.gateway.http.garbage import THRESHOLDS, relax


@pytest.fixture
def restored() -> Iterator[None]:
    before = gc.get_threshold()
    yield
    gc.set_threshold(*before)


@pytest.mark.usefixtures("restored")
def test_it_looks_seldom_and_at_new_ones() -> None:
    # What is frozen stays so: the test run freezes its tests, too.
    kept: list[list[int]] = [[] for _ in range(1000)]
    before = gc.get_freeze_count()
    relax()
    assert gc.get_freeze_count() - before >= len(kept)
    # Python 3.14 has one generation less.
    assert gc.get_threshold()[:2] == THRESHOLDS[:2]


@pytest.mark.usefixtures("restored")
def test_cycles_are_still_collected() -> None:
    relax()
    before = sum(generation["collected"] for generation in gc.get_stats())
    for _ in range(2 * THRESHOLDS[0]):
        cycle: list[object] = []
        cycle.append(cycle)
    assert sum(generation["collected"] for generation in gc.get_stats()) - before > THRESHOLDS[0] / 2
