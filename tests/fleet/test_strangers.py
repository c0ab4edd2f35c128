"""Replicas that do not fit together: other sealing keys, another clock, another fleet in the same place."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import anyio
import httpx2
import pytest

from mcpconn.gateway import MemoryStore
from mcpconn.gateway.store import Key
from mcpconn.gateway.store.base import Unreadable
from mcpconn.gateway.store.sealed import SealedStore
from mcpconn.seal import KeyRing
from tests.fleet.conftest import Replicas, replica, replicas
from tests.fleet.stateful import Stateful
from tests.fleet.test_forwarding import MODES
from tests.fleet.test_outages import STREAK, Calls
from tests.fleet.test_revoked import ACCEPT, INITIALIZE, PING
from tests.gateway.questions import serving

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def fleets(count: int = 2) -> AsyncIterator[tuple[list[Replicas], Stateful]]:
    """Fleets of two replicas each that share a store, and not their keys."""
    stateful, store = Stateful(), MemoryStore()
    async with serving(stateful) as url, anyio.create_task_group() as group, AsyncExitStack() as stack:
        servers = {"s": {"url": url, "mode": "legacy"}}
        rings = [KeyRing.ephemeral() for _ in range(count)]
        yield (
            [
                Replicas([await stack.enter_async_context(replica(servers, store, ring, group)) for _ in range(2)])
                for ring in rings
            ],
            stateful,
        )


@MODES
async def test_two_fleets_with_one_prefix_do_not_break_each_other(mode):
    async with fleets() as ((one, other), stateful), one.client(mode=mode) as ann, other.client(mode=mode) as bob:
        first, second = Calls(ann, "ann"), Calls(bob, "bob")
        for _ in range(4 * STREAK):
            await first.one()
            await second.one()
    first.check(stateful.ran)
    second.check(stateful.ran)
    assert first.told[-STREAK:] == second.told[-STREAK:] == ["answered"] * STREAK


@MODES
async def test_an_owner_whose_record_was_overwritten_takes_it_over(mode):
    stateful, store = Stateful(), MemoryStore()
    servers = {"s": {"mode": "legacy"}}
    async with serving(stateful) as url:
        servers["s"]["url"] = url
        async with replicas(servers, count=2, store=store) as made, made.client(mode=mode) as client:
            calls = Calls(client, "a")
            for _ in range(STREAK):
                assert await calls.one()
            owner = made[made.owner_of("session/" if mode == "legacy" else "principal/")].app.fleet
            assert owner is not None
            (key,) = owner.ownership.keys
            for name in ("owner", "upstreams"):
                await store.put(Key(key, name), b"written with other keys", ttl=60)
            # The next call needs another session with the server, which the owner has to write down.
            async with httpx2.AsyncClient() as http:
                await http.delete(url, headers={"mcp-session-id": calls.sessions[-1]})
            await calls.one()
            await calls.until_well()
    calls.check(stateful.ran)
    # The first of them was sent twice: on the session that was gone, and not on the next one.
    assert calls.told.count("unknown") <= 1
    assert "not_run" not in calls.told


async def test_a_replica_with_other_keys_does_not_end_its_neighbours_sessions():
    # Both were started while the store was away, or else the second would not have started.
    ring, server = KeyRing.ephemeral(), {"s": {"url": "http://127.0.0.1:1/mcp"}}
    store = SealedStore(MemoryStore(), ring)
    async with (
        anyio.create_task_group() as group,
        httpx2.AsyncClient(headers=ACCEPT) as http,
        replica(server, SealedStore(MemoryStore(), KeyRing.ephemeral()), KeyRing.ephemeral(), group) as neighbour,
        replica(server, store, ring, group) as other,
    ):
        opened = await http.post(neighbour.url, json=INITIALIZE)
        session = {"mcp-session-id": opened.headers["mcp-session-id"]}
        await store.inner.put(Key("ledger", "x"), b"written with other keys", ttl=60)
        with pytest.raises(Unreadable):
            await store.get(Key("ledger", "x"))
        refused = await http.post(other.url, json=PING, headers=session)
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
        assert "other sealing keys" in refused.text
        ready = await http.get(other.url.replace("/mcp", "/readyz"))
        assert "keys" in ready.json()["degraded"]
        assert (await http.post(neighbour.url, json=PING, headers=session)).status_code == 200
