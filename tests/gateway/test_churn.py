"""Clients over stdio servers come and go, and leave nothing behind. `tests.gateway.churn` takes a thousand of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.gateway.churn import AT_ONCE, come_and_go

pytestmark = pytest.mark.anyio


async def test_clients_leave_no_child_behind(tmp_path: Path) -> None:
    left = await come_and_go(tmp_path, 24)
    assert not left.anything, left
    # The server's own, the one of the modern clients, and those of clients that are leaving.
    assert left.most <= 2 + 2 * AT_ONCE


async def test_clients_that_vanish_leave_no_child_behind(tmp_path: Path) -> None:
    left = await come_and_go(tmp_path, 12, vanishing=True)
    assert not left.anything, left
