"""What an operator has: health, metrics, the dashboard, a line for each call, and a file applied while it runs."""

from __future__ import annotations

import json
import stat
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import anyio
import httpx2
import pytest
from mcp import Client, MCPError

from mcpconn import ConfigError
from mcpconn.asgi import Access
from mcpconn.gateway import Settings
from mcpconn.gateway.config import parse_settings
from mcpconn.keys import IDEMPOTENCY_KEY
from mcpconn.testing import HttpServer, Script, faults
from tests.gateway.conftest import gateway
from tests.support import text_of

pytestmark = pytest.mark.anyio

MODES = pytest.mark.parametrize("mode", ["legacy", "auto"], ids=["legacy client", "modern client"])


# -- health, metrics, the dashboard


async def test_health_metrics_and_the_dashboard_are_served():
    async with gateway(Script()) as made, httpx2.AsyncClient(follow_redirects=True) as http:
        base = made.url.removesuffix("/mcp")
        async with Client(made.url) as client:
            await client.call_tool("a__add", {"a": 1, "b": 2})
        assert (await http.get(f"{base}/healthz")).text == "ok\n"
        assert (await http.get(f"{base}/readyz")).json()["ready"] is True
        metrics = (await http.get(f"{base}/metrics")).text
        assert 'mcpconn_calls_total{connection="a"' in metrics
        page = await http.get(f"{base}/dashboard")
        assert page.status_code == 200
        assert str(page.url).endswith("/dashboard/")
        assert (await http.get(f"{base}/dashboard/status")).json()["connections"]["a"]["state"] == "ready"
        assert (await http.get(f"{base}/dashboard/page/page.js")).status_code == 200


async def test_a_dashboard_with_a_key_is_closed_to_others():
    settings = Settings(dashboard=Access(read_key="a-key-for-the-dashboard"))
    async with gateway(Script(), settings=settings) as made, httpx2.AsyncClient() as http:
        base = made.url.removesuffix("/mcp")
        for path in ("/metrics", "/dashboard/status", "/dashboard/events"):
            assert (await http.get(base + path)).status_code == 401
        headers = {"authorization": "Bearer a-key-for-the-dashboard"}
        assert (await http.get(f"{base}/metrics", headers=headers)).status_code == 200
        assert (await http.get(f"{base}/healthz")).status_code == 200


async def test_a_draining_gateway_is_not_ready():
    async with gateway(Script()) as made, httpx2.AsyncClient() as http:
        made.app.drain()
        assert (await http.get(made.url.removesuffix("/mcp") + "/readyz")).status_code == 503


# -- audit


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@MODES
async def test_a_call_is_two_lines(tmp_path, mode):
    path = tmp_path / "audit.jsonl"
    script = Script()
    async with gateway(script, settings=Settings(audit=path)) as made, Client(made.url, mode=mode) as client:
        await client.call_tool("a__charge", {"amount": 987654}, meta={IDEMPOTENCY_KEY: "k"})  # type: ignore[arg-type]
        script.inject(faults.drop_after())
        await client.call_tool("a__charge", {"amount": 2})
        await client.call_tool("a__charge", {"amount": 2}, meta={IDEMPOTENCY_KEY: "k"})  # type: ignore[arg-type]
        with pytest.raises(MCPError):
            await client.call_tool("a__nothing-there\n", {})
    lines = lines_of(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [line["event"] for line in lines] == ["started", "ended"] * 4
    first, unknown, other_call, no_tool = lines[1::2]
    assert (first["outcome"], first["attempts"], first["key"]) == ("answered", 1, "k")
    assert (first["principal"], first["server"], first["tool"]) == ("anonymous", "a", "charge")
    assert unknown["outcome"] == "unknown"
    assert other_call["outcome"] == "not_run"
    assert no_tool["outcome"] == "error"
    for begin, end in zip(lines[::2], lines[1::2], strict=True):
        assert begin["id"] == end["id"]
    assert "987654" not in path.read_text()


async def test_the_line_is_there_before_anything_is_sent(tmp_path):
    path = tmp_path / "audit.jsonl"
    script = Script()
    seen: list[int] = []

    def look(received: Any) -> None:
        if received.rpc_method == "tools/call":
            seen.append(len(lines_of(path)))

    async with gateway(script, settings=Settings(audit=path)) as made, Client(made.url) as client:
        script.on_request = look
        await client.call_tool("a__charge", {"amount": 1})
    assert seen == [1]


async def test_arguments_are_written_if_asked_for(tmp_path):
    path = tmp_path / "audit.jsonl"
    settings = Settings(audit=path, audit_arguments=True)
    async with gateway(Script(), settings=settings) as made, Client(made.url) as client:
        await client.call_tool("a__charge", {"amount": 5})
    assert [line.get("arguments") for line in lines_of(path)] == [{"amount": 5}, None]


async def test_a_full_disk_ends_no_call():
    settings = Settings(audit=Path("/dev/full"))
    async with gateway(Script(), settings=settings) as made, Client(made.url) as client:
        assert text_of(await client.call_tool("a__add", {"a": 1, "b": 2})) == "3"


@pytest.mark.parametrize(
    ("section", "said"),
    [
        ({"audit": 1}, "gateway.audit"),
        ({"audit": {"file": ""}}, "gateway.audit.file"),
        ({"audit": {"file": "x", "arguments": 1}}, "arguments must be true or false"),
        ({"audit": {"path": "x"}}, "unknown key 'path'"),
        ({"dashboard": []}, "gateway.dashboard must be a mapping"),
        ({"dashboard": {"read_key": "x"}}, "unknown key 'read_key'"),
        ({"dashboard": {"read_key_file": "/nonexistent"}}, "No such file"),
        ({"dashboard": {"actions": "no"}}, "actions must be true or false"),
    ],
)
def test_a_mistake_in_the_file_is_named(section, said):
    with pytest.raises(ConfigError, match=said):
        parse_settings(section, ())


# -- a file applied while the gateway runs


async def test_a_changed_file_touches_what_has_changed_alone(tmp_path):
    path = tmp_path / "mcp.json"
    names = [f"s{number}" for number in range(10)]
    scripts = {name: Script() for name in [*names, "late"]}
    async with AsyncExitStack() as stack:
        urls = {name: (await stack.enter_async_context(HttpServer(script))).url for name, script in scripts.items()}

        def write(**entries: Any) -> None:
            path.write_text(json.dumps({"mcpServers": entries}))

        entries = {name: {"url": urls[name]} for name in names}
        made = await stack.enter_async_context(gateway(more=entries))
        client = await stack.enter_async_context(Client(made.url, mode="legacy"))
        for name in names:
            assert text_of(await client.call_tool(f"{name}__add", {"a": 1, "b": 2})) == "3"
        before = {name: script.count("initialize") for name, script in scripts.items()}

        write(**{**entries, "s3": {"url": urls["s3"], "headers": {"x-new": "1"}}, "late": {"url": urls["late"]}})
        result = made.app.reload(path)
        assert (result["changed"], result["added"], len(result["unchanged"])) == (["s3"], ["late"], 9)
        for name in [*names, "late"]:
            assert text_of(await client.call_tool(f"{name}__add", {"a": 1, "b": 2})) == "3"
        again = {name for name, script in scripts.items() if script.count("initialize") > before[name]}
        assert again == {"s3", "late"}
        assert "late__add" in {tool.name for tool in (await client.list_tools()).tools}

        write(**{name: entries[name] for name in names[1:]})
        made.app.reload(path)
        with pytest.raises(MCPError, match="Unknown tool"):
            await client.call_tool("s0__add", {"a": 1, "b": 2})
        assert text_of(await client.call_tool("s1__add", {"a": 1, "b": 2})) == "3"


async def test_a_broken_file_changes_nothing(tmp_path):
    path = tmp_path / "mcp.json"
    async with gateway(Script()) as made, Client(made.url) as client:
        for content in ("{", '{"mcpServers": {}, "gateway": {"views": 1}}'):
            path.write_text(content)
            with pytest.raises(ConfigError):
                made.app.reload(path)
        assert text_of(await client.call_tool("a__add", {"a": 1, "b": 2})) == "3"
    await anyio.lowlevel.checkpoint()
