"""Configuration files: the forms people have, variables, and errors that say where."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mcpconn import ConfigError, Manager, State
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


def test_variables_are_replaced_wherever_a_string_stands(file: Path) -> None:
    entry = {
        "url": "https://${HOST}/mcp",
        "headers": {"Authorization": "Bearer ${env:TOKEN}", "X": "${MISSING:-fallback}", "Y": "${EMPTY:-full}"},
    }
    loaded = load(write(file, {"a": entry}), environ={"HOST": "h.example", "TOKEN": TOKEN, "EMPTY": ""})["a"]
    assert loaded.url == "https://h.example/mcp"
    assert loaded.headers == {"Authorization": f"Bearer {TOKEN}", "X": "fallback", "Y": "full"}
    assert TOKEN not in repr(loaded)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{", ["line 1", "column"]),
        ('{"mcpServers": {"a": {"url": "https://a"}, "a": {"url": "https://b"}}}', ["'a'", "twice"]),
        ('{"mcpServers": {"a": {"url": "https://a", "url": "https://b"}}}', ["'url'", "twice"]),
        ([], ["a list"]),
        ({"mcpServers": {"a": "https://a.example"}}, ["'a'", "a string"]),
        ({"mcpServers": {"a": {"url": "https://a.example", "hedders": {}}}}, ["'a'", "'hedders'", "'headers'"]),
        ({"mcpServers": {"a": {"url": "https://${NOPE}/x"}}}, ["'a'", "url", "NOPE", "not set"]),
        ({"mcpServers": {"a": {"url": "https://a", "headers": {"K": "${NOPE}"}}}}, ["headers.K", "NOPE"]),
        ({"mcpServers": {"a": {"command": "x", "args": ["ok", "${NOPE}"]}}}, ["args[1]", "NOPE"]),
        ({"mcpServers": {"a": {"url": "https://a", "headers": {"K": "${input:token}"}}}}, ["${input:token}"]),
        ({"mcpServers": {}, "mcpServer": {}}, ["'mcpServer'", "beside"]),
        ({"mcpServers": {"a": {"url": "https://a", "timeout": "soon"}}}, ["'a'", "timeout", "seconds"]),
        ({"mcpServers": {"a": {"url": "https://a", "max_in_flight": 0}}}, ["'a'", "max_in_flight", "greater"]),
        ({"mcpServers": {"a": {"url": "https://a", "lazy": "yes"}}}, ["'a'", "lazy", "true or false"]),
    ],
)
def test_an_error_names_the_file_the_place_and_the_fix(file: Path, content: Any, words: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        load(write(file, content), environ={})
    for word in (str(file), *words):
        assert word in str(caught.value)


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
async def test_a_file_that_cannot_be_used_changes_nothing(file: Path) -> None:
    script = Script()
    async with HttpServer(script) as server:
        write(file, {"a": {"url": server.url}})
        async with Manager.from_file(file) as manager:
            await manager.wait_ready()
            write(file, {"b": {"url": server.url}, "c": {"url": "ftp://nowhere"}})
            with pytest.raises(ConfigError, match="'c'"):
                manager.reload(file)
            assert list(manager) == ["a"]
            assert manager["a"].state is State.READY
