"""Connections that belong to users: made when they are asked for, and removed when nobody uses them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import anyio
import pytest

from mcpconn import ConfigError, Connection, ConnectionClosed, Manager, NotRunning, State, SyncManager
from mcpconn.testing import Script, ScriptTransport
from mcpconn.testing.clock import settle, virtual_backend
from mcpconn.testing.scripted import faults
from tests.support import UNFINISHED_STREAMS, text_of

pytestmark = [pytest.mark.anyio, UNFINISHED_STREAMS]


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    return virtual_backend(request.param)


def entry(script: Script | None = None, **more: Any) -> dict[str, Any]:
    return {"url": "http://scripted/mcp", "http_transport": ScriptTransport(script or Script()), **more}


async def added(connection: Connection) -> str:
    return text_of(await connection.call_tool("add", {"a": 1, "b": 1}))


async def test_get_or_add_returns_the_same_one() -> None:
    async with Manager() as manager:
        first = manager.get_or_add("ada", entry(), ttl=10)
        assert await added(first) == "2"
        assert manager.get_or_add("ada", {"no": "entry"}, ttl=10) is first
        assert manager.get_or_add("bob", entry(), ttl=10) is not first
        assert sorted(manager) == ["ada", "bob"]


async def test_it_is_removed_when_unused() -> None:
    script = Script()
    async with Manager() as manager:
        ada = manager.get_or_add("ada", entry(script), ttl=10)
        manager.get_or_add("kept", entry())
        await added(ada)
        await anyio.sleep(9.9)
        assert "ada" in manager
        await anyio.sleep(0.2)
        assert "ada" not in manager
        await ada.ended()
        assert ada.state is State.CLOSED
        assert script.sessions == set()
        with pytest.raises(ConnectionClosed):
            await added(ada)
        await anyio.sleep(10_000)
        assert list(manager) == ["kept"]
        again = manager.get_or_add("ada", entry(script), ttl=10)
        assert again is not ada
        assert await added(again) == "2"


async def test_calls_and_being_asked_for_keep_it() -> None:
    async with Manager() as manager:
        ada = manager.get_or_add("ada", entry(), ttl=10)
        for _ in range(5):
            await anyio.sleep(8)
            await added(ada)
        for _ in range(5):
            await anyio.sleep(8)
            assert manager.get_or_add("ada", entry(), ttl=10) is ada
        await anyio.sleep(10.1)
        assert "ada" not in manager


async def test_a_call_under_way_keeps_it() -> None:
    transport = ScriptTransport(Script())
    async with Manager() as manager:
        ada = manager.get_or_add("ada", entry(), ttl=2)
        bob = manager.get_or_add("bob", {"url": "http://bob/mcp", "http_transport": transport}, ttl=2)
        transport.down = True
        async with anyio.create_task_group() as group:
            group.start_soon(ada.call_tool, "slow", {"seconds": 30})
            group.start_soon(added, bob)
            await anyio.sleep(25)
            assert sorted(manager) == ["ada", "bob"]
            transport.down = False
        await anyio.sleep(4.1)
        assert list(manager) == []


async def test_a_new_session_does_not_shorten_it() -> None:
    script = Script()
    async with Manager() as manager:
        ada = manager.get_or_add("ada", entry(script, max_lifetime=12), ttl=10)
        await anyio.sleep(9)
        await added(ada)
        await anyio.sleep(9)
        assert ada.epoch == 2
        assert "ada" in manager


@pytest.mark.parametrize("shorter", [True, False])
async def test_the_last_word_on_its_time_counts(shorter: bool) -> None:
    async with Manager() as manager:
        manager.get_or_add("ada", entry(), ttl=100)
        await anyio.sleep(1)
        manager.get_or_add("ada", entry(), ttl=5 if shorter else None)
        await anyio.sleep(6)
        assert ("ada" in manager) is not shorter
        await anyio.sleep(1000)
        assert ("ada" in manager) is not shorter


async def test_time_counts_from_the_managers_start() -> None:
    manager = Manager()
    ada = manager.get_or_add("ada", entry(), ttl=10)
    await anyio.sleep(100)
    async with manager:
        await anyio.sleep(9)
        assert manager["ada"] is ada
        await anyio.sleep(2)
        assert "ada" not in manager


@pytest.mark.parametrize("ttl", [-1, float("nan"), float("inf"), 10**400, True, "10"])
async def test_a_time_that_is_none_is_refused(ttl: Any) -> None:
    async with Manager() as manager:
        with pytest.raises(ConfigError, match="ttl"):
            manager.get_or_add("ada", entry(), ttl=ttl)
        assert list(manager) == []


async def test_a_reload_leaves_leased_ones_alone(tmp_path: Path) -> None:
    path = tmp_path / "mcp.json"
    path.write_text(json.dumps({"mcpServers": {"new": {"url": "http://127.0.0.1:9/mcp"}}}))
    async with Manager({"old": entry()}) as manager:
        ada = manager.get_or_add("ada", entry(), ttl=100)
        result = manager.reload(path)
        assert (result["added"], result["removed"]) == (["new"], ["old"])
        assert manager["ada"] is ada


async def test_many_users_come_and_go() -> None:
    script = Script()
    async with Manager() as manager:
        for number in range(60):
            connection = manager.get_or_add(f"user{number}", entry(script), ttl=30)
            assert await added(connection) == "2"
            await anyio.sleep(1)
        assert len(manager) <= 31
        await anyio.sleep(31)
        assert len(manager) == 0
        await settle()
    assert script.sessions == set()


# -- remove


async def test_a_removal_can_be_awaited() -> None:
    script = Script()
    async with Manager({"srv": entry(script)}) as manager:
        connection = manager["srv"]
        await added(connection)
        async with anyio.create_task_group() as group:
            group.start_soon(connection.call_tool, "slow", {"seconds": 1})
            await settle()
            began = anyio.current_time()
            await manager.remove("srv")
            assert anyio.current_time() - began == pytest.approx(1)
        assert connection.state is State.CLOSED
        assert script.sessions == set()
        assert script.executions["slow"] == 1


async def test_a_removal_before_the_start_has_nothing_to_wait_for() -> None:
    manager = Manager({"srv": entry()})
    await manager.remove("srv")
    assert list(manager) == []


def test_servers_are_removed_without_a_loop() -> None:
    manager = Manager({"srv": entry(), "other": entry()})
    manager.remove("srv")
    assert list(manager) == ["other"]


async def test_a_removal_waits_no_longer_than_the_drain_timeout() -> None:
    script = Script()
    async with Manager({"srv": entry(script)}) as manager:
        connection = manager["srv"]
        await added(connection)
        script.inject(faults.hang())
        async with anyio.create_task_group() as group:

            async def call() -> None:
                with pytest.raises(Exception, match="may have run"):
                    await connection.call_tool("charge", timeout=None)

            group.start_soon(call)
            await settle()
            began = anyio.current_time()
            await manager.remove("srv")
            assert anyio.current_time() - began <= manager.policy.drain_timeout


# -- from threads


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_threads_ask_for_them_too(backend: str) -> None:
    with SyncManager(backend=backend) as manager:
        ada = manager.get_or_add("ada", entry(), ttl=60)
        assert text_of(ada.call_tool("add", {"a": 1, "b": 1})) == "2"
        assert manager.get_or_add("ada", entry(), ttl=60).epoch == 1
        manager.remove("ada")
    with pytest.raises(NotRunning):
        manager.get_or_add("ada", entry())
