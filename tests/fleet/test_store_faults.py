"""A gateway whose store in Redis fails: what is refused, what goes on, and what is said of it.

The rows of the table in docs/howto/fleet.md, in its order.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import httpx2
import pytest
from mcp import Client

from mcpconn.gateway.store import RedisStore
from mcpconn.keys import FIRST, IDEMPOTENCY_KEY, LEDGER
from mcpconn.seal import KeyRing
from mcpconn.testing import Script
from tests.fleet.conftest import replica
from tests.fleet.stateful import Stateful
from tests.gateway.conftest import Gateway, gateway
from tests.gateway.questions import serving
from tests.gateway.requests.test_keyed import MODES, charge, outcome
from tests.redis_server import RedisServer, needs_redis, redis_server
from tests.support import text_of

pytestmark = [pytest.mark.anyio, needs_redis]

QUICK = 4.0
"""Seconds for five calls without a key. One that waited for the store would take its time-out, 10 s, alone."""
UNWAITED = 5.0
"""Seconds for a call that needs nothing of the store, on a busy machine. A request to a store that hangs takes 10 s."""
LATENCY = 2.0
SLOW_SAFETY = 60.0
"""Seconds for a test in which each of a dozen requests to the store takes `LATENCY`."""


def key(name: str | None = None) -> Any:
    return {IDEMPOTENCY_KEY: name or secrets.token_hex(4)}


@asynccontextmanager
async def charging(script: Script, url: str, mode: str, **options: Any) -> AsyncIterator[tuple[Gateway, Client]]:
    store = RedisStore(url, **options)
    async with gateway(script, store=store, safety=SLOW_SAFETY) as made, Client(made.url, mode=mode) as client:
        await client.list_tools()
        await client.call_tool("a__add", {"a": 1, "b": 1})
        yield made, client


async def degraded(made: Gateway) -> list[str]:
    """What `/readyz` names; it must say 200."""
    async with httpx2.AsyncClient() as http:
        answer = await http.get(made.url.removesuffix("/mcp") + "/readyz")
    assert answer.status_code == 200
    assert answer.json()["ready"] is True
    found: list[str] = answer.json().get("degraded", [])
    return found


async def on_the_page(made: Gateway) -> str:
    """What the page is notified of the store."""
    url = made.url.removesuffix("/mcp") + "/dashboard/events"
    async with httpx2.AsyncClient() as http, http.stream("GET", url) as answer:
        lines = answer.aiter_lines()
        async for line in lines:
            if line == "event: degraded":
                return str(await anext(lines))
    raise AssertionError("the page was told nothing")


async def healthy(made: Gateway) -> None:
    """Wait until the store is reached again."""
    while await degraded(made):
        await anyio.lowlevel.checkpoint()


async def five_calls_wait_for_nothing(client: Client) -> None:
    with anyio.fail_after(QUICK):
        for _ in range(5):
            assert not (await client.call_tool("a__add", {"a": 1, "b": 1})).is_error


@MODES
async def test_while_it_is_down(mode, redis):
    script = Script()
    async with charging(script, redis.url, mode) as (made, client):
        assert await degraded(made) == []
        first = key()
        assert outcome(await charge(client, meta=first)) == "answered"
        redis.kill()
        await five_calls_wait_for_nothing(client)
        assert outcome(await charge(client, meta=key())) == "not_run"
        assert outcome(await charge(client, meta=first)) == "unknown", "it ran, and that is known here"
        assert await degraded(made) == ["store"]
        assert "cannot be reached" in await on_the_page(made)
        redis.start()
        await healthy(made)
        assert outcome(await charge(client, meta=first)) == "answered", "what was kept is there"
        assert outcome(await charge(client, meta=key())) == "answered"
    assert script.executions["charge"] == 2


@MODES
async def test_a_gateway_that_starts_without_it(mode, redis):
    script = Script()
    redis.kill()
    async with charging(script, redis.url, mode) as (made, client):
        await five_calls_wait_for_nothing(client)
        assert await degraded(made) == ["store"]
        assert outcome(await charge(client, meta=key())) == "not_run"
        redis.start()
        await healthy(made)
        assert outcome(await charge(client, meta=key())) == "answered"


@MODES
async def test_while_it_answers_nothing(mode, redis):
    script = Script()
    async with charging(script, redis.url, mode) as (made, client):
        redis.pause()
        await five_calls_wait_for_nothing(client)
        assert outcome(await charge(client, meta=key())) == "not_run"
        assert await degraded(made) == ["store"]
        redis.resume()
        await healthy(made)
        assert outcome(await charge(client, meta=key())) == "answered"


class SlowLink:
    """A link to a server on which an answer takes `latency` seconds."""

    def __init__(self, url: str, latency: float) -> None:
        self.url, self.latency = url, latency


@asynccontextmanager
async def delayed(redis: RedisServer, latency: float = LATENCY) -> AsyncIterator[SlowLink]:
    """The server behind a slow link."""
    loop = asyncio.get_running_loop()

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            loop.call_later(link.latency / 2, writer.write, data)
        writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        onwards = await asyncio.open_connection("127.0.0.1", redis.port)
        await asyncio.gather(pump(reader, onwards[1]), pump(onwards[0], writer), return_exceptions=True)

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    link = SlowLink(f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}", latency)
    try:
        yield link
    finally:
        server.close()


@MODES
async def test_while_it_is_slow(mode, redis):
    script = Script()
    async with (
        delayed(redis) as link,
        gateway(script, store=RedisStore(link.url), safety=SLOW_SAFETY) as made,
        Client(made.url, mode=mode) as client,
    ):
        await client.list_tools()
        await five_calls_wait_for_nothing(client)
        while made.app.store.standing.away is not None:
            await anyio.lowlevel.checkpoint()
        await five_calls_wait_for_nothing(client)
        assert outcome(await charge(client, meta=key())) == "answered", "later, and once"
        assert await degraded(made) == ["store"]
        assert "it is slow: an answer took 2." in await on_the_page(made)
    assert script.executions["charge"] == 1


@asynccontextmanager
async def replica_before_state(url: str) -> AsyncIterator[Client]:
    """A legacy client of a replica, before a server that keeps state for each session."""
    ring = KeyRing.ephemeral()
    with anyio.fail_after(SLOW_SAFETY):
        async with serving(Stateful()) as server, anyio.create_task_group() as group:
            servers: Any = {"s": {"url": server, "mode": "legacy"}}
            async with replica(servers, RedisStore(url), ring, group) as made, Client(made.url, mode="legacy") as one:
                await one.call_tool("s__remember", {"id": "first"})
                yield one


async def calls_go_on(client: Client, seconds: float) -> None:
    """Call for a while: no call waits for the store, and all are in the one session with the server."""
    end, count = anyio.current_time() + seconds, 1
    while anyio.current_time() < end:
        began = anyio.current_time()
        result = await client.call_tool("s__remember", {"id": str(count)})
        took = anyio.current_time() - began
        count += 1
        assert took < UNWAITED, f"call {count} took {took:.1f} s"
        assert not result.is_error, text_of(result)
        assert len(json.loads(text_of(result))["ran"]) == count, "its session with the server is another one"
        await anyio.sleep(0.1)


async def test_owners_continue_while_a_store_hangs(redis):
    async with replica_before_state(redis.url) as client:
        redis.pause()
        # Past the end of its lease, and past the time in which one request to the store ends.
        await calls_go_on(client, 12.0)


async def test_an_owner_keeps_its_lease_if_slow(redis):
    async with delayed(redis, 0.0) as link, replica_before_state(link.url) as client:
        link.latency = LATENCY
        await calls_go_on(client, 12.0)


@MODES
async def test_when_it_is_full(mode, redis):
    script = Script()
    async with charging(script, redis.url, mode) as (made, client):
        first = key()
        assert outcome(await charge(client, meta=first)) == "answered"
        redis.ask("CONFIG", "SET", "maxmemory", "1")
        assert redis.ask("CONFIG", "GET", "maxmemory-policy").endswith("noeviction")
        refused = await charge(client, meta=key())
        assert outcome(refused) == "not_run"
        assert "maxmemory" in text_of(refused)
        assert outcome(await charge(client, meta=first)) == "answered", "reading needs no memory"
        await five_calls_wait_for_nothing(client)
        while not await degraded(made):
            await anyio.lowlevel.checkpoint()
        assert "it is full (maxmemory)" in await on_the_page(made)
        redis.ask("CONFIG", "SET", "maxmemory", "0")
        assert outcome(await charge(client, meta=key())) == "answered"
        await healthy(made)
    assert script.executions["charge"] == 2


@MODES
async def test_after_a_failover_that_lost_the_last_second(mode, tmp_path):
    script = Script()
    with redis_server(tmp_path / "redis", "--appendonly", "yes", "--appendfsync", "everysec", "--save", "") as redis:
        async with charging(script, redis.url, mode) as (made, client):
            ledger = made.app.ledger.advertised()
            assert ledger is not None
            kept, lost = key(), key()
            assert outcome(await charge(client, meta=kept)) == "answered"
            shutil.copytree(redis.folder, tmp_path / "replica")
            assert outcome(await charge(client, meta=lost)) == "answered"
            # The one that takes over, at the same address, has all but the last second.
            redis.kill()
            shutil.rmtree(redis.folder)
            shutil.copytree(tmp_path / "replica", redis.folder)
            redis.start()
            while (made.app.ledger.advertised() or ledger) == ledger:
                await anyio.lowlevel.checkpoint()
            assert outcome(await charge(client, meta=kept)) == "answered"
            assert outcome(await charge(client, meta=lost)) == "unknown", "it ran, and the store has forgotten it"
            assert outcome(await charge(client, meta={**lost, LEDGER: ledger["id"]})) == "unknown"
            assert outcome(await charge(client, meta=key())) == "unknown", "it may have been sent before"
            assert outcome(await charge(client, meta={**key(), FIRST: True})) == "answered"
    assert script.executions["charge"] == 3


@MODES
async def test_a_restart_that_loses_nothing(mode, redis):
    script = Script()
    async with charging(script, redis.url, mode) as (made, client):
        before = made.app.ledger.advertised()
        redis.kill()
        redis.start()
        await healthy(made)
        assert made.app.ledger.advertised() == before
        assert outcome(await charge(client, meta=key())) == "answered", "what is not there was never there"


@MODES
@pytest.mark.parametrize(
    ("settings", "why"),
    [
        (["--appendonly", "no", "--save", ""], "appendonly yes"),
        (["--appendonly", "yes", "--maxmemory", "100mb", "--maxmemory-policy", "volatile-lru"], "noeviction"),
    ],
    ids=["does not persist", "evicts"],
)
async def test_a_store_that_loses_gets_no_ledger(mode, settings, why, tmp_path):
    script = Script()
    with redis_server(tmp_path / "redis", *settings) as redis:
        async with charging(script, redis.url, mode) as (made, client):
            assert made.app.ledger.advertised() is None
            refused = await charge(client, meta=key())
            assert outcome(refused) == "not_run"
            assert why in text_of(refused)
            await five_calls_wait_for_nothing(client)
            assert await degraded(made) == ["store"]
            assert why in await on_the_page(made)
        async with charging(script, f"{redis.url}?prefix=other", mode, may_lose=True) as (made, client):
            assert made.app.ledger.advertised() is not None
            assert outcome(await charge(client, meta=key())) == "answered"
            assert await degraded(made) == ["store"]
    assert script.executions["charge"] == 1


async def test_what_redis_holds_is_sealed(redis):
    async with charging(Script(), redis.url, "legacy") as (_, client):
        assert outcome(await charge(client, meta=key("alice's own key"))) == "answered"
        assert redis.ask("DBSIZE") != "0"
    files = b"".join(path.read_bytes() for path in redis.folder.rglob("*") if path.is_file())
    assert b'"result"' not in files
    assert b"alice" not in files
