"""A fault in what the gateway does beside its requests is logged, and harms no client."""

from __future__ import annotations

from typing import Any

import anyio
import anyio.lowlevel
import pytest
from mcp import Client

from mcpconn.gateway import MemoryStore, background
from mcpconn.gateway.background import Background
from mcpconn.gateway.principals import ANONYMOUS
from mcpconn.gateway.requests.ledger import Ledger
from mcpconn.testing import Script
from tests.gateway.conftest import gateway
from tests.support import text_of

pytestmark = pytest.mark.anyio


async def test_a_failed_task_is_logged_and_alone(caplog):
    ended = anyio.Event()

    async def fail(what: str) -> None:
        raise ValueError(what)

    async def go_on() -> None:
        await anyio.lowlevel.checkpoint()
        ended.set()

    async with anyio.create_task_group() as group:
        tasks = Background(group)
        tasks.start_soon(fail, "why")
        tasks.start_soon(go_on)
    assert ended.is_set()
    assert "gateway.task_failed" in caplog.text
    assert "ValueError: why" in caplog.text


async def test_background_tasks_are_restarted(monkeypatch):
    monkeypatch.setattr(background, "AGAIN", 0)
    begun = 0

    async def fail_twice() -> None:
        nonlocal begun
        begun += 1
        if begun < 3:
            raise ValueError

    async with anyio.create_task_group() as group:
        Background(group).keep(fail_twice)
    assert begun == 3


async def test_the_gateway_serves_on_after_a_fault_beside_it(caplog):
    async with gateway(Script()) as made, Client(made.url) as client:

        async def fail() -> None:
            raise ValueError

        made.app.relay.later(fail)
        assert text_of(await client.call_tool("a__add", {"a": 1, "b": 2})) == "3"
        assert "gateway.task_failed" in caplog.text


async def test_an_end_may_be_written_by_two_tasks_at_once():
    class Slow(MemoryStore):
        async def swap(self, *args: Any, **options: Any) -> int | None:
            began.set()
            await go_on.wait()
            return await super().swap(*args, **options)

    began, go_on = anyio.Event(), anyio.Event()
    ledger = Ledger(Slow())
    entry, _ = await ledger.look(ANONYMOUS, "k", "f")
    await ledger.send(entry)
    async with anyio.create_task_group() as group:
        group.start_soon(ledger.answer, entry, {"result": {}})
        await began.wait()

        async def write_again() -> None:
            # As the task that owns the lease does it, with a list of keys that was made before.
            for place in [entry.key, entry.key]:
                await ledger._write_end(place)

        group.start_soon(write_again)
        await anyio.wait_all_tasks_blocked()
        go_on.set()
    _, found = await ledger.look(ANONYMOUS, "k", "f")
    assert found.answer == {"result": {}}
