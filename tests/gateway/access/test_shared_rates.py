"""Replicas share the token bucket of a principal; each request is decided without the store."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest

from mcpconn.gateway.access.limits import Limits, TooMany
from mcpconn.gateway.access.rights import Rights
from mcpconn.gateway.fleet.rates import SharedRates
from mcpconn.gateway.principals import Principal
from mcpconn.gateway.store import MemoryStore, Store, StoreUnavailable
from mcpconn.testing.clock import MIDNIGHT, settle, virtual_backend

pytestmark = pytest.mark.anyio

ALICE, BOB = Principal("alice"), Principal("bob")
RIGHTS = Rights(rate=2, burst=6)


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    return virtual_backend(request.param)


class Failing(MemoryStore):
    away = False

    async def get(self, key: Any) -> Any:
        if self.away:
            raise StoreUnavailable("away")
        return await super().get(key)


@asynccontextmanager
async def replicas(store: Store, *ahead: float) -> AsyncIterator[list[Limits]]:
    """The accounts of as many replicas; each wall clock is ahead by so many seconds."""
    limits = [Limits(anyio.current_time) for _ in ahead]
    async with anyio.create_task_group() as group:
        for each, seconds in zip(limits, ahead, strict=True):
            wall = _wall(seconds)
            group.start_soon(SharedRates(store, each, wall=wall).follow)
        yield limits
        group.cancel_scope.cancel()


def _wall(ahead: float) -> Any:
    return lambda: MIDNIGHT + anyio.current_time() + ahead


def let_in(limits: Limits, principal: Principal = ALICE) -> bool:
    try:
        limits.enter(principal, RIGHTS)
    except TooMany:
        return False
    return True


def store() -> Failing:
    return Failing(now=anyio.current_time)


@pytest.mark.parametrize("ahead", [(0, 0, 0), (-2, 0, 3)], ids=["one time", "clocks that differ"])
async def test_in_the_long_run_all_together_let_in_the_rate(ahead: tuple[float, ...]) -> None:
    async with replicas(store(), *ahead) as limits:
        count = 0
        for _ in range(600):
            count += sum(let_in(each) for each in limits)
            await anyio.sleep(0.1)
    # 60 s at 2 a second, after a burst of 6 that each of the three may take for its own; and what a clock is ahead.
    assert 110 <= count <= 60 * 2 + 3 * 6 + 6


async def test_replicas_know_whom_others_let_in() -> None:
    async with replicas(store(), 0, 0) as (one, two):
        assert [let_in(one) for _ in range(7)] == [True] * 6 + [False]
        await settle()
        # It has not asked yet; after this one it has.
        assert let_in(two)
        await settle()
        assert not let_in(two)


async def test_another_principal_has_a_bucket_of_its_own() -> None:
    async with replicas(store(), 0, 0) as (one, two):
        while let_in(one):
            pass
        await settle()
        assert all(let_in(two, BOB) for _ in range(6))


async def test_excess_is_paid_for_later_and_within_limits() -> None:
    async with replicas(store(), 0, 0, 0, 0) as limits:
        # Four bursts at once: three too many, of which one at most remains as a debt.
        assert sum(let_in(each) for each in limits for _ in range(6)) == 24
        await anyio.sleep(2.9)
        assert not any(let_in(each) for each in limits)
        await anyio.sleep(1.6)
        assert let_in(limits[0])


async def test_without_the_store_each_counts_for_itself_and_owes_nothing() -> None:
    kept = store()
    kept.away = True
    async with replicas(kept, 0, 0) as limits:
        count = 0
        for _ in range(100):
            count += sum(let_in(each) for each in limits)
            await anyio.sleep(0.1)
        assert count >= 2 * 10 * 2
        kept.away = False
        await anyio.sleep(1)
        assert let_in(limits[0])
