"""What a server entry may say. Whatever it may not say is an error that names the server and the key."""

from __future__ import annotations

import sys
from typing import Any

import pytest
from mcp.client.stdio import StdioServerParameters
from mcp.server import MCPServer

from mcpconn import ConfigError, Connection, Manager, McpConnError, Policy, ServerConfig

BAD: list[tuple[Any, str | None, str]] = [
    ({}, "url", "has neither a url nor a command"),
    ({"args": ["x"]}, "url", "has neither a url nor a command"),
    ({"url": "http://host/mcp", "command": "npx"}, "url", "has url and command"),
    ({"url": "http://host/mcp", "colour": "red"}, "colour", "unknown key 'colour'"),
    ({"url": "http://host/mcp", "header": {}}, "header", "did you mean 'headers'?"),
    ({"commnd": "npx"}, "commnd", "did you mean 'command'?"),
    ({"url": "ftp://host/mcp"}, "url", "not a valid http or https address"),
    ({"url": "host/mcp"}, "url", "not a valid http or https address"),
    ({"url": "http://"}, "url", "not a valid http or https address"),
    ({"url": "http://host:notaport/mcp"}, "url", "not a valid http or https address"),
    ({"url": "http://host:99999/mcp"}, "url", "not a valid http or https address"),
    ({"url": "http://[::1/mcp"}, "url", "not a valid http or https address"),
    ({"url": ""}, "url", "not a valid http or https address"),
    ({"url": 5}, "url", "url must be a string"),
    ({"command": ""}, "command", "the command is empty"),
    ({"command": ["npx", "server"]}, "command", "command must be a string"),
    ({"command": "npx", "args": "server"}, "args", "args must be a list of strings"),
    ({"command": "npx", "env": ["A=1"]}, "env", "env must be a mapping"),
    ({"command": "npx", "env": {"PORT": 8080}}, "env", "env.PORT must be a string, not int"),
    ({"url": "http://host/mcp", "headers": {"X": None}}, "headers", "headers.X must be a string, not NoneType"),
    ({"url": "http://host/mcp", "transport": "carrier pigeon"}, "transport", "known: stdio, http, sse"),
    ({"url": "http://host/mcp", "type": "stdio"}, "transport", "transport is stdio, but a url is given"),
    ({"command": "npx", "type": "sse"}, "transport", "transport is sse, but a command is given"),
    ({"url": "http://host/mcp", "type": "http", "transport": "http"}, "transport", "given twice"),
    ({"url": "http://host/mcp", "timeout": 0}, "timeout", ": timeout must be greater than zero"),
    ({"url": "http://host/mcp", "timeout": "30"}, "timeout", "timeout must be a number of seconds"),
    ({"url": "http://host/mcp", "keepalive": True}, "keepalive", "keepalive must be a number of seconds"),
    ({"url": "http://host/mcp", "timeout": float("nan")}, "timeout", ": timeout must be greater than zero"),
    ({"url": "http://host/mcp", "lazy": "yes"}, "lazy", "lazy must be true or false"),
    (["http://host/mcp"], None, "expected a mapping, not list"),
    (None, None, "expected a mapping, not NoneType"),
    (5, None, "expected a mapping, not int"),
]


@pytest.mark.parametrize(("entry", "key", "text"), BAD)
def test_an_entry_that_cannot_be_used_is_named_with_its_key_before_anything_is_dialled(
    entry: Any, key: str | None, text: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        Manager({"fine": {"url": "http://host/mcp"}, "the-server": entry})
    error = caught.value
    assert text in str(error)
    assert "'the-server'" in str(error)
    assert (error.server, error.key) == ("the-server", key)
    assert isinstance(error, McpConnError)
    assert isinstance(error, ValueError)


def test_a_name_given_twice_is_an_error() -> None:
    manager = Manager({"one": {"url": "http://host/mcp"}})
    with pytest.raises(ConfigError, match="server 'one': there is one of this name already") as caught:
        manager.add("one", {"url": "http://other/mcp"})
    assert caught.value.server == "one"
    assert manager["one"].config.url == "http://host/mcp"


@pytest.mark.parametrize(
    "text", ["sk-live-0123456789abcdef", "https//user:pass@host/mcp", "Bearer 0123456789abcdef", "http://:0/secret"]
)
def test_what_was_meant_to_be_a_url_is_not_shown(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        ServerConfig(name="srv", url=text)
    assert text not in str(caught.value)


@pytest.mark.parametrize(
    "entry", ["https://host/mcp", {"url": "https://host/mcp"}, ServerConfig(url="https://host/mcp")]
)
def test_a_url_can_be_given_in_three_ways(entry: Any) -> None:
    config = ServerConfig.parse("srv", entry)
    assert (config.name, config.kind, config.url) == ("srv", "http", "https://host/mcp")


def test_what_mcp_client_takes_can_be_given_too() -> None:
    config = ServerConfig.parse("srv", StdioServerParameters(command="npx", args=["-y", "x"], env={"A": "1"}, cwd="/"))
    assert (config.kind, config.command, config.args) == ("stdio", "npx", ("-y", "x"))
    assert (config.env, config.cwd) == ({"A": "1"}, "/")
    server = MCPServer("here")
    config = ServerConfig.parse("srv", server)
    assert (config.kind, config.server, config.address) == ("memory", server, "in-process MCPServer")


def test_a_server_that_is_disabled_is_left_out() -> None:
    manager = Manager({"on": {"url": "http://host/mcp"}, "off": {"url": "http://host/mcp", "disabled": True}})
    assert list(manager) == ["on"]


def test_a_servers_own_numbers_go_before_the_managers() -> None:
    manager = Manager(
        {"own": {"url": "http://host/mcp", "timeout": 5, "max_in_flight": 2}, "plain": {"url": "http://host/mcp"}},
        policy=Policy(call_timeout=9),
    )
    assert (manager["own"].policy.call_timeout, manager["own"].policy.max_in_flight) == (5, 2)
    assert (manager["plain"].policy.call_timeout, manager["plain"].policy.max_in_flight) == (9, 100)


@pytest.mark.parametrize(
    ("url", "origin"),
    [
        ("http://host/mcp", "http://host:"),
        ("http://host:8080/a", "http://host:8080"),
        ("https://user:pass@host/b?key=c", "https://host:"),
    ],
)
def test_dials_are_limited_by_host_and_port(url: str, origin: str) -> None:
    assert ServerConfig(url=url).origin == origin


def test_a_connection_without_a_name_is_called_after_its_server() -> None:
    assert Connection("https://user:secret@example.com:8443/mcp?key=secret").name == "example.com:8443"
    assert Connection({"command": "/usr/local/bin/mcp-server-git"}).name == "mcp-server-git"
    assert Connection({"command": sys.executable}, name="mine").name == "mine"
    assert Connection(MCPServer("x")).name == "in-process"


@pytest.mark.parametrize(
    "change",
    [{"call_timeout": 0}, {"probe_timeout": -1}, {"max_in_flight": 0}, {"patience": float("nan")}, {"keepalive": 0}],
)
def test_a_policy_with_a_number_that_cannot_be_used_says_which(change: dict[str, Any]) -> None:
    with pytest.raises(ConfigError) as caught:
        Policy(**change)
    (key,) = change
    assert caught.value.key == key
    assert key in str(caught.value)
