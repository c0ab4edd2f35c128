"""Configuration files: the forms people have, variables, and errors that say where."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mcpconn import ConfigError, ConnectionFailed, FailureKind, Manager, State, SyncManager, handlers
from mcpconn.mcpjson import load
from mcpconn.testing import HttpServer, Script

TOKEN = "ghp_16C7e42F292c6912E7710c838347Ae178B4a"


def write(path: Path, content: Any) -> Path:
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "mcp.json"


@pytest.mark.parametrize(
    "wrap",
    [
        lambda servers: {"mcpServers": servers},
        lambda servers: {"servers": servers, "inputs": []},
        lambda servers: servers,
        lambda servers: {"$schema": "x", **servers},
    ],
    ids=["mcpServers", "servers", "bare", "bare with a schema"],
)
def test_every_form_gives_the_same_servers(file: Path, wrap: Any) -> None:
    servers = {"a": {"url": "https://a.example/mcp"}, "b": {"command": "run", "args": ["x"], "env": {"K": "v"}}}
    loaded = load(write(file, wrap(servers)))
    assert list(loaded) == ["a", "b"]
    assert (loaded["a"].kind, loaded["b"].kind) == ("http", "stdio")
    assert loaded["b"].args == ("x",)


@pytest.mark.parametrize("key", ["type", "transport"])
@pytest.mark.parametrize(
    ("spelling", "kind"),
    [
        ("http", "http"),
        ("streamable-http", "http"),
        ("streamableHttp", "http"),
        ("streamable_http", "http"),
        ("SSE", "sse"),
    ],
)
def test_the_usual_spellings_of_a_transport_are_understood(file: Path, key: str, spelling: str, kind: str) -> None:
    loaded = load(write(file, {"mcpServers": {"a": {"url": "https://a.example", key: spelling}}}))
    assert loaded["a"].kind == kind


def test_variables_are_replaced_everywhere(file: Path) -> None:
    entry = {
        "url": "https://${HOST}/mcp",
        "headers": {"Authorization": "Bearer ${env:TOKEN}", "X": "${MISSING:-fallback}", "Y": "${EMPTY:-full}"},
    }
    loaded = load(write(file, {"a": entry}), environ={"HOST": "h.example", "TOKEN": TOKEN, "EMPTY": ""})["a"]
    assert loaded.url == "https://h.example/mcp"
    assert loaded.headers == {"Authorization": f"Bearer {TOKEN}", "X": "fallback", "Y": "full"}
    assert TOKEN not in repr(loaded)


WRONG = [
    ({"a": {"url": "https://a.example", "hedders": {}}}, ["'hedders'", "'headers'"]),
    ({"a": {"url": "https://${NOPE}/x"}}, ["url", "NOPE", "not set"]),
    ({"a": {"url": "https://a", "headers": {"K": "${NOPE}"}}}, ["headers.K", "NOPE"]),
    ({"a": {"command": "x", "args": ["ok", "${NOPE}"]}}, ["args[1]", "NOPE"]),
    ({"a": {"url": "https://a", "headers": {"K": "${input:my-token}"}}}, ["${input:my-token}", "${MY_TOKEN}"]),
    ({"a": {"url": "https://a", "headers": {"K": "${1:x}"}}}, ["${1:x}", "not understood"]),
    ({"a": {"url": "https://a", "timeout": "soon"}}, ["timeout", "seconds"]),
    ({"a": {"url": "https://a", "timeout": 0}}, ["timeout", "greater"]),
    ({"a": {"url": "https://a", "max_in_flight": 0}}, ["max_in_flight", "greater"]),
    ({"a": {"url": "https://a", "lazy": "yes"}}, ["lazy", "true or false"]),
    ({"a": {"url": "https://a", "mode": "2024-11-05"}}, ["mode must be", "one of"]),
    ({"a": {"url": "https://a", "headers": {"X Y": "1"}}}, ["headers", "name of a header"]),
    ({"a": {"url": "https://a", "headers": {"X": None}}}, ["headers.X", "must be a string"]),
    ({"a": {"command": "a\0"}}, ["command", "NUL"]),
    ({"a": {"serverUrl": "ftp://a"}}, ["url", "not a valid", "'serverUrl'"]),
    ({"a": {"url": "https://a", "command": "x"}}, ["url and command"]),
    ({"a": {"server": "x"}}, ["unknown key 'server'"]),
    ({"a": {"url": "https://a", "http_transport": "x"}}, ["unknown key 'http_transport'"]),
    ({"a": {"url": "https://a", "options": {}}}, ["unknown key 'options'"]),
    ({"a": {"url": "https://a", "name": "x", "problem": "y"}}, ["unknown key 'problem'"]),
    ({"a": {"url": "https://a", "enabled": "no"}}, ["enabled", "true or false"]),
    ({"a": {"url": "https://a", "serverUrl": "https://b"}}, ["url is given twice", "serverUrl"]),
    ({"a": {"url": "https://a", "auth": 5}}, ["auth"]),
    ({"a": {"url": "https://a", TOKEN: 5}}, ["unknown key '***'"]),
    ({"a": {"command": "x", "env": {"A": ["b"]}}}, ["env.A", "must be a string, not list"]),
    ({"a": "https://a.example"}, ["expected a mapping, not a string"]),
    ({"a": None}, ["expected a mapping, not nothing"]),
    ({"": {"url": "https://a"}}, ["the name is empty"]),
    ({"a\nb": {"url": "https://a"}}, ["cannot be shown"]),
    ({"\ud800": {"url": "https://a"}}, ["cannot be shown"]),
    ('{"a": {"url": "https://a"}, "a": {"url": "https://b"}}', ["'a'", "twice"]),
    ('{"a": {"url": "https://a", "url": "https://b"}}', ["'url'", "twice"]),
    ('{"a": {"command": "x", "env": {"A": "1", "A": "2"}}}', ["'A'", "twice"]),
]
"""Servers of which one cannot be used, and what is said about it."""


def in_file(servers: Any) -> str:
    """A file with these servers, and one that can be used."""
    text = servers if isinstance(servers, str) else json.dumps(servers)
    return '{"mcpServers": ' + text.rstrip()[:-1] + ', "fine": {"url": "https://fine.example"}}}'


@pytest.mark.parametrize(("servers", "words"), WRONG)
def test_a_bad_entry_disables_one_server(file: Path, servers: Any, words: list[str]) -> None:
    loaded = load(write(file, in_file(servers)), environ={})
    (bad,) = [config for name, config in loaded.items() if name != "fine"]
    assert loaded["fine"].problem is None
    assert bad.problem is not None
    assert bad.kind == bad.address == "unknown"
    for word in words:
        assert word in bad.problem
        assert word in repr(bad)
    assert TOKEN not in repr(bad)


@pytest.mark.parametrize(("servers", "words"), WRONG)
def test_strict_refuses_the_file_and_says_it(file: Path, servers: Any, words: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        load(write(file, in_file(servers)), environ={}, strict=True)
    assert caught.value.server is not None
    for word in (str(file), repr(caught.value.server), *words):
        assert word in str(caught.value)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", ["line 1", "column"]),
        ("{", ["line 1", "column"]),
        ('{"a": 1,}x', ["line 1", "column 10"]),
        ('{"a": /* never', ["line 1", "not closed"]),
        ('{"a": NaN}', ["NaN"]),
        ('{"a": -Infinity}', ["-Infinity"]),
        ('{"a": ' + "9" * 5000 + "}", ["digits"]),
        ("[" * 100_000, ["nested too deeply"]),
        ('{"a":' * 100_000, ["nested too deeply"]),
        ([], ["a list"]),
        (5, ["a number"]),
        ('{"mcpServers": {}, "mcpServers": {}}', ["'mcpServers'", "twice"]),
        ({"mcpServers": 5}, ["mcpServers must be a mapping", "a number"]),
    ],
)
def test_an_unreadable_file_is_refused_whole(file: Path, content: Any, words: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        load(write(file, content), environ={})
    for word in (str(file), *words):
        assert word in str(caught.value)


@pytest.mark.parametrize("path", ["\0", "no/such/folder/mcp.json", "/", "\ud800"])
def test_a_path_that_leads_nowhere_is_a_configuration_error(path: str) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        load(path)
    with pytest.raises(ConfigError, match="a path to a file is needed, not int"):
        load(5)  # type: ignore[arg-type]


def test_keys_that_hosts_keep_beside_the_servers_are_left_alone(file: Path) -> None:
    content = {"globalShortcut": "Alt+Space", "preferences": {"menuBar": True}, "$schema": "x", "inputs": [{"id": "a"}]}
    for servers in ({"mcpServers": {"a": {"url": "https://a"}}}, {"a": {"url": "https://a"}}):
        loaded = load(write(file, {**content, **servers}))
        assert list(loaded) == ["a"]
        assert loaded.notes == ()
        with pytest.raises(ConfigError, match="unknown key 'globalShortcut' beside the servers"):
            load(file, strict=True)
    assert load(write(file, content)) == {}
    assert load(write(file, {"mcpServers": None})) == {}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"mcpServers": {}, "mcpServer": {"a": {"url": "https://a"}}}, ["'mcpServer'", "'mcpServers'"]),
        ({"mcpServers": {}, "servers": {"a": {"url": "https://a"}}}, ["'servers' is not read"]),
        ({"mcp_server": {"a": {"url": "https://a"}}}, ["'mcp_server'", "'mcp_servers'"]),
    ],
)
def test_servers_that_are_not_read_are_told(file: Path, content: Any, words: list[str]) -> None:
    loaded = load(write(file, content))
    assert loaded == {}
    (note,) = loaded.notes
    for word in words:
        assert word in note


@pytest.mark.parametrize("off", [{"disabled": True}, {"disable": True}, {"enabled": False}, {"isActive": False}])
def test_disabled_is_looked_at_first(file: Path, off: dict[str, bool]) -> None:
    entry = {"urll": 5, "headers": {"K": "${NOPE}"}, **off}
    for strict in (False, True):
        loaded = load(write(file, {"mcpServers": {"off": entry}}), environ={}, strict=strict)
        assert loaded["off"].disabled
    assert list(Manager.from_file(file)) == []


@pytest.mark.anyio
async def test_a_bad_entry_is_a_failed_connection_that_is_never_dialled(
    file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    script = Script()
    async with HttpServer(script) as server:
        write(file, {"bad": {"url": server.url, "headers": {"K": "${NOPE}"}}, "fine": {"url": server.url}})
        async with Manager.from_file(file) as manager:
            bad = manager["bad"]
            assert bad.state is State.FAILED
            for call in (bad.call_tool("add"), bad.wait_ready(), bad.reconnect(), bad.list_tools()):
                with pytest.raises(ConnectionFailed, match="NOPE is not set") as caught:
                    await call
                error = caught.value
                assert (error.failure.kind, error.outcome, error.attempts) == (FailureKind.CONFIG, "not_run", 0)
                assert error.retry_in is None
            assert "NOPE is not set" in str(manager.status()["bad"]["last_failure"])
            assert "NOPE is not set" in await handlers.call_tool(manager, "bad", "add")({})
            await manager["fine"].wait_ready()
            await manager.wait_ready()
            assert bad.epoch == 0
            assert len(script.states) == 1
    assert any("NOPE is not set" in record.getMessage() for record in caplog.records if record.name == "mcpconn")


def test_a_sync_manager_has_bad_entries_too(file: Path) -> None:
    write(file, {"bad": {"urll": "https://a"}})
    with SyncManager.from_file(file) as manager, pytest.raises(ConnectionFailed, match="did you mean 'url'"):
        manager.call_tool("bad", "add")
    with pytest.raises(ConfigError):
        SyncManager.from_file(file, strict=True)


def test_a_file_that_is_not_there_is_named(file: Path) -> None:
    with pytest.raises(ConfigError, match=r"mcp\.json: cannot be read: No such file"):
        load(file)


def test_a_file_that_is_no_text_is_named(file: Path) -> None:
    file.write_bytes(b'{"a": "\xff"}')
    with pytest.raises(ConfigError, match="is not UTF-8 text"):
        load(file)


def test_a_byte_order_mark_is_no_error(file: Path) -> None:
    file.write_bytes(b"\xef\xbb\xbf{}")
    assert load(file) == {}


def test_a_disabled_server_is_left_out(file: Path) -> None:
    entries = {"on": {"url": "https://a.example"}, "off": {"url": "https://b.example", "disabled": True}}
    assert list(Manager.from_file(write(file, {"mcpServers": entries}))) == ["on"]


@pytest.mark.anyio
async def test_reload_applies_the_difference_and_leaves_the_rest_alone(file: Path) -> None:
    script = Script()
    async with HttpServer(script) as server:
        entry = {"url": server.url}
        write(file, {"same": entry, "gone": entry, "other": entry})
        async with Manager.from_file(file) as manager:
            await manager.wait_ready()
            same, other = manager["same"], manager["other"]
            write(file, {"same": entry, "new": entry, "other": {**entry, "timeout": 5}})
            done = manager.reload(file)
            assert done == {"added": ["new"], "removed": ["gone"], "changed": ["other"], "unchanged": ["same"]}
            await manager.wait_ready()
            assert manager["same"] is same
            assert (same.epoch, same.state) == (1, State.READY)
            assert other.state is State.CLOSED
            assert manager["other"].policy.call_timeout == 5
            assert sorted(manager) == ["new", "other", "same"]


@pytest.mark.anyio
async def test_an_unusable_file_changes_nothing(file: Path) -> None:
    script = Script()
    async with HttpServer(script) as server:
        write(file, {"a": {"url": server.url}})
        async with Manager.from_file(file) as manager:
            await manager.wait_ready()
            write(file, {"b": {"url": server.url}, "c": {"url": "ftp://nowhere"}})
            with pytest.raises(ConfigError, match="'c'"):
                manager.reload(file, strict=True)
            write(file, "{")
            with pytest.raises(ConfigError, match="line 1"):
                manager.reload(file)
            assert list(manager) == ["a"]
            assert manager["a"].state is State.READY


@pytest.mark.anyio
async def test_an_entry_that_breaks_and_is_fixed_is_reloaded(file: Path) -> None:
    async with HttpServer(Script()) as server:
        good, bad = {"url": server.url}, {"url": server.url, "urll": 1}
        write(file, {"a": good, "b": good})
        async with Manager.from_file(file) as manager:
            await manager.wait_ready()
            b = manager["b"]
            assert manager.reload(write(file, {"a": bad, "b": good}))["changed"] == ["a"]
            assert manager["a"].state is State.FAILED
            assert manager.reload(file)["unchanged"] == ["a", "b"]
            assert manager.reload(write(file, {"a": good, "b": good}))["changed"] == ["a"]
            await manager.wait_ready()
            assert manager["a"].state is State.READY
            assert manager["b"] is b
            assert b.epoch == 1
