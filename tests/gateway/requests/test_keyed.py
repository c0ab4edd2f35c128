"""A call with a key through the gateway: what its client is told is what happened, whatever the store does."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest
from mcp import Client, MCPError
from mcp_types import CallToolResult

from mcpconn import raw
from mcpconn.gateway import MemoryStore
from mcpconn.gateway.outcomes import CALL_ID, OUTCOME
from mcpconn.gateway.store import Key, Record, StoreUnavailable
from mcpconn.keys import CANCEL, FIRST, IDEMPOTENCY_KEY, LEDGER
from mcpconn.testing import Script, ScriptedTool
from mcpconn.testing.scripted import faults
from mcpconn.testing.scripted.tools import RpcError
from tests.gateway.conftest import Gateway, gateway

pytestmark = pytest.mark.anyio

MODES = pytest.mark.parametrize("mode", ["legacy", "auto"], ids=["legacy client", "modern client"])
META: Any = {IDEMPOTENCY_KEY: "k"}


class FaultyStore(MemoryStore):
    """Fails at one kind of operation on the ledger, before or after it is done."""

    def __init__(self) -> None:
        super().__init__()
        self.fails: tuple[str, str] | None = None
        self.failed = 0

    async def _run(self, name: str, key: Key, operation: Callable[[], Awaitable[Any]]) -> Any:
        fails = self.fails if key.group.startswith("ledger/") else None
        if fails == (name, "before"):
            self.failed += 1
            raise StoreUnavailable("the disk is gone")
        result = await operation()
        if fails == (name, "after"):
            self.failed += 1
            raise StoreUnavailable("the disk is gone")
        return result

    async def get(self, key: Key) -> Record | None:
        found: Record | None = await self._run("get", key, lambda: super(FaultyStore, self).get(key))
        return found

    async def add(self, key: Key, value: bytes, *, ttl: float, limit: int | None = None) -> int | None:
        added: int | None = await self._run(
            "add", key, lambda: super(FaultyStore, self).add(key, value, ttl=ttl, limit=limit)
        )
        return added

    async def swap(self, key: Key, version: int, value: bytes, *, ttl: float) -> int | None:
        swapped: int | None = await self._run(
            "swap", key, lambda: super(FaultyStore, self).swap(key, version, value, ttl=ttl)
        )
        return swapped

    async def delete(self, key: Key, *, version: int | None = None) -> bool:
        deleted: bool = await self._run("delete", key, lambda: super(FaultyStore, self).delete(key, version=version))
        return deleted


async def charge(client: Client, amount: int = 1, meta: Any = META) -> CallToolResult:
    return await client.call_tool("a__charge", {"amount": amount}, meta=meta)


def outcome(result: CallToolResult) -> str:
    return str((result.meta or {}).get(OUTCOME)) if result.is_error else "answered"


async def cancel(client: Client) -> dict[str, Any]:
    answer = await raw.send(client, CANCEL, {"key": "k"}, progress_callback=None, rounds=False)
    return {key: value for key, value in answer.items() if key == "cancelled"}


@asynccontextmanager
async def charging(script: Script, mode: str, **options: Any) -> AsyncIterator[tuple[Gateway, Client]]:
    async with gateway(script, **options) as made, Client(made.url, mode=mode) as client:
        await client.list_tools()
        await client.call_tool("a__add", {"a": 1, "b": 1})
        yield made, client


@MODES
async def test_a_key_with_new_arguments_is_refused(mode):
    """Also with another tool; nothing runs, and the key's own call keeps its answer."""
    script = Script()
    async with charging(script, mode) as (_, client):
        first = await charge(client, 1)
        assert outcome(await charge(client, 2)) == "not_run"
        assert outcome(await client.call_tool("a__add", {"a": 1, "b": 1}, meta=META)) == "not_run"
        assert (await charge(client, 1)).content == first.content
    assert script.executions["charge"] == 1


@MODES
async def test_a_repeat_that_claims_to_be_the_first_runs_nothing(mode):
    script = Script()
    async with charging(script, mode) as (_, client):
        answers = [await charge(client, meta={**META, FIRST: True}) for _ in range(3)]
        assert {outcome(each) for each in answers} == {"answered"}
        assert answers[0].content == answers[1].content == answers[2].content
        other = await charge(client, 2, meta={**META, FIRST: True})
        assert outcome(other) == "not_run"
    assert script.executions["charge"] == 1


@MODES
@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("operation", ["get", "add", "swap", "delete"])
@pytest.mark.parametrize("fault", ["none", "not run", "unknown"])
async def test_a_failing_store_changes_no_outcome(mode, operation, when, fault):
    script, store = Script(), FaultyStore()
    async with charging(script, mode, store=store) as (_, client):
        if fault == "unknown":
            script.inject(faults.drop_after())
        elif fault == "not run":
            script.inject(faults.unauthorized(), times=None)
        store.fails = operation, when
        first = outcome(await charge(client))
        ran = script.executions["charge"]
        if operation in ("get", "add"):
            expected = "not_run"
        else:
            expected = {"none": "answered", "not run": "not_run", "unknown": "unknown"}[fault]
        assert first == expected
        assert ran == {"answered": 1, "not_run": 0, "unknown": 1}[first]
        store.fails = None
        script.clear()
        again = outcome(await charge(client))
        if first == "answered":
            assert again == "answered"
        elif first == "unknown":
            assert again == "unknown"
        assert script.executions["charge"] <= 1
        assert again != "not_run" or script.executions["charge"] == 0


@MODES
async def test_a_repeat_without_a_store_is_unknown(mode):
    script, store = Script(), FaultyStore()
    async with charging(script, mode, store=store) as (_, client):
        await charge(client)
        store.fails = "get", "before"
        again = await charge(client)
        assert outcome(again) == "unknown", "it ran: to say not_run of this key would be a lie"
        other = await charge(client, meta={IDEMPOTENCY_KEY: "another"})
        assert outcome(other) == "not_run"
        assert not (await charge(client, meta=None)).is_error, "calls without a key go on"
    assert script.executions["charge"] == 2


@MODES
async def test_another_ledgers_repeat_is_unknown(mode):
    script = Script()
    async with charging(script, mode) as (made, client):
        own = await made.app.ledger.identity()
        assert not (await charge(client, meta={**META, LEDGER: own})).is_error
        strange = await charge(client, meta={IDEMPOTENCY_KEY: "j", LEDGER: "0123"})
        assert outcome(strange) == "unknown"
    assert script.executions["charge"] == 1


@MODES
async def test_a_full_ledger_refuses_clearly(mode):
    script = Script()
    async with charging(script, mode) as (made, client):
        made.app.ledger._records = 1
        assert not (await charge(client)).is_error
        refused = await charge(client, meta={IDEMPOTENCY_KEY: "another"})
        assert outcome(refused) == "not_run"
        assert "1 records are kept already" in str(refused.content)
        assert not (await charge(client)).is_error, "what is recorded is answered"
    assert script.executions["charge"] == 1


@MODES
async def test_an_expired_key_names_a_new_call(mode):
    class Clock:
        now = 0.0

        def __call__(self) -> float:
            return self.now

    clock, script = Clock(), Script()
    async with charging(script, mode, store=MemoryStore(now=clock)) as (made, client):
        await charge(client)
        clock.now += made.app.ledger.ttl - 1
        await charge(client)
        assert script.executions["charge"] == 1
        clock.now += 2
        await charge(client)
        assert script.executions["charge"] == 2


@MODES
@pytest.mark.parametrize("key", ["", "x" * 257])
async def test_a_key_of_wrong_length_is_refused(mode, key):
    script = Script()
    async with charging(script, mode) as (_, client):
        assert outcome(await charge(client, meta={IDEMPOTENCY_KEY: key})) == "not_run"
    assert script.executions["charge"] == 0


@MODES
@pytest.mark.parametrize("key", [7, ["k"], "round/1"])
async def test_a_key_that_is_none_is_refused(mode, key):
    script = Script()
    async with charging(script, mode) as (_, client):
        with pytest.raises(MCPError, match="idempotencyKey"):
            await charge(client, meta={IDEMPOTENCY_KEY: key})
    assert script.executions["charge"] == 0


@MODES
async def test_a_servers_own_error_is_given_again(mode):
    def fail(_: Any) -> Any:
        raise RpcError(-32000, "no such account", {OUTCOME: "not_run", "own": 1})

    script = Script(tools=[*Script().tools.values(), ScriptedTool("fail", fail)])
    async with charging(script, mode) as (_, client):
        for _ in range(2):
            with pytest.raises(MCPError, match="no such account") as raised:
                await client.call_tool("a__fail", {}, meta=META)
            assert raised.value.error.data == {"own": 1}, "nobody speaks in the gateway's name"
    assert script.executions["fail"] == 1


async def test_a_cut_stream_does_not_cancel_a_call_with_a_key():
    script = Script()
    async with charging(script, "auto") as (_, client):
        began = anyio.Event()
        script.on_execute = lambda _: began.set()
        with anyio.CancelScope() as scope:
            async with anyio.create_task_group() as group:

                async def call() -> None:
                    await client.call_tool("a__slow_charge", {"seconds": 0.3}, meta=META)

                group.start_soon(call)
                await began.wait()
                scope.cancel()
        result = await client.call_tool("a__slow_charge", {"seconds": 0.3}, meta=META)
        assert "slept" in str(result.content)
    assert script.executions["slow_charge"] == 1


@MODES
async def test_a_call_with_a_key_is_cancelled_by_its_key(mode):
    script = Script()
    async with charging(script, mode) as (_, client):
        began = anyio.Event()
        script.on_execute = lambda _: began.set()
        results: list[CallToolResult] = []

        async def call() -> None:
            results.append(await client.call_tool("a__slow_charge", {"seconds": 30}, meta=META))

        async with anyio.create_task_group() as group:
            group.start_soon(call)
            await began.wait()
            assert await cancel(client) == {"cancelled": True}
        assert outcome(results[0]) == "unknown"
        assert "cancelled" in str(results[0].content)
        assert outcome(await client.call_tool("a__slow_charge", {"seconds": 30}, meta=META)) == "unknown"
        assert await cancel(client) == {"cancelled": False}
    assert script.executions["slow_charge"] == 1


@MODES
async def test_an_unknown_call_names_its_record(mode):
    script = Script()
    async with charging(script, mode) as (_, client):
        script.inject(faults.drop_after())
        lost, again = await charge(client), await charge(client)
        assert (lost.meta or {})[CALL_ID] == (again.meta or {})[CALL_ID]
