"""Watched resources: an update reaches who asked for it on the connection it came on, and nobody else."""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import Any

import anyio
import mcp_types as types
import pytest
from mcp import Client

from mcpconn.gateway import Settings
from mcpconn.testing import Script
from tests.gateway.conftest import Gateway, gateway

pytestmark = pytest.mark.anyio

ERAS = pytest.mark.parametrize("era", ["legacy", "modern"], ids=["legacy server", "modern server"])
SOON = 0.3
"""Seconds after which an unused connection is closed here."""
SUBSCRIBED = ("resources/subscribe", "subscriptions/listen")


class News:
    """What a legacy client is told."""

    def __init__(self) -> None:
        self.uris: list[str] = []
        self.came = anyio.Event()

    async def __call__(self, message: Any) -> None:
        if isinstance(message, types.ResourceUpdatedNotification):
            self.uris.append(str(message.params.uri))
            self.came.set()


async def subscribe(client: Client, uri: str) -> None:
    request = types.SubscribeRequest(params=types.SubscribeRequestParams(uri=uri))
    await client.session.send_request(request, types.EmptyResult)


class Asked:
    """Set when the server was asked for a subscription."""

    def __init__(self, script: Script, times: int = 1) -> None:
        self.event = anyio.Event()
        left = times

        def note(seen: Any) -> None:
            nonlocal left
            left -= seen.rpc_method in SUBSCRIBED
            if left <= 0:
                self.event.set()

        script.on_request = note


async def uri_of(made: Gateway, client: Client) -> str:
    await made.app.manager["a"].catalog.refresh()
    return str((await client.list_resources()).resources[0].uri)


def update(script: Script, public: str) -> None:
    script.notify("notifications/resources/updated", {"uri": public.partition("+")[2]})


@ERAS
async def test_a_legacy_watcher_hears_of_changes(era):
    script, watching, other = Script(era=era), News(), News()
    async with gateway(script) as made, AsyncExitStack() as stack:
        one = await stack.enter_async_context(Client(made.url, mode="legacy", message_handler=watching))
        two = await stack.enter_async_context(Client(made.url, mode="legacy", message_handler=other))
        uri = await uri_of(made, one)
        await two.call_tool("a__add", {"a": 1, "b": 1})
        asked = Asked(script)
        await subscribe(one, uri)
        await asked.event.wait()
        while not watching.uris:
            update(script, uri)
            await one.call_tool("a__add", {"a": 1, "b": 1})
        await two.call_tool("a__add", {"a": 1, "b": 1})
        assert set(watching.uris) == {uri}
        assert other.uris == []


@ERAS
async def test_a_modern_watcher_hears_of_changes(era):
    script = Script(era=era)
    async with gateway(script) as made, Client(made.url) as client, Client(made.url) as two:
        uri = await uri_of(made, client)
        asked = Asked(script)
        async with client.listen(resource_subscriptions=[uri]) as events, two.listen(tools_list_changed=True):
            await asked.event.wait()

            async def updates() -> None:
                while True:
                    update(script, uri)
                    await anyio.sleep(0.05)

            async with anyio.create_task_group() as group:
                group.start_soon(updates)
                event: Any = await events.__anext__()
                assert event.uri == uri
                group.cancel_scope.cancel()


async def test_another_clients_connection_tells_a_listener_nothing():
    """Two principals' worth of state behind one name: the legacy client's session is its own."""
    script, news = Script(), News()
    async with gateway(script) as made, Client(made.url, mode="legacy", message_handler=news) as legacy:
        uri = await uri_of(made, legacy)
        asked = Asked(script)
        await subscribe(legacy, uri)
        await asked.event.wait()
        async with Client(made.url) as modern:
            asked = Asked(script)
            async with modern.listen(resource_subscriptions=[uri]) as events:
                await asked.event.wait()
                relay = made.app.relay
                watches = tuple(relay.watches._all.values())
                (own,) = [each for each in watches if any(t.startswith("listener") for t in each.watchers)]
                (others,) = [each for each in watches if each is not own]
                await relay.updated("a", others.connection, others.uri)
                await relay.updated("a", own.connection, own.uri)
                event: Any = await events.__anext__()
                assert event.uri == uri
                with anyio.move_on_after(0.2) as nothing_more:
                    await events.__anext__()
                assert nothing_more.cancelled_caught, "one update, that of its own connection"


async def test_streams_that_end_leave_nothing():
    script = Script(era="modern")
    async with gateway(script) as made, Client(made.url) as client:
        uri = await uri_of(made, client)
        for _ in range(3):
            asked = Asked(script)
            async with client.listen(resource_subscriptions=[uri]):
                await asked.event.wait()
        relay, endpoint = made.app.relay, made.app.endpoint("")
        while endpoint._listeners or relay._listeners or len(relay.watches):
            await client.call_tool("a__add", {"a": 1, "b": 1})


async def test_a_stuck_client_delays_no_other():
    """A client with an open stream that takes nothing: the others hear of a change at once."""
    script, news = Script(), anyio.Event()

    async def note(message: Any) -> None:
        if isinstance(message, types.ToolListChangedNotification):
            news.set()

    async with gateway(script) as made, AsyncExitStack() as stack:
        stuck = await stack.enter_async_context(Client(made.url, mode="legacy"))
        await stuck.list_tools()
        relay = made.app.relay
        (channel,) = relay.channels.values()

        class Stuck:
            async def send_notification(self, *args: Any, **options: Any) -> None:
                await anyio.sleep_forever()

        channel.session = Stuck()  # type: ignore[assignment]
        healthy = await stack.enter_async_context(Client(made.url, mode="legacy", message_handler=note))
        await healthy.list_tools()
        for _ in range(1000):
            await relay._tell_changed("tools", {""})
            if news.is_set():
                break
            await healthy.send_ping()
        assert news.is_set()
        assert len(channel.pending) <= 256


async def test_a_shared_session_tells_each_watcher():
    script, first, second = Script(), News(), News()
    settings = Settings(scopes={"a": "shared"})
    async with gateway(script, settings=settings) as made, AsyncExitStack() as stack:
        one = await stack.enter_async_context(Client(made.url, mode="legacy", message_handler=first))
        two = await stack.enter_async_context(Client(made.url, mode="legacy", message_handler=second))
        uri = await uri_of(made, one)
        await two.list_tools()
        asked = Asked(script)
        await subscribe(one, uri)
        await asked.event.wait()
        while not first.uris:
            update(script, uri)
            await one.call_tool("a__add", {"a": 1, "b": 1})
        await two.call_tool("a__add", {"a": 1, "b": 1})
        assert second.uris == []
        assert script.count("resources/subscribe") == 1


@ERAS
async def test_a_client_that_only_watches_keeps_its_connection(era):
    script, news = Script(era=era), News()
    async with gateway(script) as made, Client(made.url, mode="legacy", message_handler=news) as client:
        made.app.upstreams.idle = SOON
        uri = await uri_of(made, client)
        asked = Asked(script)
        await subscribe(client, uri)
        await asked.event.wait()
        (name,) = [each for each in made.app.manager if each.startswith("a#")]
        connection = made.app.manager[name]
        await anyio.sleep(5 * SOON)
        assert name in made.app.manager
        assert made.app.manager[name] is connection
