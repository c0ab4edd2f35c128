"""When the catalogue asks the server: `catalog` eager, lazy and off."""

from __future__ import annotations

from typing import Any, Literal

import anyio
import pytest

from mcpconn import CatalogChange, ConfigError, Connection, OutcomeUnknown
from mcpconn.catalog.listing import KINDS, LISTS
from mcpconn.runtime.journal import Finished
from mcpconn.testing import STDIO_SERVER, HttpServer, Script, ScriptedTool, default_tools
from mcpconn.testing.scripted import faults
from tests.support import SAFETY, UNFINISHED_STREAMS, Seen, played, quiet, served, text_of, until

pytestmark = [pytest.mark.anyio, UNFINISHED_STREAMS]

Era = Literal["legacy", "modern"]
ERAS: tuple[Era, ...] = ("legacy", "modern")


def listings(script: Script) -> dict[str, int]:
    """How often each kind was listed."""
    counts = {kind: script.count(rpc) for kind, (rpc, _) in LISTS.items()}
    return {kind: count for kind, count in counts.items() if count}


def tool(name: str, **annotations: Any) -> ScriptedTool:
    return ScriptedTool(name, lambda arguments: "ok", annotations)


# -- nobody needs it


@pytest.mark.parametrize("engine", ["direct", "httpx"])
@pytest.mark.parametrize("era", ERAS)
async def test_a_call_costs_one_request_alone(era: Era, engine: str) -> None:
    script = Script(era=era)
    async with served(script, warm=False, config={"engine": engine}) as (connection, _):
        assert text_of(await connection.call_tool("charge")) == "charged 1"
        await quiet(connection)
        handshake = {"server/discover", "initialize", "notifications/initialized", None}
        assert [each.rpc_method for each in script.requests if each.rpc_method not in handshake] == ["tools/call"]
        assert listings(script) == {}
        assert script.count("subscriptions/listen") == 0
        assert connection.catalog.stale
        assert not connection.catalog.tools


@pytest.mark.parametrize("era", ERAS)
async def test_a_child_is_called_without_a_listing(era: Era, tmp_path: Any) -> None:
    executed = tmp_path / "executed"
    args = [str(STDIO_SERVER), "--era", era, "--count-file", str(executed)]
    with anyio.fail_after(SAFETY):
        async with Connection({"command": "python", "args": args}) as connection:
            finished: list[str] = []
            connection.journal.subscribe(
                lambda notice: finished.append(notice.method) if isinstance(notice, Finished) else None
            )
            assert text_of(await connection.call_tool("charge")) == "charged 1"
            assert not connection.catalog.listed
    assert finished == ["tools/call"]
    assert executed.read_text().split() == ["charge"]


# -- somebody needs it


async def test_list_tools_makes_the_tools_known_at_no_further_cost() -> None:
    script = Script()
    async with served(script, warm=False) as (connection, _):
        await connection.list_tools()
        assert set(connection.catalog.tools) == set(script.tools)
        assert connection.catalog.listed == {"tools"}
        assert not connection.catalog.stale
        await quiet(connection)
        assert listings(script) == {"tools": 1}


async def test_pages_that_a_user_reads_make_a_list_known_with_the_last_one() -> None:
    script = Script(page_size=2)
    async with served(script, warm=False) as (connection, _):
        page = await connection.list_tools()
        while page.next_cursor is not None:
            assert not connection.catalog.tools
            # A second reader, who stops at the first page.
            page = await connection.list_tools(cursor=page.next_cursor)
        assert set(connection.catalog.tools) == set(script.tools)


@pytest.mark.parametrize("era", ERAS)
async def test_a_refresh_lists_each_kind_once(era: Era) -> None:
    script = Script(era=era)
    async with served(script, warm=False) as (connection, _):
        assert await connection.catalog.refresh()
        assert connection.catalog.listed == set(KINDS)
        await quiet(connection)
        assert listings(script) == dict.fromkeys(KINDS, 1)


async def test_a_refresh_connects_a_lazy_one() -> None:
    async with HttpServer(Script()) as server, Connection({"url": server.url, "lazy": True}) as connection:
        with anyio.fail_after(SAFETY):
            assert await connection.catalog.refresh(["tools"])
        assert connection.epoch == 1
        assert connection.catalog.tools


async def test_a_refresh_says_that_it_failed() -> None:
    async with HttpServer(Script()) as server:
        url = server.url
    async with Connection({"url": url, "lazy": True, "timeout": 0.2}) as connection:
        assert not await connection.catalog.refresh()
        assert connection.catalog.stale


async def test_a_subscriber_hears_each_thing_once() -> None:
    script = Script()
    changes: list[CatalogChange] = []
    async with served(script) as (connection, _):
        complete = anyio.Event()

        def listener(change: CatalogChange) -> None:
            changes.append(change)
            if len(changes) == len(KINDS):
                complete.set()

        connection.catalog.subscribe(listener)
        await complete.wait()
        assert listings(script) == dict.fromkeys(KINDS, 1)


async def test_eager_lists_at_each_connect() -> None:
    script = Script()
    async with served(script, config={"catalog": "eager"}) as (connection, _):
        await quiet(connection)
        assert listings(script) == dict.fromkeys(KINDS, 1)
        await connection.reconnect()
        await until_listed(connection)
        assert listings(script) == dict.fromkeys(KINDS, 2)


async def test_what_was_needed_before_is_listed_by_the_next_session() -> None:
    script = Script()
    async with served(script) as (connection, _):
        await connection.list_tools()
        await connection.reconnect()
        await until_listed(connection)
        assert connection.catalog.epoch == 2
        assert listings(script) == {"tools": 2}


async def until_listed(connection: Connection) -> None:
    while connection.catalog.stale:
        await anyio.lowlevel.checkpoint()


@pytest.mark.parametrize("era", ERAS)
async def test_off_lists_only_when_told_to(era: Era) -> None:
    script = Script(era=era)
    async with served(script, config={"catalog": "off"}) as (connection, _):
        connection.catalog.subscribe(lambda change: None)
        script.inject(faults.bad_gateway(ran=True))
        with pytest.raises(OutcomeUnknown):
            await connection.call_tool("add", {"a": 1, "b": 1})
        await quiet(connection)
        assert listings(script) == {}
        assert await connection.catalog.refresh(["tools"])
        # Now the annotations are known.
        script.inject(faults.bad_gateway(ran=True))
        assert text_of(await connection.call_tool("add", {"a": 1, "b": 1})) == "2"
        await connection.reconnect()
        await quiet(connection)
        assert listings(script) == {"tools": 1}
        assert script.count("subscriptions/listen") == 0


def test_an_unknown_setting_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="catalog must be one of 'eager', 'lazy' or 'off'"):
        Connection({"url": "http://x/mcp", "catalog": "sometimes"})


# -- a call whose outcome is unknown needs the annotations


@pytest.mark.parametrize("mode", ["auto", "pinned"])
@pytest.mark.parametrize("era", ERAS)
async def test_a_listed_read_only_call_is_retried(era: Era, mode: str) -> None:
    script = Script(era=era)
    pinned = {"mode": "legacy" if era == "legacy" else "2026-07-28"} if mode == "pinned" else {}
    async with served(script, warm=False, config=pinned) as (connection, _):
        script.inject(faults.bad_gateway(ran=True))
        assert text_of(await connection.call_tool("add", {"a": 1, "b": 1})) == "2"
        assert script.executions["add"] == 2
        assert listings(script) == {"tools": 1}


@pytest.mark.parametrize("era", ERAS)
async def test_an_unsafe_call_is_not_retried(era: Era) -> None:
    script = Script(era=era)
    async with served(script) as (connection, _):
        script.inject(faults.bad_gateway(ran=True), tool="charge")
        with pytest.raises(OutcomeUnknown):
            await connection.call_tool("charge")
        assert script.executions["charge"] == 1
        assert listings(script) == {"tools": 1}


@pytest.mark.parametrize("fault", [faults.server_error(), faults.rpc_error(-32601, "no"), faults.drop_before()])
async def test_without_a_listing_no_retry(fault: faults.Fault) -> None:
    script = Script()
    script.inject(fault, method="tools/list", times=None)
    async with served(script) as (connection, _):
        before = script.executions["add"]
        script.inject(faults.bad_gateway(ran=True), tool="add")
        with pytest.raises(OutcomeUnknown):
            await connection.call_tool("add", {"a": 1, "b": 1})
        assert script.executions["add"] == before + 1


@pytest.mark.parametrize(("earlier", "later"), [(False, True), (True, False)])
async def test_annotations_of_sessions_must_agree(earlier: bool, later: bool) -> None:
    script = Script(tools=[*default_tools(), tool("it", readOnlyHint=earlier)])
    async with served(script) as (connection, _):
        await connection.list_tools()
        script.tools["it"] = tool("it", readOnlyHint=later)
        lost = faults.Fault("runs, and forgets the session", lambda exchange: forgetting(script, exchange), after=True)
        script.inject(lost, tool="it")
        with pytest.raises(OutcomeUnknown):
            await connection.call_tool("it")
        await until(connection, lambda: connection.epoch == 2)
        assert script.executions["it"] == 1


async def test_a_retry_asks_the_new_session() -> None:
    script = Script()
    async with served(script) as (connection, _):
        await connection.list_tools()
        seen, before = Seen(connection), script.executions["add"]
        lost = faults.Fault("runs, and forgets the session", lambda exchange: forgetting(script, exchange), after=True)
        script.inject(lost, tool="add")
        assert text_of(await connection.call_tool("add", {"a": 1, "b": 1})) == "2"
        assert seen.events.count("established") == 1
        assert script.executions["add"] == before + 2
        # A probe may have asked the old session, too, and was refused.
        answered = [each.status == 200 for each in script.requests if each.rpc_method == "tools/list"]
        assert answered.count(True) == 2


def forgetting(script: Script, exchange: faults.Exchange) -> Any:
    reply = faults.drop_after().plan(exchange)
    script.forget_sessions()
    return reply


async def test_calls_that_fail_together_list_once() -> None:
    script = Script()
    async with played(script, warm=False) as (connection, _):
        script.inject(faults.bad_gateway(ran=True), times=30)

        async def call() -> None:
            with pytest.raises(OutcomeUnknown):
                await connection.call_tool("charge")

        async with anyio.create_task_group() as group:
            for _ in range(30):
                group.start_soon(call)
        assert script.executions["charge"] == 30
        # One was in progress already when the last of them asked.
        assert listings(script)["tools"] <= 2
