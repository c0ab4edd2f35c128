"""What is taken back on one replica is refused on all of them within a second."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import httpx2
import pytest

from mcpconn.gateway import MemoryStore, Settings
from mcpconn.gateway.access.config import AccessSettings
from mcpconn.gateway.access.keys import KeyFile
from mcpconn.gateway.fleet.revocations import Revocations
from mcpconn.gateway.seal import KeyRing
from mcpconn.gateway.session_ids import LIFETIME
from mcpconn.testing import HttpServer, Script
from tests.fleet.conftest import Replicas, replica
from tests.gateway.test_store import Time

pytestmark = pytest.mark.anyio

INITIALIZE: Any = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "initialize",
    "params": {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "c", "version": "1"}},
}
ACCEPT = {"accept": "application/json, text/event-stream"}
PING: Any = {"jsonrpc": "2.0", "id": 2, "method": "ping"}


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
            assert await until_refused(http, two.url, headers, 401) < 1.5


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


async def test_removals_after_a_quiet_month_are_heard():
    time = Time()
    store, one, two = MemoryStore(now=time), Keys(), Keys()
    teller, hearer = Revocations(store, one), Revocations(store, two)
    for name in ("a", "b"):
        one.removed(name)
        await teller.look()
        await hearer.look()
    await hearer.look()
    assert two.refused == ["a", "b"]
    # The log of removals expires, and its numbers begin anew.
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
