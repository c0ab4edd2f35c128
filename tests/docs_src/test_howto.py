"""The examples of the how-to pages, run on scripted servers."""

from __future__ import annotations

import json
import logging
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import mcp_types as types
import pytest
from mcp.server.mcpserver import Context, MCPServer
from mcp.shared.auth import OAuthToken

import mcpconn.diagram
from mcpconn import Connection, Manager, State, diagram
from mcpconn.auth import Mark, TokenRecord, TokenStore
from mcpconn.testing import STDIO_SERVER, HttpServer, Script, ScriptTransport
from mcpconn.testing.scripted import faults
from tests.asgi.support import ask
from tests.docs_src.conftest import HOWTO, SAFETY, follow, load

STDIO = {"command": sys.executable, "args": [str(STDIO_SERVER)]}


def scripted(script: Script) -> dict[str, Any]:
    """A server inside the process."""
    return {"url": "http://scripted/mcp", "http_transport": ScriptTransport(script)}


def test_a_sync_host_registers_every_tool() -> None:
    assert json.loads(load(HOWTO / "sync_host.py").main({"shop": STDIO})) == {"result": "3"}


@pytest.mark.anyio
async def test_each_user_is_connected_until_logout() -> None:
    page = load(HOWTO / "per_user.py")
    alice, bob = Script(), Script()
    async with Manager({}) as manager:
        for user, script in (("u1", alice), ("u2", bob), ("u1", alice)):
            await page.inbox(manager, user, scripted(script))
        assert (len(alice.calls), len(bob.calls)) == (2, 1)
        await page.log_out(manager, "u1")
        await page.log_out(manager, "nobody")
        assert list(manager) == ["u2"]


@pytest.mark.anyio
async def test_a_toolbox_follows_the_catalogue() -> None:
    script = Script()
    assert await load(HOWTO / "catalogue.py").main(scripted(script)) == set(script.tools)


@pytest.mark.anyio
async def test_a_callable_is_asked_again_when_its_token_is_refused() -> None:
    script, given = Script(), iter(["first", "second"])

    async def fetch_token() -> str:
        return next(given)

    credentials = load(HOWTO / "credentials.py")
    config = credentials.with_a_callable("http://scripted/mcp", fetch_token)
    async with Manager({"srv": {"url": config.url, "auth": config.auth, **scripted(script)}}) as manager:
        await manager["srv"].wait_ready()
        script.inject(faults.unauthorized())
        assert not (await manager.call_tool("srv", "charge", {"amount": 1})).is_error
    assert script.executions["charge"] == 1
    assert next(given, None) is None, "the callable was not asked again"


@pytest.mark.anyio
async def test_credentials_of_ones_own_are_renewed_until_a_person_is_needed() -> None:
    credentials = load(HOWTO / "credentials.py")
    signed = credentials.Signed("key")
    script = Script()
    async with Manager({"srv": {**scripted(script), "auth": signed}}) as manager:
        await manager["srv"].wait_ready()
        script.inject(faults.unauthorized())
        assert not (await manager.call_tool("srv", "charge", {"amount": 1})).is_error
        assert (signed._generation, script.executions["charge"]) == (1, 1)
        signed._generation = 3
        script.inject(faults.unauthorized(), method=None, times=None)
        with pytest.raises(mcpconn.CallFailed, match="the key is used up: get another from the console"):
            await manager.call_tool("srv", "charge", {"amount": 1})
        assert manager["srv"].state is State.FAILED
        script.clear()
        await credentials.after_a_login(manager, "srv", "another")
        assert manager["srv"].state is State.READY


def test_oauth_takes_the_sdks_provider() -> None:
    config = load(HOWTO / "credentials.py").with_oauth(
        "https://example.com/mcp", "https://login.example.com", "id", "a-long-secret"
    )
    assert "a-long-secret" not in repr(config)


@pytest.mark.anyio
async def test_a_database_is_a_token_store(tmp_path: Path) -> None:
    kind: Any = load(HOWTO / "token_store.py").SqliteTokens
    stores = [kind(str(tmp_path / "tokens.db"), "shop") for _ in range(2)]
    assert isinstance(kind("", ""), TokenStore)
    first = TokenRecord(generation=1, issuer="https://login.example.com")
    assert await stores[1].load() == TokenRecord()
    # Of two who write the same generation, one does; the other reads what that one has written.
    assert [await store.replace(first) for store in stores] == [True, False]
    second = first.successor(mark=Mark("host, process 1", 1.7e9))
    assert [await store.replace(second) for store in stores] == [True, False]
    assert await stores[1].load() == second
    await stores[1].set_tokens(OAuthToken(access_token="a-token"))
    tokens = await stores[0].get_tokens()
    assert tokens is not None
    assert (tokens.access_token, (await stores[0].load()).generation) == ("a-token", 3)


@pytest.mark.anyio
async def test_a_servers_odd_phrase_ends_a_session() -> None:
    script = Script()
    forgotten = faults.rpc_error(-32602, "Error: No such conversation (id 7)", ran=False)
    script.inject(forgotten, method=None, times=2)
    handshakes = script.count("initialize")
    odd = load(HOWTO / "odd_error.py")
    transport = scripted(script)
    # Armed once a session is there, for the call and for the probe that follows.
    script.clear()

    def arm(received: Any) -> None:
        if received.rpc_method == "notifications/initialized" and script.count("initialize") == 1:
            script.inject(forgotten, method="tools/call")
            script.inject(forgotten, method="ping")
            script.inject(forgotten, method="tools/list")

    script.on_request = arm
    assert await odd.main(transport) is True
    assert script.executions["charge"] == 1
    assert script.count("initialize") == handshakes + 2


@pytest.mark.parametrize("name", ["classify.py", "try_rule.py"])
def test_what_an_example_claims_is_so(name: str) -> None:
    runpy.run_path(str(HOWTO / name))


def test_a_rule_of_another_shape_matches_it() -> None:
    moving = load(HOWTO / "odd_shape.py").MOVING
    assert mcpconn.classify(mcpconn.Evidence(http_status=418), [moving]).kind is mcpconn.FailureKind.SESSION_EXPIRED
    assert mcpconn.classify(mcpconn.Evidence(http_status=429), [moving]).kind is mcpconn.FailureKind.RATE_LIMITED


MY_HANDLER = load(HOWTO / "test_my_handler.py")


@pytest.mark.anyio
@pytest.mark.parametrize("name", [name for name in vars(MY_HANDLER) if name.startswith("test_")])
async def test_the_example_of_tests_passes(name: str) -> None:
    await getattr(MY_HANDLER, name)(Script())


@pytest.mark.anyio
@pytest.mark.parametrize("name", ["client_before.py", "client_after.py"])
async def test_client_code_works_on_a_connection(name: str) -> None:
    server: MCPServer[None] = MCPServer("sums")

    @server.tool()
    def add(a: int, b: int) -> int:
        return a + b

    assert await load(HOWTO / name).main(server) == ["add"]


@pytest.mark.anyio
async def test_a_function_makes_each_transport() -> None:
    async with HttpServer(Script()) as server:
        assert await load(HOWTO / "client_transports.py").main(server.url) == 2


@pytest.mark.anyio
async def test_errors_are_told_apart() -> None:
    script = Script()
    charge = load(HOWTO / "client_errors.py").charge
    async with mcpconn.Connection(scripted(script)) as connection:
        assert await charge(connection, 1) == "charged"
        script.inject(faults.drop_after(), tool="charge")
        assert (await charge(connection, 1)).startswith("perhaps charged")
        script.inject(faults.forbidden(), tool="charge")
        assert await charge(connection, 1) == "not_run: auth"
        script.inject(faults.rpc_error(-32602, "Invalid amount"), tool="charge")
        assert await charge(connection, 1) == "the server's own error -32602"


def test_it_runs_on_trio() -> None:
    script = Script()
    assert load(HOWTO / "on_trio.py").run(scripted(script)) == 10
    assert script.executions["add"] == 10


def questioning() -> MCPServer[None]:
    """A server whose tool asks for everything that a server can ask for."""
    server: MCPServer[None] = MCPServer("shop")

    @server.tool()
    async def order(item: str, context: Context[Any, Any]) -> str:
        await context.report_progress(1, 2, "packing")
        session = context.session
        message = types.SamplingMessage(role="user", content=types.TextContent(type="text", text=item))
        sampled = await session.create_message([message], max_tokens=9)
        wanted = await session.elicit_form("Is that all?", {"type": "object", "properties": {}})
        roots = (await session.list_roots()).roots
        await session.send_log_message(level="info", data="sold")
        assert isinstance(sampled.content, types.TextContent)
        return f"{sampled.content.text}; {wanted.action}; {len(roots)}"

    return server


@pytest.mark.anyio
async def test_callbacks_answer_what_a_server_asks(capsys: pytest.CaptureFixture[str]) -> None:
    page = load(HOWTO / "callbacks.py")
    await page.ask({"shop": {"server": questioning(), "mode": "legacy"}})
    assert set(capsys.readouterr().out.splitlines()) == {
        "1 of 2",
        "shop: info: sold",
        "{'result': '1 message for shop; decline; 1'}",
    }


@pytest.mark.anyio
async def test_listeners_hear_of_watched_resources() -> None:
    script, told, came = Script(), [], anyio.Event()

    def tell(uri: str) -> None:
        told.append(uri)
        came.set()

    uri = "memo://rules"
    async with Connection(scripted(script)) as connection:
        stop = await load(HOWTO / "notifications.py").watch(connection, uri, tell)
        with anyio.fail_after(SAFETY):
            while not came.is_set():
                script.notify("notifications/resources/updated", {"uri": uri})
                await anyio.lowlevel.checkpoint()
        stop()
    assert set(told) == {uri}


def test_a_server_may_have_own_callbacks() -> None:
    manager = load(HOWTO / "callbacks_each.py").two(print)
    assert list(manager) == ["shop", "news"]


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_reconnecting_by_hand_charges_twice() -> None:
    script = Script()
    script.inject(faults.cut_stream())
    async with HttpServer(script) as server:
        shop = load(HOWTO / "reconnect_before.py").Shop(server.url)
        try:
            await shop.call("charge", {})
        finally:
            await shop._stack.aclose()
    assert sum(script.executions.values()) == 2


@pytest.mark.anyio
async def test_a_connection_instead_charges_once() -> None:
    script = Script()
    script.inject(faults.cut_stream())
    async with HttpServer(script) as server:
        shop = load(HOWTO / "reconnect_after.py").Shop(server.url)
        async with shop.connection:
            with pytest.raises(mcpconn.OutcomeUnknown):
                await shop.call("charge", {})
    assert sum(script.executions.values()) == 1


def test_scripted_servers_test_any_client() -> None:
    load(HOWTO / "test_any_client.py").test_a_cut_stream_is_an_error_although_the_tool_ran()


def test_a_fleet_is_drawn(tmp_path: Path) -> None:
    draw = load(HOWTO / "fleet_picture.py").draw
    manager = Manager({name: {"url": f"http://{name}.test/mcp"} for name in "ab"})
    draw(manager, tmp_path / "fleet.svg")
    assert (tmp_path / "fleet.svg").read_text(encoding="utf-8") == diagram.svg("2 idle")


def test_a_picture_is_compared_as_shown(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(HOWTO)
    follow(HOWTO / "compare.console")
    check = load(HOWTO / "own_picture.py").check_our_picture
    with pytest.raises(AssertionError, match="failed --retry--> connecting"):
        check(HOWTO / "our-connections.md")
    page = tmp_path / "page.md"
    page.write_text((HOWTO / "markers.md").read_text(encoding="utf-8"), encoding="utf-8")
    mcpconn.diagram.write(page)
    check(page)


@pytest.mark.anyio
async def test_states_can_be_watched_in_three_ways() -> None:
    watch, script, pager = load(HOWTO / "watch_states.py"), Script(), list[str]()
    async with Manager({"srv": scripted(script), "none": {"command": "mcpconn-no-such-program"}}) as manager:
        watch.tell(manager, pager)
        await manager.wait_ready()
        async with anyio.create_task_group() as group:

            async def wait() -> None:
                assert (await watch.first_recovery(manager)).startswith("srv is back after ")

            group.start_soon(wait)
            await anyio.lowlevel.checkpoint()
            script.forget_sessions()
            await manager.call_tool("srv", "add", {"a": 1, "b": 2})
        assert json.loads(watch.plain_data(manager))["srv"]["epoch"] == 2
    assert len(pager) == 1
    assert "none: connecting --give_up--> failed" in pager[0]


# -- logs and metrics: what they configure belongs to the whole process, so each gets one

LOGS = """
import anyio, mcpconn, {name}
from mcpconn.testing import Script, ScriptTransport
{name}.configure()

async def main():
    script = Script()
    server = {{"url": "http://scripted/mcp", "http_transport": ScriptTransport(script)}}
    async with mcpconn.Manager({{"shop": server}}) as manager:
        await manager["shop"].wait_ready()
        script.forget_sessions()
        await manager.call_tool("shop", "add", {{"a": 1, "b": 2}})
        {then}

anyio.run(main)
"""


def run_alone(name: str, then: str = "pass") -> subprocess.CompletedProcess[str]:
    """Run a little program with an example's `configure`."""
    program = LOGS.format(name=name, then=then)
    run = subprocess.run([sys.executable, "-c", program], cwd=HOWTO, capture_output=True, text=True, timeout=SAFETY)
    assert run.returncode == 0, run.stderr
    return run


def test_logs_are_plain_lines_with_the_standard_library_alone() -> None:
    lines = [line for line in run_alone("logs_std").stderr.splitlines() if " connection." in line]
    assert [line.split()[2:4] for line in lines] == [
        ["INFO", "connection.ready"],
        ["WARNING", "connection.reconnecting"],
        ["INFO", "connection.recovered"],
    ]


def test_logs_have_their_fields_in_structlog() -> None:
    lines = [json.loads(line) for line in run_alone("logs_structlog").stderr.splitlines()]
    (recovered,) = (line for line in lines if line["event"] == "connection.recovered")
    assert recovered["connection"] == "shop"
    assert recovered["level"] == "info"
    assert (recovered["from"], recovered["to"], recovered["epoch"]) == ("reconnecting", "ready", 2)
    assert not any(line.get("logger") == "transitions" for line in lines)


def test_logs_have_their_fields_in_a_formatter_of_ones_own() -> None:
    formatter = load(HOWTO / "logs_fields.py").JsonLines()
    record = logging.LogRecord("mcpconn", logging.WARNING, "", 0, "rendered", (), None)
    assert json.loads(formatter.format(record)) == {"level": "warning", "logger": "mcpconn", "event": "rendered"}
    record.mcpconn = {"event": "connection.ready", "epoch": 1}
    assert json.loads(formatter.format(record))["epoch"] == 1


def test_the_scrape_has_what_the_page_shows() -> None:
    scraped = run_alone("metrics", "print(metrics.scrape())").stdout.splitlines()
    for line in (HOWTO / "metrics.txt").read_text(encoding="utf-8").splitlines():
        assert line in scraped


@pytest.mark.anyio
async def test_a_host_shows_connections_on_a_page(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PAGE_READ_KEY", "a-key-for-reading")
    app = load(HOWTO / "status_page.py").application({"shop": scripted(Script())})
    headers = {"authorization": "Bearer a-key-for-reading"}
    async with app.router.lifespan_context(app):
        answer = await ask(app, "/connections/status", headers=headers)
    assert answer.json()["connections"]["shop"]["name"] == "shop"
    assert (await ask(app, "/connections/status")).status == 401
