"""The catalogue: all pages, across sessions, with differences announced."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import anyio
import anyio.lowlevel
import mcp_types as types
import pytest
from trio.testing import MockClock

from mcpconn import CatalogChange, Connection, Manager, Policy, State
from mcpconn.catalog.catalog import Catalog
from mcpconn.catalog.schedule import CROWD_COURTESY
from mcpconn.testing import HttpServer, Script, ScriptedTool, ScriptTransport, clock, default_tools
from mcpconn.testing.scripted import faults
from tests.support import SAFETY, served

pytestmark = [
    pytest.mark.anyio,
    # httpx2 and the SDK's client leave async generators of a response body unfinished; trio warns of that.
    pytest.mark.filterwarnings("ignore:Async generator 'http(x|core)2:ResourceWarning"),
]


class Announced:
    """The differences a catalogue announces, and a way to wait for the next."""

    def __init__(self, catalog: Catalog) -> None:
        self.changes: list[CatalogChange] = []
        self._more = anyio.Event()
        catalog.subscribe(self._add)

    def _add(self, change: CatalogChange) -> None:
        self.changes.append(change)
        self._more.set()

    async def until(self, condition: Callable[[CatalogChange], bool]) -> CatalogChange:
        while True:
            for change in self.changes:
                if condition(change):
                    return change
            self._more = anyio.Event()
            await self._more.wait()


def echo(name: str, **annotations: Any) -> ScriptedTool:
    return ScriptedTool(name, lambda arguments: "ok", annotations)


async def test_a_listener_that_raises_keeps_nothing_from_being_listed_or_announced(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def broken(change: CatalogChange) -> None:
        raise ValueError("listener")

    async with HttpServer(Script()) as server:
        connection = Connection({"url": server.url})
        connection.catalog.subscribe(broken)
        announced = Announced(connection.catalog)
        with anyio.fail_after(SAFETY):
            async with connection:
                await announced.until(lambda change: change.kind == "tools")
                await connection.catalog.refresh()
                assert not connection.catalog.stale
    assert "listener.raised" in caplog.text


async def test_all_pages_are_listed_and_announced() -> None:
    script = Script(page_size=2)
    async with HttpServer(script) as server:
        connection = Connection({"url": server.url})
        announced = Announced(connection.catalog)
        with anyio.fail_after(SAFETY):
            async with connection:
                change = await announced.until(lambda change: change.kind == "tools")
                assert set(change.added) == set(script.tools) == set(connection.catalog.tools)
                assert (change.removed, change.changed, change.epoch) == ((), (), 1)


@pytest.mark.parametrize("era", ["legacy", "modern"])
@pytest.mark.parametrize("wrong", [{"input_schema": None}, {"name": 5}, {"annotations": {"readOnlyHint": "maybe"}}])
@pytest.mark.parametrize("page_size", [None, 2])
async def test_a_tool_of_wrong_form_hides_no_other(
    era: Any, wrong: dict[str, Any], page_size: int | None, caplog: Any
) -> None:
    class Misshapen(ScriptedTool):
        def listed(self) -> dict[str, Any]:
            shown = super().listed()
            names = {"input_schema": "inputSchema"}
            return {**shown, **{names.get(name, name): value for name, value in wrong.items()}}

    tools = {tool.name: tool for tool in default_tools()}
    tools["greet"] = Misshapen("greet", tools["add"].run)
    script = Script(era=era, tools=tuple(tools.values()), page_size=page_size)
    async with HttpServer(script) as server, Connection({"url": server.url}) as connection:
        with anyio.fail_after(SAFETY):
            await connection.catalog.refresh()
            assert set(connection.catalog.tools) == set(tools) - {"greet"}
            # The list says nothing about the session, which is the first one still.
            assert (connection.state, connection.epoch) == (State.READY, 1)
            assert (await connection.call_tool("charge", {"amount": 1})).is_error is False
    assert "catalog.entry_left_out" in caplog.text


async def test_entries_stay_readable_and_are_marked_stale() -> None:
    script = Script()
    with anyio.fail_after(SAFETY):
        async with HttpServer(script) as server:
            connection = Connection({"url": server.url})
            announced = Announced(connection.catalog)
            async with connection:
                await announced.until(lambda change: change.kind == "prompts")
                assert not connection.catalog.stale
                await server.stop()
                while connection.state is State.READY:
                    with pytest.raises(Exception, match=r"cannot be reached|cut|not ready"):
                        await connection.call_tool("charge", {"amount": 1}, timeout=0.5)
                assert connection.catalog.stale
                assert "add" in connection.catalog.tools


async def test_a_reconnect_announces_differences() -> None:
    script = Script()
    async with HttpServer(script) as server:
        connection = Connection({"url": server.url})
        announced = Announced(connection.catalog)
        with anyio.fail_after(SAFETY):
            async with connection:
                await announced.until(lambda change: change.kind == "tools")
                script.tools["new"] = echo("new")
                script.tools["add"] = ScriptedTool("add", script.tools["add"].run, description="other words")
                del script.tools["slow"]
                script.forget_sessions()
                await connection.call_tool("new", {})
                change = await announced.until(lambda change: change.epoch == 2 and change.kind == "tools")
                assert (change.added, change.removed, change.changed) == (("new",), ("slow",), ("add",))


@pytest.mark.parametrize("era", ["legacy", "modern"])
async def test_a_burst_of_notifications_causes_one_listing(era: Any) -> None:
    script = Script(era=era)
    listening = anyio.Event()

    def heard(received: Any) -> None:
        if received.http_method == "GET" or received.rpc_method == "subscriptions/listen":
            listening.set()

    script.on_request = heard
    async with HttpServer(script) as server:
        connection = Connection({"url": server.url})
        announced = Announced(connection.catalog)
        with anyio.fail_after(SAFETY):
            async with connection:
                await announced.until(lambda change: change.kind == "prompts")
                await listening.wait()
                while not script.streams.count:
                    await anyio.lowlevel.checkpoint()
                before = script.count("tools/list")
                script.tools["new"] = echo("new")
                for _ in range(5):
                    script.notify("notifications/tools/list_changed", {})
                change = await announced.until(lambda change: change.added == ("new",))
                assert (change.kind, change.epoch) == ("tools", 1)
                assert script.count("tools/list") == before + 1


async def test_only_advertised_lists_are_listed() -> None:
    from mcp.server import MCPServer

    server = MCPServer("plain")

    @server.tool()
    def nothing() -> str:
        return "x"

    with anyio.fail_after(SAFETY):
        connection = Connection(server)
        announced = Announced(connection.catalog)
        async with connection:
            await announced.until(lambda change: change.kind == "tools")
            assert list(connection.catalog.tools) == ["nothing"]


@pytest.mark.parametrize(
    ("annotations", "safe"),
    [({"readOnlyHint": True}, True), ({"idempotentHint": True}, True), ({"readOnlyHint": False}, False), ({}, False)],
)
async def test_a_tool_is_safe_to_repeat_if_its_annotations_say_so(annotations: dict[str, Any], safe: bool) -> None:
    tools = [*default_tools(), ScriptedTool("it", lambda arguments: "ok", annotations)]
    async with served(Script(tools=tools)) as (connection, _):
        await connection.catalog.refresh()
        assert await connection.catalog.safe("it") is safe
        assert await connection.catalog.safe("no such tool") is False


async def test_subscriptions_and_level_come_back() -> None:
    script = Script()
    told: list[str] = []
    again = anyio.Event()

    async def handler(message: Any) -> None:
        if isinstance(message, types.ResourceUpdatedNotification):
            told.append(str(message.params.uri))
            again.set()

    async with served(script, message_handler=handler) as (connection, _):
        uri = str(next(iter((await connection.list_resources()).resources)).uri)
        await connection.subscribe_resource(uri)
        await connection.set_logging_level("warning")
        script.forget_sessions()
        await connection.call_tool("add", {"a": 1, "b": 1})
        await again.wait()
        (session,) = script.sessions
        assert script.states[session].subscriptions == {uri}
        assert script.states[session].log_level == "warning"
        assert told == [uri]
        await connection.unsubscribe_resource(uri)
        script.forget_sessions()
        await connection.call_tool("add", {"a": 1, "b": 1})
        (session,) = script.sessions
        assert not script.states[session].subscriptions


def test_a_lost_event_stream_is_opened_again_and_what_was_missed_is_listed() -> None:
    import trio

    script = Script(era="modern")
    connection = Connection({"url": "http://scripted/mcp", "http_transport": ScriptTransport(script)}, policy=Policy())
    announced = Announced(connection.catalog)

    async def main() -> None:
        async with connection:
            await announced.until(lambda change: change.kind == "prompts")
            while not script.streams.count:  # noqa: ASYNC110 - virtual time, and the script has no event for it
                await anyio.sleep(0.01)
            script.tools["missed"] = echo("missed")
            script.streams.close()
            await announced.until(lambda change: change.added == ("missed",))
            while not script.streams.count:  # noqa: ASYNC110 - virtual time, and the script has no event for it
                await anyio.sleep(0.01)
            script.tools["heard"] = echo("heard")
            script.notify("notifications/tools/list_changed", {})
            await announced.until(lambda change: change.added == ("heard",))

    trio.run(main, clock=MockClock(autojump_threshold=0))


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_listing_lets_other_dials_go_first_briefly(backend: str) -> None:
    async def main() -> None:
        quick, stuck = Script(), Script()
        stuck.inject(faults.hang(), method="initialize", times=None)
        entries = {
            name: {"url": f"http://{name}.test/mcp", "http_transport": ScriptTransport(script), "mode": "legacy"}
            for name, script in (("quick", quick), ("stuck", stuck))
        }
        with anyio.fail_after(3600):
            async with Manager(entries) as manager:
                await manager["quick"].wait_ready()
                began = anyio.current_time()
                announced = Announced(manager["quick"].catalog)
                await announced.until(lambda change: change.kind == "tools")
                assert anyio.current_time() - began == pytest.approx(CROWD_COURTESY, abs=0.2)

    clock.run(main, backend=backend)
