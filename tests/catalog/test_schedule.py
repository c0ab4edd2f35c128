"""When the catalogue lists again: each list by itself, in bounded time, and never in a storm. In virtual time."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Literal

import anyio
import pytest

from mcpconn import CatalogChange, Connection, Policy, State
from mcpconn.catalog.listing import KINDS, LISTS
from mcpconn.testing import Script, ScriptedTool, ScriptTransport, clock
from mcpconn.testing.scripted import faults
from tests.support import text_of

Era = Literal["legacy", "modern"]
Act = Callable[[Connection, ScriptTransport], Awaitable[None]]


@pytest.fixture(params=["asyncio", "trio"])
def backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=["legacy", "modern"])
def era(request: pytest.FixtureRequest) -> Era:
    return request.param  # type: ignore[no-any-return]


def play(backend: str, script: Script, act: Act, *, policy: Policy | None = None, **config: Any) -> None:
    async def main() -> None:
        transport = ScriptTransport(script)
        entry = {"url": "http://scripted/mcp", "http_transport": transport, "catalog": "eager", **config}
        async with Connection(entry, name="srv", policy=policy) as connection:
            await act(connection, transport)

    clock.run(main, backend=backend)


def listed(script: Script) -> dict[str, int]:
    return {kind: script.count(rpc) for kind, (rpc, _) in LISTS.items()}


def tool(name: str) -> ScriptedTool:
    return ScriptedTool(name, lambda arguments: "ok")


def announcing(script: Script, *, delay: int = 0) -> None:
    """Have the server announce a change whenever its tools are listed."""

    def heard(received: Any) -> None:
        if received.rpc_method == "tools/list":
            script.notify("notifications/tools/list_changed", {})

    script.on_request = heard


# -- each list stands alone


@pytest.mark.parametrize("kind", KINDS)
def test_an_unknown_list_is_empty(backend: str, era: Era, kind: str) -> None:
    script = Script(era=era)
    script.inject(faults.rpc_error(-32601, "Method not found"), method=LISTS[kind][0], times=None)

    async def act(connection: Connection, transport: ScriptTransport) -> None:
        await anyio.sleep(60)
        catalog = connection.catalog
        assert (catalog.epoch, catalog.stale, catalog.listed) == (1, False, set(KINDS))
        assert {each for each in KINDS if getattr(catalog, each)} == set(KINDS) - {kind}
        assert listed(script) == dict.fromkeys(KINDS, 1)

    play(backend, script, act)


APPLICATION = faults.rpc_error(-32603, "the database is away", ran=False)


@pytest.mark.parametrize("kind", KINDS)
def test_a_list_that_fails_leaves_the_others(backend: str, kind: str) -> None:
    script = Script()
    script.inject(APPLICATION, method=LISTS[kind][0], times=None)

    async def act(connection: Connection, transport: ScriptTransport) -> None:
        await anyio.sleep(60)
        catalog = connection.catalog
        assert (catalog.epoch, catalog.stale, catalog.listed) == (1, True, set(KINDS) - {kind})
        # A list that is known is not listed again because another is not. (Probes list tools, too.)
        assert not await catalog.ensure()
        others = set(KINDS) - {kind, "tools"}
        assert {each: count for each, count in listed(script).items() if each in others} == dict.fromkeys(others, 1)
        script.clear()
        assert await catalog.ensure()
        assert getattr(catalog, kind)

    play(backend, script, act)


def test_a_list_that_was_known_survives_a_listing_that_fails(backend: str) -> None:
    script = Script()

    async def act(connection: Connection, transport: ScriptTransport) -> None:
        await anyio.sleep(5)
        known = dict(connection.catalog.tools)
        for fault in (APPLICATION, faults.rpc_error(-32601, "Method not found"), faults.bad_gateway()):
            script.inject(fault, method="tools/list", times=2)
            assert not await connection.catalog.refresh(["tools"])
            assert dict(connection.catalog.tools) == known
            script.clear()

    play(backend, script, act)


@pytest.mark.parametrize("fault", [faults.bad_gateway(), faults.drop_before(), faults.hang()], ids=lambda f: f.name)
def test_a_list_that_cannot_be_had_for_now_is_listed_later(backend: str, fault: faults.Fault) -> None:
    script = Script()
    script.inject(fault, method="prompts/list", times=4)

    async def act(connection: Connection, transport: ScriptTransport) -> None:
        await anyio.sleep(600)
        assert connection.catalog.prompts
        assert not connection.catalog.stale
        assert listed(script)["resources"] <= connection.epoch

    play(backend, script, act)


def test_a_list_that_can_never_be_had_costs_two_requests_a_minute(backend: str) -> None:
    script = Script()
    script.inject(faults.bad_gateway(), method="prompts/list", times=None)

    async def act(connection: Connection, transport: ScriptTransport) -> None:
        await anyio.sleep(600)
        before = listed(script)["prompts"]
        await anyio.sleep(3600)
        # Each failed call is retried once, since listing is safe.
        assert listed(script)["prompts"] - before <= 2 * 60 + 4
        assert (connection.state, connection.epoch) == (State.READY, 1)

    play(backend, script, act)


def test_after_a_reconnect_the_pages_of_two_sessions_are_not_mixed(backend: str) -> None:
    script = Script(page_size=1)

    async def act(connection: Connection, transport: ScriptTransport) -> None:
        await anyio.sleep(5)
        pages = listed(script)["tools"]
        script.inject(faults.slow(5), method="tools/list", times=1)
        async with anyio.create_task_group() as group:
            group.start_soon(connection.catalog.refresh, ["tools"])
            await anyio.sleep(1)
            await connection.reconnect()
        await anyio.sleep(20)
        assert connection.catalog.epoch == 2
        assert set(connection.catalog.tools) == set(script.tools)
        # The interrupted listing took one page, the new session's all of them.
        assert listed(script)["tools"] == 2 * pages + 1

    play(backend, script, act)


@pytest.mark.parametrize("catalog", ["lazy", "eager"])
def test_a_caller_who_leaves_takes_no_listing_from_the_others(backend: str, catalog: str) -> None:
    script = Script()

    async def act(connection: Connection, transport: ScriptTransport) -> None:
        results: list[bool] = []

        async def refresh() -> None:
            results.append(await connection.catalog.refresh())

        await anyio.sleep(5)
        before = script.count("prompts/list")
        script.inject(faults.slow(5), method="resources/list", times=2)
        async with anyio.create_task_group() as group, anyio.create_task_group() as leaving:
            leaving.start_soon(refresh)
            await anyio.sleep(1)
            group.start_soon(refresh)
            await anyio.sleep(1)
            leaving.cancel_scope.cancel()
        assert results == [True]
        assert connection.catalog.listed == set(KINDS)
        assert script.count("prompts/list") == before + 1

    play(backend, script, act, catalog=catalog)


def test_what_a_caller_who_left_has_not_listed_is_listed_when_needed(backend: str) -> None:
    script = Script()

    async def act(connection: Connection, transport: ScriptTransport) -> None:
        # The session's own listing, of what is needed by then, is over: there is nothing.
        await anyio.sleep(5)
        script.inject(faults.slow(5), method="resources/list")
        with anyio.move_on_after(1):
            await connection.catalog.refresh()
        await anyio.sleep(60)
        assert connection.catalog.listed == {"tools"}
        assert connection.catalog.stale
        assert await connection.catalog.ensure()
        assert listed(script) == {**dict.fromkeys(KINDS, 1), "resources": 2}

    play(backend, script, act, catalog="lazy")


# -- changes


def test_many_announcements_make_one_listing(backend: str, era: Era) -> None:
    script = Script(era=era)

    async def act(connection: Connection, transport: ScriptTransport) -> None:
        await anyio.sleep(60)
        script.tools["new"] = tool("new")
        for _ in range(20):
            script.notify("notifications/tools/list_changed", {})
        await anyio.sleep(1)
        assert "new" in connection.catalog.tools
        assert listed(script) == {**dict.fromkeys(KINDS, 1), "tools": 2}

    play(backend, script, act)


def test_a_change_while_listing_comes_next(backend: str, era: Era) -> None:
    script = Script(era=era)

    async def act(connection: Connection, transport: ScriptTransport) -> None:
        await anyio.sleep(60)
        script.inject(faults.slow(5), method="tools/list", times=1)
        async with anyio.create_task_group() as group:
            group.start_soon(connection.catalog.refresh, ["tools"])
            await anyio.sleep(2)
            script.tools["new"] = tool("new")
            script.notify("notifications/tools/list_changed", {})
        assert connection.catalog.stale
        await anyio.sleep(10)
        assert "new" in connection.catalog.tools
        assert not connection.catalog.stale

    play(backend, script, act)


def test_announced_listings_make_no_storm(backend: str, era: Era) -> None:
    script = Script(era=era)
    announcing(script)

    async def act(connection: Connection, transport: ScriptTransport) -> None:
        await anyio.sleep(100)
        assert listed(script)["tools"] <= 12
        await anyio.sleep(3600)
        assert listed(script)["tools"] <= 12 + 62
        assert text_of(await connection.call_tool("charge")) == "charged 1"

    play(backend, script, act)


def test_changing_tools_are_listed_every_5_s(backend: str) -> None:
    script = Script()
    announcing(script)
    original = script.service.catalog._answer

    def answer(method: str, params: Any) -> Any:
        if method == "tools/list":
            name = f"tool{script.count('tools/list')}"
            script.tools[name] = tool(name)
        return original(method, params)

    script.service.catalog._answer = answer  # type: ignore[method-assign]

    async def act(connection: Connection, transport: ScriptTransport) -> None:
        await anyio.sleep(60)
        assert 10 <= listed(script)["tools"] <= 20
        assert len(connection.catalog.tools) > 10

    play(backend, script, act)


def test_after_a_quiet_time_a_change_is_listed_at_once_again(backend: str) -> None:
    script = Script()
    announcing(script)

    async def act(connection: Connection, transport: ScriptTransport) -> None:
        await anyio.sleep(300)
        script.on_request = None
        await anyio.sleep(1200)
        script.tools["new"] = tool("new")
        script.notify("notifications/tools/list_changed", {})
        await anyio.sleep(1)
        assert "new" in connection.catalog.tools

    play(backend, script, act)


def test_listings_keep_no_idle_session_open(backend: str) -> None:
    script = Script()
    announcing(script)

    async def act(connection: Connection, transport: ScriptTransport) -> None:
        await anyio.sleep(400)
        assert connection.state is State.IDLE
        count = listed(script)["tools"]
        await anyio.sleep(3600)
        assert listed(script)["tools"] == count
        # The next call opens another session, which lists again.
        assert text_of(await connection.call_tool("charge")) == "charged 1"
        await anyio.sleep(5)
        assert listed(script)["tools"] > count

    play(backend, script, act, policy=Policy(idle_timeout=300))


def test_a_listing_counts_as_a_sign_of_life_for_keepalive(backend: str) -> None:
    script = Script(get_stream="405")

    async def act(connection: Connection, transport: ScriptTransport) -> None:
        for _ in range(10):
            await anyio.sleep(8)
            await connection.catalog.refresh(["tools"])
        assert script.count("ping") == 0

    play(backend, script, act, policy=Policy(keepalive=10))


def test_changes_of_unneeded_lists_cost_no_request(backend: str) -> None:
    script = Script()

    async def act(connection: Connection, transport: ScriptTransport) -> None:
        await anyio.sleep(5)
        script.notify("notifications/tools/list_changed", {})
        script.notify("notifications/prompts/list_changed", {})
        await anyio.sleep(60)
        assert listed(script) == dict.fromkeys(KINDS, 0)
        await connection.list_tools()
        script.notify("notifications/prompts/list_changed", {})
        await anyio.sleep(60)
        assert listed(script) == {**dict.fromkeys(KINDS, 0), "tools": 1}

    play(backend, script, act, catalog="lazy")


def test_subscribers_hear_of_a_change(backend: str, era: Era) -> None:
    script = Script(era=era)
    heard: list[CatalogChange] = []

    async def act(connection: Connection, transport: ScriptTransport) -> None:
        connection.catalog.subscribe(heard.append)
        await anyio.sleep(60)
        assert sorted(change.kind for change in heard) == sorted(KINDS)
        heard.clear()
        del script.tools["slow"]
        script.notify("notifications/tools/list_changed", {})
        await anyio.sleep(1)
        assert [(change.kind, change.removed) for change in heard] == [("tools", ("slow",))]

    play(backend, script, act, catalog="lazy")


# -- a version that was not negotiated


def test_a_pinned_version_asks_once(backend: str) -> None:
    script = Script(era="modern")

    async def act(connection: Connection, transport: ScriptTransport) -> None:
        assert connection.catalog.stale
        await anyio.sleep(5)
        assert connection.catalog.tools
        assert not connection.catalog.stale
        assert script.count("server/discover") <= 2
        assert script.count("subscriptions/listen") == 1

    play(backend, script, act, mode="2026-07-28")


def test_a_pinned_version_whose_server_does_not_say_what_there_is_lists_all(backend: str) -> None:
    script = Script(era="modern")
    script.inject(faults.rpc_error(-32601, "Method not found", http_status=404), method="server/discover", times=None)
    script.inject(faults.rpc_error(-32601, "Method not found", http_status=404), method="prompts/list", times=None)

    async def act(connection: Connection, transport: ScriptTransport) -> None:
        await anyio.sleep(5)
        assert connection.catalog.tools
        assert connection.catalog.listed == set(KINDS)
        assert not connection.catalog.prompts
        script.inject(faults.bad_gateway(ran=True), tool="add")
        assert text_of(await connection.call_tool("add", {"a": 1, "b": 2})) == "3"

    play(backend, script, act, mode="2026-07-28")
