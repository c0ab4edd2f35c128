"""What wakes the task of a connection, and how often."""

from __future__ import annotations

import math

import anyio
import pytest

from mcpconn import State
from mcpconn.runtime.wake import Wake
from tests.runtime.fakes import REFUSED, Rig, failing

pytestmark = pytest.mark.anyio


async def test_a_wait_ends_at_its_deadline() -> None:
    wake, began = Wake(), anyio.current_time()
    await wake.wait(began + 5)
    assert anyio.current_time() == pytest.approx(began + 5)


async def test_what_was_set_before_a_wait_ends_it_at_once() -> None:
    wake, began = Wake(), anyio.current_time()
    wake.set()
    await wake.wait(began + 5)
    assert anyio.current_time() == began
    # It ended one wait, and not the next one too.
    await wake.wait(began + 5)
    assert anyio.current_time() == pytest.approx(began + 5)


async def test_what_was_cleared_ends_no_wait() -> None:
    wake, began = Wake(), anyio.current_time()
    wake.set()
    wake.clear()
    await wake.wait(began + 5)
    assert anyio.current_time() == pytest.approx(began + 5)


async def test_setting_it_during_a_wait_ends_it() -> None:
    wake = Wake()
    async with anyio.create_task_group() as group:
        group.start_soon(wake.wait, math.inf)
        await anyio.sleep(1)
        wake.set()


async def test_the_task_waits_once_for_each_failed_dial(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its own transitions do not wake it: each would make it check everything twice."""
    waits = 0
    real = Wake.wait

    async def wait(wake: Wake, deadline: float) -> None:
        nonlocal waits
        waits += 1
        await real(wake, deadline)

    monkeypatch.setattr(Wake, "wait", wait)
    rig = Rig()
    rig.dialer.always = failing(REFUSED)
    async with rig.running():
        await anyio.sleep(600)
        assert rig.lifecycle.state is State.FAILED
        # The first dial does not wait, and the last wait has not ended.
        assert waits == rig.dialer.dials
