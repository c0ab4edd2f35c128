"""A client whose requests go to any replica finds its one session, in all that it may do."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import anyio
import httpx2
import mcp_types as types
import pytest
from mcp import Client

from mcpconn.gateway import MemoryStore
from tests.fleet.conftest import Balancer, Replicas, replicas
from tests.fleet.stateful import Stateful
from tests.fleet.test_revoked import ACCEPT, INITIALIZE
from tests.gateway.questions import answers, serving
from tests.support import BUSY, SAFETY, text_of

pytestmark = pytest.mark.anyio

SLOW: Any = {
    "jsonrpc": "2.0",
    "id": 2,
    "method": "tools/call",
    "params": {"name": "s__remember", "arguments": {"id": "slow", "seconds": 2}},
}


@asynccontextmanager
async def fleet(**options: Any) -> AsyncIterator[tuple[Replicas, Stateful]]:
    """Three replicas before a legacy server that keeps state for each session."""
    stateful = Stateful()
    async with serving(stateful) as url, replicas({"s": {"url": url, "mode": "legacy"}}, **options) as made:
        yield made, stateful


async def remember(client: Client, call: str, **arguments: Any) -> Any:
    """Call the tool that remembers; what it says of its session."""
    return json.loads(text_of(await client.call_tool("s__remember", {"id": call, **arguments})))


MODES = pytest.mark.parametrize("mode", ["legacy", "auto"], ids=["legacy client", "modern client"])


@MODES
async def test_calls_by_any_replica_share_sessions(mode):
    async with fleet() as (made, _), made.client(mode=mode) as client:
        told = [await remember(client, str(number)) for number in range(6)]
    assert told[-1]["ran"] == ["0", "1", "2", "3", "4", "5"]
    assert len({each["session"] for each in told}) == 1


@MODES
async def test_two_clients_have_a_session_each(mode):
    async with fleet() as (made, _), made.client(mode="legacy") as ann, made.client(mode=mode) as bob:
        for number in range(3):
            await remember(ann, f"ann {number}")
            told = await remember(bob, f"bob {number}")
    assert told["ran"] == ["bob 0", "bob 1", "bob 2"]


@MODES
async def test_a_question_and_its_answer_meet(mode):
    async with fleet() as (made, stateful), made.client(mode=mode, **answers("ann")) as client:
        for number in range(3):
            told = json.loads(text_of(await client.call_tool("s__ask", {"id": str(number)})))
            assert told["colour"] == "ann"
    assert stateful.ran == {"0": 1, "1": 1, "2": 1}


async def test_progress_comes_from_the_owner():
    seen: list[float] = []

    async def progress(progress: float, total: float | None, message: str | None) -> None:
        seen.append(progress)

    async with fleet() as (made, _), made.client() as client:
        for number in range(3):
            await client.call_tool("s__steps", {"id": str(number)}, progress_callback=progress)
    assert seen == [0, 1, 2] * 3


async def test_a_cancellation_reaches_the_call():
    async with fleet() as (made, stateful), made.client() as client:
        await remember(client, "first")
        with anyio.fail_after(SAFETY):
            async with anyio.create_task_group() as group:
                group.start_soon(partial(remember, client, "second", seconds=30))
                while not stateful.ran["second"]:
                    await anyio.lowlevel.checkpoint()
                group.cancel_scope.cancel()
            await stateful.cancelled.wait()


async def test_updates_reach_the_replica_with_the_stream():
    news = anyio.Event()

    async def note(message: Any) -> None:
        if isinstance(message, types.ResourceUpdatedNotification):
            news.set()

    async with fleet() as (made, stateful), made.client(message_handler=note) as client:
        (resource,) = (await client.list_resources()).resources
        params = types.SubscribeRequestParams(uri=str(resource.uri))
        await client.session.send_request(types.SubscribeRequest(params=params), types.EmptyResult)
        with anyio.fail_after(10):
            while not news.is_set():
                await stateful.updated()
                await client.send_ping()


async def test_a_call_of_a_replica_that_lost_its_lease_is_unknown():
    store = MemoryStore()
    async with fleet(count=2, store=store) as (made, stateful), httpx2.AsyncClient(timeout=30) as http:
        owner, other = made[0], made[1]
        # The first version whose clients are given an event to go on from at once.
        version = "2025-11-25"
        initialize = {**INITIALIZE, "params": {**INITIALIZE["params"], "protocolVersion": version}}
        begun = await http.post(owner.url, json=initialize, headers=ACCEPT)
        headers = {**ACCEPT, "mcp-session-id": begun.headers["mcp-session-id"], "mcp-protocol-version": version}
        async with http.stream("POST", owner.url, json=SLOW, headers=headers) as answer:
            first = None
            async for line in answer.aiter_lines():
                if line.startswith("id:"):
                    first = line.removeprefix("id:").strip()
                    break
        while not stateful.ran["slow"]:
            await anyio.lowlevel.checkpoint()
        assert first is not None
        # The client's stream is cut; the owner loses its lease, and its process goes on.
        assert owner.app.fleet is not None
        membership = owner.app.fleet.membership
        assert await store.delete(membership.key(membership.name))
        await membership.renew()
        with anyio.fail_after(BUSY):
            resumed = await http.get(other.url, headers={**headers, "last-event-id": first})
        assert '"mcpconn/outcome":"unknown"' in resumed.text.replace(" ", "")


async def test_an_owner_is_told_of_a_sessions_end():
    async with fleet() as (made, _):
        async with made.client() as client:
            await remember(client, "a")
            owner = made[made.owner_of()].app
            assert len(owner.endpoint("").sessions) == 1
        assert len(owner.endpoint("").sessions) == 0
        assert owner.fleet is not None
        assert not owner.fleet.ownership.keys


async def test_a_replica_that_leaves_gives_up_its_sessions():
    async with fleet(count=2) as (made, _):
        balancer = Balancer([made[0].url, made[1].url])
        async with made.client(balancer=balancer) as client:
            await remember(client, "a")
            leaving = made.owner_of()
            await made[leaving].aclose()
            balancer.urls = [made[1 - leaving].url]
            assert (await remember(client, "b"))["ran"] == ["b"]


@pytest.mark.parametrize("last", [None, "1.1"], ids=["a new stream", "the rest of a stream"])
async def test_a_stream_refused_by_its_owner_is_served_by_the_next(last):
    async with fleet(count=2) as (made, stateful), httpx2.AsyncClient(timeout=10) as http:
        owner, other = made[0], made[1]
        begun = await http.post(owner.url, json=INITIALIZE, headers=ACCEPT)
        headers = {**ACCEPT, "mcp-session-id": begun.headers["mcp-session-id"]}
        async with anyio.create_task_group() as group:
            # The owner is being stopped, and keeps the session until this call has ended.
            group.start_soon(partial(http.post, owner.url, json=SLOW, headers=headers))
            while not stateful.ran["slow"]:
                await anyio.lowlevel.checkpoint()
            owner.app.drain()
            resumed = headers if last is None else {**headers, "last-event-id": last}
            async with http.stream("GET", other.url, headers=resumed) as answer:
                assert answer.status_code == 200
                assert answer.headers["content-type"].startswith("text/event-stream")
