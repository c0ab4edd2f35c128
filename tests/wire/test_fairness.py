"""When a response yields to the loop, and when it is refused for its framing."""

from __future__ import annotations

import anyio
import httpx2
import pytest
from anyio.lowlevel import checkpoint

from mcpconn.wire.fairness import STEPS, TINY, TINY_LIMIT, TINY_PER_SECOND, TinyChunks, Turns

pytestmark = pytest.mark.anyio


async def turns_during(turns: Turns, steps: int) -> int:
    """How often another task runs while so many steps are taken."""
    others = 0

    async def neighbour() -> None:
        nonlocal others
        while True:
            await checkpoint()
            others += 1

    async with anyio.create_task_group() as group:
        group.start_soon(neighbour)
        await checkpoint()
        before = others
        for _ in range(steps):
            if turns.over():
                await checkpoint()
        found = others - before
        group.cancel_scope.cancel()
    return found


async def test_every_so_many_steps_other_tasks_run() -> None:
    assert await turns_during(Turns(), STEPS - 1) == 0
    assert 8 <= await turns_during(Turns(), 10 * STEPS) <= 11


async def test_a_wait_counts_as_a_turn() -> None:
    turns = Turns()
    for _ in range(STEPS - 1):
        assert not turns.over()
    turns.waited()
    assert await turns_during(turns, STEPS - 1) == 0


def test_sizable_chunks_are_never_too_many() -> None:
    chunks = TinyChunks(lambda: 0.0)
    for _ in range(3 * TINY_LIMIT):
        chunks.count(TINY)


def test_tiny_chunks_become_too_many() -> None:
    chunks = TinyChunks(lambda: 0.0)
    for _ in range(TINY_LIMIT):
        chunks.count(TINY - 1)
    with pytest.raises(httpx2.DecodingError, match=f"more than {TINY_LIMIT} chunks of less than {TINY} bytes"):
        chunks.count(0)


def test_slow_tiny_chunks_are_fine() -> None:
    now = 0.0
    chunks = TinyChunks(lambda: now)
    for _ in range(5 * TINY_LIMIT):
        now += 1 / TINY_PER_SECOND
        chunks.count(1)


def test_silence_is_no_credit_for_a_flood() -> None:
    now = 0.0
    chunks = TinyChunks(lambda: now)
    for _ in range(TINY_LIMIT):
        chunks.count(1)
    now = 86_400.0
    with pytest.raises(httpx2.DecodingError):
        for _ in range(TINY_LIMIT + 2):
            chunks.count(1)
