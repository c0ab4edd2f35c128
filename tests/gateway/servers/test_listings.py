"""A gateway that starts while a server is away lists what another process has seen of that server."""

from __future__ import annotations

from typing import Any

import anyio
import pytest
from mcp import Client

from mcpconn import Manager
from mcpconn.gateway import MemoryStore
from mcpconn.gateway.requests.lists import SERVERS_META
from mcpconn.gateway.servers import listings
from mcpconn.gateway.servers.listings import Listings
from mcpconn.gateway.store import StoreUnavailable
from mcpconn.testing import HttpServer, Script
from tests.gateway.conftest import gateway
from tests.support import SAFETY

pytestmark = pytest.mark.anyio

MODES = pytest.mark.parametrize("mode", ["legacy", "auto"], ids=["legacy client", "modern client"])


@pytest.fixture(autouse=True)
def no_pause(monkeypatch):
    """A change is written at once."""
    monkeypatch.setattr(listings, "SETTLED", 0.0)


class Store(MemoryStore):
    """Tells when lists were written; fails as often as it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.written = anyio.Event()
        self.failures = 0
        self.reads = 0

    async def put(self, key, value, *, ttl):
        if key.group != "lists":
            return await super().put(key, value, ttl=ttl)
        if self.failures:
            self.failures -= 1
            raise StoreUnavailable("it cannot be reached")
        version = await super().put(key, value, ttl=ttl)
        self.written.set()
        return version

    async def get(self, key):
        if key.group == "lists":
            self.reads += 1
            if self.failures:
                self.failures -= 1
                raise StoreUnavailable("it cannot be reached")
        return await super().get(key)

    def kept(self):
        return [key for key in self._records if key.group == "lists"]


@MODES
async def test_a_server_that_is_away_at_the_start_is_listed(mode: Any):
    store = Store()
    async with HttpServer(Script()) as server, gateway(more={"shop": {"url": server.url}}, store=store) as made:
        await store.written.wait()
        await server.stop()
        await made.replace()
        async with Client(made.url, mode=mode) as client:
            listed = await client.list_tools()
            assert "shop__add" in {tool.name for tool in listed.tools}
            condition = (listed.meta or {})[SERVERS_META]["shop"]
            assert condition["note"] == "its last known entries are listed"
            assert condition["state"] == "connecting"
            # It is back: what it lists now counts.
            del server.script.tools["add"]
            await server.start()
            await made.app.manager["shop"].wait_ready()
            assert await made.app.manager["shop"].catalog.ensure()
            listed = await client.list_tools()
            assert "shop__add" not in {tool.name for tool in listed.tools}
            assert listed.tools
            assert listed.meta is None or SERVERS_META not in listed.meta


@pytest.fixture
async def shop():
    """A server, and the lists of its connection in a store of their own."""
    async with HttpServer(Script()) as server:
        yield server


async def kept(store, url, *, name="shop"):
    """Write down what a server lists, and end."""
    async with Manager({name: {"url": url}}) as manager, anyio.create_task_group() as group:
        made = Listings(store, connection=manager.__getitem__, changed=lambda change: None)
        made.follow(name)
        group.start_soon(made.keep)
        with anyio.fail_after(SAFETY):
            await store.written.wait()
        group.cancel_scope.cancel()


async def recalled(store, url, *, name="shop"):
    """What is known of a server that was never reached."""
    async with Manager({name: {"url": url, "lazy": True, "catalog": "lazy"}}) as manager:
        made = Listings(store, connection=manager.__getitem__, changed=lambda change: None)
        made.follow(name)
        await made.recall([manager[name]])
        return dict(made.entries(manager[name], "tools"))


async def test_another_address_or_name_is_another_server(shop):
    store = Store()
    await kept(store, shop.url)
    await shop.stop()
    assert "add" in await recalled(store, shop.url)
    assert await recalled(store, shop.url + "/other") == {}
    assert await recalled(store, shop.url, name="other") == {}


async def test_a_write_that_failed_is_repeated(shop, monkeypatch):
    monkeypatch.setattr(listings, "AGAIN", 0.0)
    store = Store()
    store.failures = 2
    await kept(store, shop.url)
    await shop.stop()
    assert "add" in await recalled(store, shop.url)


async def test_a_store_that_is_away_costs_nothing_but_the_entries(shop):
    store = Store()
    await kept(store, shop.url)
    await shop.stop()
    store.failures = 1
    assert await recalled(store, shop.url) == {}


async def test_the_store_is_not_asked_for_each_list(shop):
    store = Store()
    await shop.stop()
    async with Manager({"shop": {"url": shop.url, "lazy": True}}) as manager:
        made = Listings(store, connection=manager.__getitem__, changed=lambda change: None)
        made.follow("shop")
        for _ in range(5):
            await made.recall([manager["shop"]])
    assert store.reads == 1


@pytest.mark.parametrize("value", [b"", b"[]", b"{}", b'{"tools": 1}', b'{"tools": {"tools": [{"name": 1}]}}'])
async def test_a_damaged_record_is_ignored(shop, value):
    store = Store()
    await kept(store, shop.url)
    await shop.stop()
    (place,) = store.kept()
    await store.put(place, value, ttl=10.0)
    assert await recalled(store, shop.url) == {}


async def test_lists_that_are_too_long_are_not_kept(shop, monkeypatch):
    store = Store()
    await kept(store, shop.url)
    monkeypatch.setattr(listings, "LONGEST", 10)
    deleted = anyio.Event()

    async def delete(key, *, version=None):
        found = await MemoryStore.delete(store, key, version=version)
        deleted.set()
        return found

    monkeypatch.setattr(store, "delete", delete)
    async with Manager({"shop": {"url": shop.url}}) as manager, anyio.create_task_group() as group:
        made = Listings(store, connection=manager.__getitem__, changed=lambda change: None)
        made.follow("shop")
        group.start_soon(made.keep)
        with anyio.fail_after(SAFETY):
            await deleted.wait()
        group.cancel_scope.cancel()
    assert store.kept() == []
