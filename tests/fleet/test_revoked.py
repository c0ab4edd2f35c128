"""What is taken back on one replica is refused on all of them within a second."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import httpx2
import pytest
from mcp import Client
from mcp.client.streamable_http import streamable_http_client
from mcp.client.subscriptions import SubscriptionLost

from mcpconn.gateway import MemoryStore, Settings
from mcpconn.gateway.access.config import AccessSettings
from mcpconn.gateway.access.gate import Gate
from mcpconn.gateway.access.keys import KeyFile
from mcpconn.gateway.clients.session_ids import LIFETIME
from mcpconn.gateway.fleet.revocations import Revocations
from mcpconn.gateway.http.bodies import Bodies
from mcpconn.gateway.store import RedisStore, Store
from mcpconn.seal import KeyRing
from mcpconn.testing import HttpServer, Script, clock
from tests.fleet.conftest import Replicas, replica
from tests.gateway.conftest import Gateway
from tests.gateway.questions import Asking, answers, serving
from tests.gateway.test_store import Time
from tests.redis_server import RedisServer, needs_redis
from tests.support import BUSY

pytestmark = pytest.mark.anyio

INITIALIZE: Any = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "initialize",
    "params": {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "c", "version": "1"}},
}
ACCEPT = {"accept": "application/json, text/event-stream"}
PING: Any = {"jsonrpc": "2.0", "id": 2, "method": "ping"}
WITHIN = 1.0 + BUSY
"""Seconds from a removal to the refusal on another replica, on a busy machine. That it takes a second at most is tested
in virtual time."""


async def until_refused(http: httpx2.AsyncClient, url: str, headers: Any, status: int) -> float:
    """Seconds until a replica refuses."""
    began = anyio.current_time()
    with anyio.fail_after(10):
        while (await http.post(url, json=PING, headers=headers)).status_code != status:  # noqa: ASYNC110 - polled
            await anyio.sleep(0.02)
    return anyio.current_time() - began


@pytest.mark.parametrize("again", [False, True], ids=["removed", "still in the other file"])
async def test_a_removed_key_opens_nothing_on_another_replica(tmp_path: Path, again: bool):
    files = [KeyFile(tmp_path / "keys0"), KeyFile(tmp_path / "keys1" if again else tmp_path / "keys0")]
    key = files[0].add("ann")
    if again:
        # Each machine has a file of its own.
        files[1].path.write_bytes(files[0].path.read_bytes())
    store, ring = MemoryStore(), KeyRing.ephemeral()
    async with HttpServer(Script()) as server, anyio.create_task_group() as group, httpx2.AsyncClient() as http:
        servers: Any = {"a": {"url": server.url}}
        settings = [Settings(access=AccessSettings(keys=each)) for each in files]
        async with (
            replica(servers, store, ring, group, settings[0]) as one,
            replica(servers, store, ring, group, settings[1]) as two,
        ):
            headers = {**ACCEPT, "authorization": f"Bearer {key}"}
            begun = await http.post(one.url, json=INITIALIZE, headers=headers)
            headers["mcp-session-id"] = begun.headers["mcp-session-id"]
            assert (await http.post(two.url, json=PING, headers=headers)).status_code == 200
            # The gate has looked at its file.
            await anyio.sleep(0.6)
            files[0].remove("ann")
            assert await until_refused(http, two.url, headers, 401) < WITHIN


class Machines:
    """Two replicas with a key file each; both files hold the same key, and it is removed from the first."""

    def __init__(self, files: list[KeyFile], made: list[Gateway], key: str) -> None:
        self.files, self.one, self.two = files, made[0], made[1]
        self.headers = {**ACCEPT, "authorization": f"Bearer {key}"}

    @asynccontextmanager
    async def client(self, made: Gateway, **options: Any) -> AsyncIterator[Client]:
        http = httpx2.AsyncClient(headers=self.headers, timeout=30)
        async with http, Client(streamable_http_client(made.url, http_client=http), **options) as client:
            yield client

    async def ends(self, wait: Callable[[], Awaitable[object]]) -> float:
        """Remove the key. Seconds until `wait` returns."""
        # Both gates have looked at their files.
        await anyio.sleep(0.6)
        began = anyio.current_time()
        self.files[0].remove("ann")
        with anyio.fail_after(10):
            await wait()
        return anyio.current_time() - began


@asynccontextmanager
async def machines(folder: Path, server: Any, *stores: Store) -> AsyncIterator[Machines]:
    """Two replicas before a legacy server.

    Args:
        folder: For the key files.
        server: The server.
        stores: A store for each replica; one in memory for both if there is none.
    """
    files = [KeyFile(folder / "keys0"), KeyFile(folder / "keys1")]
    key = files[0].add("ann")
    files[1].path.write_bytes(files[0].path.read_bytes())
    ring, memory = KeyRing.ephemeral(), MemoryStore()
    one, two = stores or (memory, memory)
    async with serving(server) as url, anyio.create_task_group() as group:
        servers: Any = {"q": {"url": url, "mode": "legacy"}}
        settings = [Settings(access=AccessSettings(keys=each)) for each in files]
        async with (
            replica(servers, one, ring, group, settings[0]) as first,
            replica(servers, two, ring, group, settings[1]) as second,
        ):
            yield Machines(files, [first, second], key)


@pytest.mark.parametrize("owner", [0, 1])
async def test_another_replicas_event_stream_ends(tmp_path: Path, owner: int):
    async with machines(tmp_path, Asking()) as made, httpx2.AsyncClient(timeout=30) as http:
        begun = await http.post((made.one, made.two)[owner].url, json=INITIALIZE, headers=made.headers)
        headers = {**made.headers, "mcp-session-id": begun.headers["mcp-session-id"]}
        async with http.stream("GET", made.two.url, headers=headers) as stream:
            assert stream.status_code == 200
            assert await made.ends(stream.aread) < WITHIN


async def test_a_modern_subscription_on_another_replica_ends(tmp_path: Path):
    async with (
        machines(tmp_path, Asking()) as made,
        made.client(made.two) as client,
        client.listen(tools_list_changed=True) as events,
    ):

        async def over() -> None:
            try:
                async for _ in events:
                    """The removal is no event."""
            except SubscriptionLost:
                return

        assert await made.ends(over) < WITHIN


async def test_a_parked_call_of_another_replica_is_cancelled(tmp_path: Path):
    asking = Asking()
    async with machines(tmp_path, asking) as made, made.client(made.two, **answers("ann")) as client:
        await client.list_tools()
        asked = await client.session.call_tool("q__form", {}, allow_input_required=True)
        assert asked.result_type == "input_required"
        assert await made.ends(asking.cancelled.wait) < WITHIN
    assert asking.ended["form"] == 0


@needs_redis
async def test_without_pubsub_a_removed_key_is_refused_as_soon(tmp_path: Path, redis: RedisServer):
    stores = RedisStore(redis.url), RedisStore(redis.url)
    async with machines(tmp_path, Asking(), *stores) as made, httpx2.AsyncClient(timeout=30) as http:
        begun = await http.post(made.two.url, json=INITIALIZE, headers=made.headers)
        headers = {**made.headers, "mcp-session-id": begun.headers["mcp-session-id"]}
        async with http.stream("GET", made.two.url, headers=headers) as stream, anyio.create_task_group() as group:
            group.start_soon(lose_pubsub, redis)
            assert await made.ends(stream.aread) < WITHIN
            assert (await http.post(made.two.url, json=PING, headers=headers)).status_code == 401
            group.cancel_scope.cancel()


async def lose_pubsub(redis: RedisServer) -> None:
    """Cut every subscription of pub/sub as soon as it is there."""
    while True:
        await anyio.to_thread.run_sync(redis.ask, "CLIENT", "KILL", "TYPE", "pubsub")
        # Each is a process of its own: without a pause they take the processor from what is measured.
        await anyio.sleep(0.05)


async def test_a_deleted_sessions_stream_on_another_replica_ends(tmp_path: Path):
    async with machines(tmp_path, Asking()) as made, httpx2.AsyncClient(timeout=30) as http:
        begun = await http.post(made.one.url, json=INITIALIZE, headers=made.headers)
        headers = {**made.headers, "mcp-session-id": begun.headers["mcp-session-id"]}
        async with http.stream("GET", made.two.url, headers=headers) as stream:
            assert stream.status_code == 200
            assert (await http.request("DELETE", made.one.url, headers=headers)).status_code == 200
            with anyio.fail_after(WITHIN):
                await stream.aread()
            assert (await http.post(made.two.url, json=PING, headers=headers)).status_code == 404


async def test_a_deleted_session_is_refused_on_another_replica():
    store, ring = MemoryStore(), KeyRing.ephemeral()
    async with HttpServer(Script()) as server, anyio.create_task_group() as group, httpx2.AsyncClient() as http:
        servers: Any = {"a": {"url": server.url}}
        async with replica(servers, store, ring, group) as one, replica(servers, store, ring, group) as two:
            made = Replicas([one, two])
            begun = await http.post(one.url, json=INITIALIZE, headers=ACCEPT)
            headers = {**ACCEPT, "mcp-session-id": begun.headers["mcp-session-id"]}
            assert (await http.post(two.url, json=PING, headers=headers)).status_code == 200
            assert made.owner_of() == 0
            # By the replica that does not have it.
            assert (await http.request("DELETE", two.url, headers=headers)).status_code == 200
            for each in (one, two):
                assert (await http.post(each.url, json=PING, headers=headers)).status_code == 404


class Keys:
    """Those of a replica: what it was told to refuse."""

    removed: Callable[[str], None]

    def __init__(self) -> None:
        self.refused: list[str] = []

    def refuse(self, key_hash: str) -> None:
        self.refused.append(key_hash)


class Deaf(MemoryStore):
    """A store whose hints reach nobody."""

    async def publish(self, channel: str, hint: bytes) -> None:
        """Lost."""


@pytest.mark.parametrize("kind", [MemoryStore, Deaf], ids=["with hints", "without hints"])
@pytest.mark.parametrize("at", [0.0, 0.1, 0.2, 0.3, 0.4, 0.49])
def test_a_removal_is_heard_within_a_second(tmp_path: Path, kind: type[MemoryStore], at: float):
    clock.run(removed_at, tmp_path, kind(), at)


async def removed_at(folder: Path, store: MemoryStore, at: float) -> None:
    file, others = KeyFile(folder / "keys"), Keys()
    file.add("ann")
    gate = Gate(nothing, AccessSettings(keys=file), view=lambda scope: None, bodies=Bodies())
    teller, hearer = Revocations(store, gate), Revocations(store, others)
    async with anyio.create_task_group() as group:
        group.start_soon(hearer.follow)
        # The looks of one are shifted against those of the other.
        await anyio.sleep(0.123)
        group.start_soon(gate.watch)
        group.start_soon(teller.follow)
        await anyio.sleep(1 + at)
        file.remove("ann")
        with anyio.fail_after(1.0):
            while not others.refused:  # noqa: ASYNC110 - virtual time
                await anyio.sleep(0.01)
        group.cancel_scope.cancel()


async def nothing(scope: Any, receive: Any, send: Any) -> None:
    """No application."""


async def test_a_removal_after_a_month_is_heard():
    time = Time()
    store, one, two = MemoryStore(now=time), Keys(), Keys()
    teller, hearer = Revocations(store, one), Revocations(store, two)
    for name in ("a", "b"):
        one.removed(name)
        await teller.look()
        await hearer.look()
    await hearer.look()
    assert two.refused == ["a", "b"]
    # The log of removals expires, and its numbers begin again.
    time.now += LIFETIME + 1
    await hearer.look()
    for name in ("c", "d"):
        one.removed(name)
    await teller.look()
    await hearer.look()
    await hearer.look()
    assert two.refused == ["a", "b", "c", "d"]
    time.now += LIFETIME + 1
    for name in ("e", "f", "g"):
        one.removed(name)
    await teller.look()
    await hearer.look()
    assert two.refused == ["a", "b", "c", "d", "e", "f", "g"]
