"""What a server entry may say. Whatever it may not say is an error that names the server and the key."""

from __future__ import annotations

import dataclasses
import pickle
import sys
from typing import Any

import pytest
from mcp.client.stdio import StdioServerParameters
from mcp.server import MCPServer

from mcpconn import ConfigError, Connection, Manager, McpConnError, Policy, ServerConfig
from mcpconn.core import Backoff

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
    ({"url": "http://host/mcp", "lazy": 1}, "lazy", "lazy must be true or false"),
    ({"url": "http://host/mcp", "max_in_flight": 2.5}, "max_in_flight", "max_in_flight must be a whole number"),
    ({"url": "http://host/mcp", "timeout": 10**400}, "timeout", "timeout is out of range"),
    ({"url": "http://host/mcp", "mode": "2025-06-18"}, "mode", "must be 'legacy', 'auto', or one of"),
    ({"url": "http://host/mcp", "headers": {"X-Key": "a\nb"}}, "headers", "'X-Key' contains a line break"),
    ({"url": "http://host/mcp", "headers": {"X Key": "a"}}, "headers", "not the name of a header"),
    ({"url": "http://host/mcp", "headers": {5: "a"}}, "headers", "a name must be a string, not int"),
    ({"url": "http://host/mcp", "headers": {"X": "\ud800"}}, "headers", "not ASCII"),
    ({"url": "http://ho\nst/mcp"}, "url", "not a valid http or https address"),
    ({"url": "http://host/\0"}, "url", "not a valid http or https address"),
    ({"url": "http://ho st/mcp"}, "url", "not a valid http or https address"),
    ({"url": "http://\ud800/mcp"}, "url", "not a valid http or https address"),
    ({"url": "http://host/" + "x" * 70_000}, "url", "not a valid http or https address"),
    ({"url": "http://host/mcp", "auth": "a\nb"}, "auth", "'Authorization' contains a line break"),
    ({"url": "http://host/mcp", "auth": " "}, "auth", "the token is empty"),
    ({"command": "npx", "auth": "abc"}, "auth", "auth is for servers with a url"),
    ({"command": "np\0x"}, "command", "contains a NUL character"),
    ({"command": "npx", "args": ["a\0"]}, "args", "contains a NUL character"),
    ({"command": "npx", "args": ["\ud800"]}, "args", "surrogate"),
    ({"command": "npx", "args": ["a", 5]}, "args", "args must be a list of strings"),
    ({"command": "npx", "env": {"A=B": "1"}}, "env", "must not be empty or contain ="),
    ({"command": "npx", "env": {"": "1"}}, "env", "must not be empty or contain ="),
    ({"command": "npx", "env": {"A": "\0"}}, "env", "contains a NUL character"),
    ({"command": "npx", "cwd": "/tmp\0"}, "cwd", "contains a NUL character"),
    ({"command": "npx", "cwd": 5}, "cwd", "cwd must be a string"),
    (["http://host/mcp"], None, "expected a mapping, not list"),
    (None, None, "expected a mapping, not NoneType"),
    (5, None, "expected a mapping, not int"),
]


@pytest.mark.parametrize(("entry", "key", "text"), BAD)
def test_an_unusable_entry_is_named_before_dialling(entry: Any, key: str | None, text: str) -> None:
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
    with pytest.raises(ConfigError, match="server 'one': a server with this name exists already") as caught:
        manager.add("one", {"url": "http://other/mcp"})
    assert caught.value.server == "one"
    assert manager["one"].config.url == "http://host/mcp"


@pytest.mark.parametrize(
    "text", ["sk-live-0123456789abcdef", "https//user:pass@host/mcp", "Bearer 0123456789abcdef", "http://:0/secret"]
)
def test_a_would_be_url_is_not_shown(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        ServerConfig(name="srv", url=text)
    assert text not in str(caught.value)


@pytest.mark.parametrize(
    "entry", ["https://host/mcp", {"url": "https://host/mcp"}, ServerConfig(url="https://host/mcp")]
)
def test_a_url_can_be_given_in_three_ways(entry: Any) -> None:
    config = ServerConfig.parse("srv", entry)
    assert (config.name, config.kind, config.url) == ("srv", "http", "https://host/mcp")


def test_spaces_around_values_are_cut() -> None:
    config = ServerConfig(
        name="srv", url=" https://host/mcp\n", headers={"X-Key": "abc\r\n"}, auth="Bearer abc\n", transport=" HTTP "
    )
    assert (config.url, config.headers, config.auth, config.kind) == (
        "https://host/mcp",
        {"X-Key": "abc"},
        "abc",
        "http",
    )
    assert ServerConfig(command=" npx ").command == "npx"


def test_two_mistakes_are_told_together() -> None:
    with pytest.raises(ConfigError, match=r"server 'srv': url must be a string; lazy must be true or false") as caught:
        ServerConfig.parse("srv", {"url": 5, "lazy": "yes"})
    assert caught.value.key == "url"


def test_unknown_arguments_are_named() -> None:
    with pytest.raises(ConfigError, match="unknown key 'timout'; did you mean 'timeout'"):
        ServerConfig(name="srv", url="http://host/mcp", timout=3)  # type: ignore[call-arg]


def test_variants_are_checked_like_originals() -> None:
    config = ServerConfig(name="srv", url="http://host/mcp", headers={"A": "b"}, timeout=5)
    assert dataclasses.replace(config, name="other") == config
    assert dataclasses.replace(config, timeout=6).timeout == 6
    assert pickle.loads(pickle.dumps(config)) == config
    with pytest.raises(ConfigError, match="timeout must be greater than zero"):
        dataclasses.replace(config, timeout=-1)
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.timeout = 7  # type: ignore[misc]


def test_a_configuration_keeps_own_copies() -> None:
    env = {"A": "1"}
    config = ServerConfig(command="npx", env=env, args=["x"])
    env["B"] = "2"
    assert (config.env, config.args) == ({"A": "1"}, ("x",))


def test_false_is_no_limit_at_all() -> None:
    config = ServerConfig(url="http://host/mcp", timeout=False, keepalive=False)
    policy = config.policy(Policy(keepalive=9, idle_timeout=9))
    assert (policy.call_timeout, policy.keepalive, policy.idle_timeout) == (None, None, 9)


def test_the_userinfo_is_sent_as_a_header_and_not_in_the_url() -> None:
    config = ServerConfig(url="http://me:p%40ss%2Fword@host:8/mcp?a=1#x", headers={"authorization": "Bearer abc"})
    assert config.endpoint == "http://host:8/mcp?a=1"
    assert config.request_headers == {"Authorization": "Basic bWU6cEBzcy93b3Jk"}
    assert ServerConfig(url="http://host/mcp", headers={"authorization": "x"}).request_headers == {"authorization": "x"}


def test_a_senseless_backoff_is_refused() -> None:
    with pytest.raises(ConfigError, match="backoff needs initial") as caught:
        Policy(backoff=Backoff(initial=0))
    assert caught.value.key == "backoff"


def test_what_mcp_client_takes_can_be_given() -> None:
    config = ServerConfig.parse("srv", StdioServerParameters(command="npx", args=["-y", "x"], env={"A": "1"}, cwd="/"))
    assert (config.kind, config.command, config.args) == ("stdio", "npx", ("-y", "x"))
    assert (config.env, config.cwd) == ({"A": "1"}, "/")
    server = MCPServer("here")
    config = ServerConfig.parse("srv", server)
    assert (config.kind, config.server, config.address) == ("memory", server, "in-process MCPServer")


def test_a_disabled_server_is_left_out() -> None:
    manager = Manager({"on": {"url": "http://host/mcp"}, "off": {"url": "http://host/mcp", "disabled": True}})
    assert list(manager) == ["on"]


def test_a_servers_numbers_go_first() -> None:
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


UNUSABLE = [
    ("call_timeout", 0),
    ("probe_timeout", -1),
    ("max_in_flight", 0),
    ("max_in_flight", 2.5),
    ("max_in_flight", True),
    ("patience", float("nan")),
    ("keepalive", 0),
    ("keepalive", float("inf")),
    ("replay_ratio", float("inf")),
    ("call_timeout", 10**400),
    ("call_timeout", -(10**5000)),
    ("drain_timeout", True),
    ("connect_timeout", "30"),
    ("connect_timeout", None),
    ("backoff", 3),
    ("backoff", Backoff(initial=10**400)),
    ("backoff", Backoff(factor=0.5)),
    ("backoff", Backoff(jitter=2)),
    ("backoff", Backoff(jitter=float("nan"))),
]


@pytest.mark.parametrize(("key", "value"), UNUSABLE, ids=[f"{key}-{n}" for n, (key, _) in enumerate(UNUSABLE)])
def test_an_unusable_policy_number_is_named(key: str, value: Any) -> None:
    with pytest.raises(ConfigError) as caught:
        Policy(**{key: value})
    assert caught.value.key == key
    assert key in str(caught.value)
    assert len(str(caught.value)) < 120


@pytest.mark.parametrize("value", [10**400, float("nan"), True, -1])
def test_a_servers_unusable_timeout_is_named(value: Any) -> None:
    with pytest.raises(ConfigError) as caught:
        Manager({"shop": {"url": "http://host/mcp", "timeout": value}})
    assert (caught.value.server, caught.value.key) == ("shop", "timeout")


def test_the_largest_numbers_can_be_used() -> None:
    policy = Policy(call_timeout=10**300, keepalive=1.7e308, patience=1e-300)
    assert (policy.call_timeout, policy.keepalive, policy.patience) == (1e300, 1.7e308, 1e-300)
