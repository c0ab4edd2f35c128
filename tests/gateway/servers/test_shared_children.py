"""A child process that several clients share: what it says reaches whom it is for, and nobody else."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import anyio
import mcp_types as types
import pytest
from mcp import Client, MCPError

from mcpconn.gateway import Settings
from mcpconn.testing import Script, faults
from tests.gateway.conftest import Gateway, gateway
from tests.gateway.everything import URI
from tests.gateway.servers.test_watching import Asked, subscribe, update, uri_of
from tests.gateway.test_everything import Person
from tests.support import SAFETY, text_of

pytestmark = pytest.mark.anyio

CLIENTS = pytest.mark.parametrize("mode", ["legacy", "auto"], ids=["legacy clients", "modern clients"])
CHILDREN = pytest.mark.parametrize("child", ["legacy", "auto"], ids=["legacy child", "modern child"])
PUBLIC = f"all+{URI}"


@asynccontextmanager
async def two_before_a_child(mode: str, child: str = "legacy") -> AsyncIterator[tuple[Gateway, Person, Person]]:
    entry: dict[str, Any] = {"command": sys.executable, "args": ["-m", "tests.gateway.everything", "stdio"]}
    entry |= {"env": {"PYTHONPATH": os.environ.get("PYTHONPATH", "")}, "mode": child}
    options = {} if mode == "legacy" else {"log_level": "info"}
    async with AsyncExitStack() as stack:
        settings = Settings(scopes={"all": "shared"})
        made = await stack.enter_async_context(gateway(settings=settings, more={"all": entry}))
        await made.app.manager["all"].catalog.refresh()
        ann, bob = (Person(name, made.url, mode, **options) for name in ("ann", "bob"))
        for person in (ann, bob):
            await stack.enter_async_context(person.client)
        yield made, ann, bob


@asynccontextmanager
async def watching(person: Person) -> AsyncIterator[Any]:
    """Events of a modern client's stream; None for a legacy client, whose messages they are."""
    if person.is_modern:
        async with person.client.listen(resource_subscriptions=[PUBLIC]) as events:
            yield events
    else:
        await subscribe(person.client, PUBLIC)
        yield None


async def heard(person: Person, events: Any) -> str:
    if events is not None:
        return str((await events.__anext__()).uri)
    return str((await person.heard(types.ResourceUpdatedNotification)).params.uri)


async def seen(person: Person) -> list[str]:
    return list(json.loads(text_of(await person.call("journal"))))


async def every_tool(client: Client) -> list[types.Tool]:
    found, cursor = [], None
    while True:
        page = await client.list_tools(cursor=cursor)
        found += page.tools
        if (cursor := page.next_cursor) is None:
            return found


@CLIENTS
@CHILDREN
async def test_a_shared_child_reaches_whom_its_news_are_for(mode: str, child: str) -> None:
    """One child after another would need seconds to start, so one has to do for all of it."""
    async with two_before_a_child(mode, child) as (made, ann, bob):
        if child == "legacy":
            await _logs_of_the_only_client(ann)
        await _who_watches_hears(made, ann, bob, legacy=child == "legacy")
        await _a_changed_list_is_told_to_all(ann, bob)
        if child == "legacy" and mode == "legacy":
            await _logs_of_one_of_two(made, ann, bob)


async def _logs_of_the_only_client(ann: Person) -> None:
    if not ann.is_modern:
        await ann.client.set_logging_level("info")
    await ann.call("logs")
    with anyio.fail_after(SAFETY):
        while len(ann.logs) < 2:
            await ann.call("journal")
    assert ann.logs == ["ann info", "ann error"]


async def _who_watches_hears(made: Gateway, ann: Person, bob: Person, *, legacy: bool) -> None:
    """An update reaches who watches; one subscription serves both, and ends with the last of them."""
    async with watching(ann) as events:
        await bob.call("touch")
        assert await heard(ann, events) == PUBLIC
        assert not [each for each in bob.messages if isinstance(each, types.ResourceUpdatedNotification)]
        async with watching(bob) as others:
            await bob.call("touch")
            assert await heard(bob, others) == PUBLIC
        assert len([line for line in await seen(ann) if line.startswith("subscribe")]) == legacy
    for person in (ann, bob):
        assert f"unsubscribe {URI}" not in await seen(ann) or person.is_modern
        if not person.is_modern:
            request = types.UnsubscribeRequest(params=types.UnsubscribeRequestParams(uri=PUBLIC))
            await person.client.session.send_request(request, types.EmptyResult)
    with anyio.fail_after(SAFETY):
        while len(made.app.relay.watches) or (await seen(ann)).count(f"unsubscribe {URI}") != legacy:
            await anyio.lowlevel.checkpoint()


async def _a_changed_list_is_told_to_all(ann: Person, bob: Person) -> None:
    if ann.is_modern:
        async with ann.client.listen(tools_list_changed=True) as events:
            await bob.call("change")
            await events.__anext__()
    else:
        await bob.call("change")
        for person in (ann, bob):
            await person.heard(types.ToolListChangedNotification)
    assert "all__extra0" in [tool.name for tool in await every_tool(bob.client)]


async def _logs_of_one_of_two(made: Gateway, ann: Person, bob: Person) -> None:
    """Over stdio a message does not say whose call it belongs to, and it may quote that call."""
    ann.logs.clear()
    await ann.call("logs")
    await bob.call("journal")
    assert (ann.logs, bob.logs) == ([], [])
    # Another process of the child's knows nothing of what the last one was asked.
    await made.app.manager["all"].reconnect()
    await bob.call("logs")
    with anyio.fail_after(SAFETY):
        while len(bob.logs) < 3:
            await bob.call("journal")
    assert {said.partition(" ")[0] for said in bob.logs} == {"bob"}
    assert ann.logs == []


async def test_a_part_of_what_is_watched_is_told() -> None:
    """Specification 2025-11-25: an update may be of a sub-resource of the one that was subscribed to."""
    script, told, came = Script(), [], anyio.Event()

    async def note(message: Any) -> None:
        if isinstance(message, types.ResourceUpdatedNotification):
            told.append(str(message.params.uri))
            came.set()

    async with gateway(script) as made, Client(made.url, mode="legacy", message_handler=note) as client:
        uri = await uri_of(made, client)
        asked = Asked(script)
        await subscribe(client, uri)
        await asked.event.wait()
        (watch,) = made.app.relay.watches._all.values()
        await made.app.relay.updated("a", watch.connection, watch.uri + "x")
        await made.app.relay.updated("a", watch.connection, watch.uri + "/part")
        await client.send_ping()
        await came.wait()
    assert told == [f"{uri}/part"]


async def test_a_refused_subscription_is_not_kept() -> None:
    """The next client that asks for it is refused as well: it is not told that somebody watches already."""
    script = Script()
    settings = Settings(scopes={"a": "shared"})
    async with gateway(script, settings=settings) as made, Client(made.url, mode="legacy") as client:
        uri = await uri_of(made, client)
        for _ in range(2):
            script.inject(faults.rpc_error(-32002, "no such thing"), method="resources/subscribe")
            with pytest.raises(MCPError, match="no such thing"):
                await subscribe(client, uri)
        assert not len(made.app.relay.watches)
        await subscribe(client, uri)
        assert script.count("resources/subscribe") == 3


@pytest.mark.parametrize("era", ["legacy", "modern"])
async def test_who_watches_is_moved_when_the_connection_is_replaced(era: Any) -> None:
    script, told = Script(era=era), anyio.Event()

    async def note(message: Any) -> None:
        if isinstance(message, types.ResourceUpdatedNotification):
            told.set()

    async with gateway(script) as made, Client(made.url, mode="legacy", message_handler=note) as client:
        uri = await uri_of(made, client)
        await subscribe(client, uri)
        (watch,) = made.app.relay.watches._all.values()
        made.app.upstreams.forget("a")
        with anyio.fail_after(10):
            while not told.is_set():
                await client.send_ping()
        (another,) = made.app.relay.watches._all.values()
        assert another.connection is not watch.connection
        told = anyio.Event()
        with anyio.fail_after(10):
            while not told.is_set():
                update(script, uri)
                await client.send_ping()
