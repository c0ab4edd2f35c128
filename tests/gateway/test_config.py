"""The gateway's section is read from every file that the servers are read from."""

import json
from contextlib import suppress
from typing import Any

import pytest

from mcpconn import Manager
from mcpconn.errors import ConfigError
from mcpconn.gateway.capacity import Capacity
from mcpconn.gateway.config import loaded, parse_settings, read_section

JSON = '{"mcpServers": {"fs": {"command": "x"}}, "gateway": {"views": {"calm": {"deny": ["fs/*"]}}}}'
COMMENTED = '{ // ours\n"mcpServers": {"fs": {"command": "x"}},\n"gateway": {"views": {"calm": {"deny": ["fs/*"],}}}}'


@pytest.mark.parametrize("text", [JSON, COMMENTED], ids=["plain", "with comments"])
def test_what_a_view_denies_is_read(tmp_path, text):
    path = tmp_path / "mcp.json"
    path.write_text(text)
    settings = parse_settings(read_section(path), ("fs",))
    assert not settings.views["calm"].shows("fs", "delete")


def test_a_file_without_views_has_one(tmp_path):
    path = tmp_path / "mcp.json"
    path.write_text('{"mcpServers": {}}')
    assert list(parse_settings(read_section(path), ()).views) == [""]


@pytest.mark.parametrize("scope", ["client", "user", "shared"])
def test_a_scope_may_stand_in_the_servers_own_entry(tmp_path, scope):
    path = tmp_path / "mcp.json"
    entry = {"url": "http://127.0.0.1:1/mcp", "scope": scope, "gateway": True}
    path.write_text(json.dumps({"mcpServers": {"fs": entry}}), encoding="utf-8")
    settings = parse_settings(read_section(path), ("fs",))
    assert settings.scopes == {"fs": scope}
    assert settings.trusted == {"fs"}
    assert Manager.from_file(path)["fs"].config.problem is None


def test_the_section_counts_for_more_than_the_entry(tmp_path):
    path = tmp_path / "mcp.json"
    content = {
        "mcpServers": {"fs": {"command": "fs", "scope": "shared"}},
        "gateway": {"servers": {"fs": {"scope": "client"}}, "name": "g"},
    }
    path.write_text(json.dumps(content), encoding="utf-8")
    settings = parse_settings(read_section(path), ("fs",))
    assert (settings.scopes, settings.name) == ({"fs": "client"}, "g")


def test_a_scope_that_is_none_is_named(tmp_path):
    path = tmp_path / "mcp.json"
    path.write_text(json.dumps({"mcpServers": {"fs": {"command": "fs", "scope": "all"}}}), encoding="utf-8")
    with pytest.raises(ConfigError, match=r"fs\.scope must be one of client, user, shared"):
        parse_settings(read_section(path), ("fs",))


def test_limits_are_those_of_the_file():
    section = {"limits": {"sockets": 100, "connection_idle": 0.5}}
    found = parse_settings(section, ()).limits
    assert (found.sockets, found.connection_idle, found.sessions) == (100, 0.5, Capacity.sessions)


@pytest.mark.parametrize(
    ("limits", "words"),
    [
        (5, "limits must be a mapping"),
        ({"socket": 5}, "limits: unknown key 'socket'; known: sockets, sessions"),
        ({"sockets": 1.5}, "limits.sockets must be a whole number above 0"),
        ({"sessions": 0}, "limits.sessions must be a whole number above 0"),
        ({"sessions": True}, "limits.sessions must be a whole number above 0"),
        ({"session_idle": "5 min"}, "limits.session_idle must be a number of seconds above 0"),
        ({"session_idle": float("nan")}, "limits.session_idle must be a number of seconds above 0"),
    ],
)
def test_an_unusable_limit_is_named(limits, words):
    with pytest.raises(ConfigError, match=words):
        parse_settings({"limits": limits}, ())


WHOLE = {
    "mcpServers": {
        "a": {"url": "http://x.example/mcp", "headers": {"x": "y"}, "scope": "user", "gateway": True, "timeout": 3},
        "b": {"command": "x", "args": ["y"], "env": {"A": "b"}, "cwd": "/tmp", "scope": "client"},
    },
    "gateway": {
        "name": "n",
        "servers": {"a": {"scope": "user", "gateway": True, "credentials": "shared"}, "b": {"scope": "shared"}},
        "access": {
            "keys": "keys.json",
            "issuers": [{"issuer": "https://i.example", "audience": "x", "jwks": "https://i.example/jwks"}],
            "rules": [{"who": ["*"], "servers": ["a"], "allow": ["*"], "deny": ["x"], "rate": 10, "concurrent": 5}],
        },
        "dashboard": {"actions": True},
        "audit": {"file": "audit.log", "arguments": True},
        "views": {"v": {"servers": ["a"], "allow": ["*"], "prefix": False, "name_length": 30}},
        "allowed_addresses": ["x.example"],
        "limits": {"sockets": 3, "sessions": 4},
    },
}
"""A file with something of everything."""
WRONG: list[Any] = [
    None,
    True,
    0,
    -1,
    float("inf"),
    10**400,
    "",
    "\ud800",
    [],
    [[]],
    [1],
    [None],
    {},
    {"": {}},
    {"a": 5},
]


def places(value, before=()):
    """Where something stands in a file."""
    yield before
    if isinstance(value, (dict, list)):
        for key, inside in value.items() if isinstance(value, dict) else enumerate(value):
            yield from places(inside, (*before, key))


def put(whole, place, value):
    """A copy of the file with another value in one place."""
    if not place:
        return value
    copied = dict(whole) if isinstance(whole, dict) else list(whole)
    copied[place[0]] = put(whole[place[0]], place[1:], value)
    return copied


def test_the_whole_file_is_valid(tmp_path):
    path = tmp_path / "mcp.json"
    path.write_text(json.dumps(WHOLE))
    assert loaded(path, None)[1].name == "n"


@pytest.mark.parametrize("place", list(places(WHOLE)), ids=lambda place: ".".join(map(str, place)) or "all")
def test_a_wrong_type_is_a_mistake_in_the_file(tmp_path, place):
    # A gateway reads its file while it serves: any other exception would end it.
    path = tmp_path / "mcp.json"
    for value in WRONG:
        path.write_text(json.dumps(put(WHOLE, place, value)))
        with suppress(ConfigError):
            loaded(path, None)


def test_a_half_written_file_is_a_mistake_in_it(tmp_path):
    path = tmp_path / "mcp.json"
    text = json.dumps(WHOLE)
    for end in range(0, len(text), 7):
        path.write_text(text[:end])
        with pytest.raises(ConfigError):
            loaded(path, None)


@pytest.mark.parametrize("data", [b"\xff\xfe\0", b"\0" * 100, b"[" * 100_000, b'{"a":' * 100_000], ids=range(4))
def test_a_file_of_something_else_is_a_mistake(tmp_path, data):
    path = tmp_path / "mcp.json"
    path.write_bytes(data)
    with pytest.raises(ConfigError):
        loaded(path, None)


@pytest.mark.parametrize("scopes", [[""], ["read", ""], [5], "read"])
def test_scopes_of_an_exchange_are_names(scopes):
    exchange = {"token_endpoint": "https://issuer.example/token", "scopes": scopes}
    with pytest.raises(ConfigError, match=r"gateway\.servers\.shop\.credentials\.exchange\.scopes must be a list"):
        parse_settings({"servers": {"shop": {"credentials": {"exchange": exchange}}}}, ("shop",))
