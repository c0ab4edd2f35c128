"""What the status page's data say of a manager's connections."""

from __future__ import annotations

import sys
from typing import Any

import anyio
import pytest
from starlette.applications import Starlette
from starlette.routing import Mount

from mcpconn import ConnectionClosed, Manager, Policy, State
from mcpconn.asgi import feed, status_app
from mcpconn.runtime.clock import Clock
from mcpconn.testing import Script, ScriptTransport
from tests.asgi.support import HOST, ask, events
from tests.support import text_of

pytestmark = pytest.mark.anyio

SECRET = "s3cr3t-of-the-shop-0123456789"
OWN = {"origin": f"http://{HOST}", "x-mcpconn-action": "1"}
NOISY = "import sys; print('it does not work', file=sys.stderr); sys.exit(3)"


def entry(script: Script | None = None) -> dict[str, object]:
    transport = ScriptTransport(script or Script())
    return {"url": "http://shop.test/mcp", "http_transport": transport, "headers": {"Authorization": SECRET}}


async def test_every_connections_status_is_json():
    async with Manager({"shop": entry(), "café/1": entry()}) as servers:
        await servers.wait_ready()
        answer = (await ask(status_app(servers), "/status")).json()
        assert answer["summary"]["ready"] == 2
        assert answer["connections"]["café/1"]["state"] == "ready"
        one = (await ask(status_app(servers), "/connections/café/1")).json()
        assert (one["name"], one["stderr"], one["disabled"]) == ("café/1", [], False)


async def test_an_unknown_connection_is_not_found():
    app = status_app(Manager({}))
    assert (await ask(app, "/connections/nobody")).status == 404
    assert (await ask(app, "/connections/nobody/reconnect", method="POST", headers=OWN)).status == 404


async def test_an_unknown_action_is_not_found():
    async with Manager({"shop": entry()}) as servers:
        answer = await ask(status_app(servers), "/connections/shop/explode", method="POST", headers=OWN)
        assert answer.status == 404
        assert "reconnect, disable, enable" in answer.text


async def test_a_reader_hears_of_every_transition():
    async with Manager({"shop": entry()}) as servers:
        await servers.wait_ready()
        async with events(status_app(servers)) as stream:
            name, data = await stream.next()
            assert (name, [row["state"] for row in data["rows"]]) == ("hello", ["ready"])
            await servers["shop"].reconnect()
            seen = []
            while ("change", "ready") not in seen:
                name, data = await stream.next()
                seen.append((name, data["rows"][0]["state"] if name == "rows" else data["to"]))
            assert seen == [("rows", "ready"), ("change", "idle"), ("change", "connecting"), ("change", "ready")]


async def test_a_reader_hears_of_changed_servers():
    async with Manager({}) as servers, events(status_app(servers)) as stream:
        assert await stream.next() == ("hello", {"rows": []})
        servers.add("late", {**entry(), "lazy": True})
        name, data = await stream.next()
        assert (name, [row["name"] for row in data["rows"]]) == ("rows", ["late"])
        await servers.remove("late")
        while not data["gone"]:
            name, data = await stream.next()
        assert data["gone"] == ["late"]


async def test_a_quiet_reader_gets_only_comments(monkeypatch):
    monkeypatch.setattr(feed, "TICK", 0.001)
    monkeypatch.setattr(feed, "QUIET", 0.003)
    async with Manager({"down": {"url": "http://127.0.0.1:1/mcp", "lazy": True}}) as servers:
        stream = feed.Feed(servers, status_app(servers)._history).events()
        first = await anext(stream)
        assert first.startswith("event: hello\n")
        assert [await anext(stream) for _ in range(3)] == [": quiet\n\n"] * 3
        await stream.aclose()


async def test_a_waiting_connection_is_the_same_row_each_second():
    brief = Policy(patience=0.001, min_attempts=1, cool_down=3600, cool_down_maximum=3600)
    async with Manager({"down": {"url": "http://127.0.0.1:1/mcp"}}, policy=brief) as servers:
        app = status_app(servers)
        await servers.wait_ready()
        assert servers["down"].state is State.FAILED
        sent: dict[str, dict[str, Any]] = {}
        assert app._feed._difference(sent)[0][0]["retry_at"] is not None
        assert app._feed._difference(sent) == ([], [])


async def test_readers_are_bounded_and_end_clean(monkeypatch):
    monkeypatch.setattr(feed, "READERS", 1)
    async with Manager({"shop": entry()}) as servers:
        app = status_app(servers)
        async with events(app) as stream:
            await stream.next()
            assert (await ask(app, "/events")).status == 503
        async with events(app) as stream:
            await stream.next()
        assert app._feed._readers == 0
        assert not servers._observers


async def test_draining_ends_streams_and_readiness():
    async with Manager({"shop": entry()}) as servers:
        app = status_app(servers)
        assert (await ask(app, "/readyz")).json()["ready"] is True
        async with events(app) as stream:
            await stream.next()
            app.drain()
            name = ""
            while name != "bye":
                name, _ = await stream.next()
        assert (await ask(app, "/readyz")).status == 503
        assert (await ask(app, "/healthz")).status == 200


async def test_the_tail_of_stderr_is_shown():
    async with Manager({"tool": {"command": sys.executable, "args": ["-c", NOISY]}}) as servers:
        app = status_app(servers)
        while servers["tool"].last_failure is None:
            await servers["tool"]._lifecycle.changed()
        assert (await ask(app, "/connections/tool")).json()["stderr"] == ["it does not work"]


async def test_no_secret_is_shown():
    script = Script()
    async with Manager({"shop": entry(script)}) as servers:
        await servers.wait_ready()
        app = status_app(servers)
        for path in ("/", "/status", "/connections/shop", "/metrics", "/machine.svg"):
            assert SECRET not in (await ask(app, path)).text
        async with events(app) as stream:
            assert SECRET not in str(await stream.next())


async def test_a_disabled_connection_refuses_calls_until_enabled():
    async with Manager({"shop": entry()}) as servers:
        app = status_app(servers)
        await servers.wait_ready()
        assert (await ask(app, "/connections/shop/disable", method="POST", headers=OWN)).status == 204
        with pytest.raises(ConnectionClosed):
            await servers.call_tool("shop", "add", {"a": 1, "b": 2})
        assert (await ask(app, "/connections/shop")).json()["disabled"] is True
        assert (await ask(app, "/connections/shop/reconnect", method="POST", headers=OWN)).status == 204
        assert servers["shop"].state is State.CLOSED
        assert (await ask(app, "/connections/shop/enable", method="POST", headers=OWN)).status == 204
        assert text_of(await servers.call_tool("shop", "add", {"a": 1, "b": 2})) == "3"
        assert list(servers) == ["shop"]


async def test_reconnect_opens_a_new_session():
    async with Manager({"shop": entry()}) as servers:
        await servers.wait_ready()
        answer = await ask(status_app(servers), "/connections/shop/reconnect", method="POST", headers=OWN)
        assert answer.status == 204
        await servers["shop"].wait_ready()
        assert servers["shop"].epoch == 2


async def test_metrics_are_read_from_connections():
    async with Manager({"shop": entry()}) as servers:
        await servers.call_tool("shop", "add", {"a": 1, "b": 2})
        answer = await ask(status_app(servers), "/metrics")
        assert 'mcpconn_connection_state{connection="shop",state="ready"} 1.0' in answer.text
        assert 'mcpconn_calls_total{connection="shop",outcome="answered"} 1.0' in answer.text
        assert 'mcpconn_connection_epoch{connection="shop"} 1.0' in answer.text


async def test_without_prometheus_client_metrics_say_what_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    answer = await ask(status_app(Manager({})), "/metrics")
    assert answer.status == 501
    assert "`metrics`" in answer.text


async def test_the_page_works_below_any_path():
    app = Starlette(routes=[Mount("/ops/connections", status_app(Manager({})))])
    answer = await ask(app, "/ops/connections/")
    assert answer.status == 200
    for link in ('src="/', 'href="/', "http://", "https://"):
        assert link not in answer.text


async def test_history_keeps_an_hour():
    now = 1000.0
    async with Manager({"shop": entry()}) as servers:
        app = status_app(servers, clock=Clock(wall=lambda: now))
        history = app._history
        assert history.of(servers["shop"]) == [(1000.0, servers["shop"].state.value)]
        await servers.wait_ready()
        assert [state for _, state in history.of(servers["shop"])][-2:] == ["connecting", "ready"]
        at = history.of(servers["shop"])[-1][0]
        now = at + 3600.0
        assert history.of(servers["shop"]) == [(at, "ready")]
        history.keep([])
        assert history._spans == {}
    await anyio.lowlevel.checkpoint()
