"""Keys of clients: made once, kept as hashes, taken back while the gateway runs."""

from __future__ import annotations

import json
import stat

import pytest

from mcpconn.errors import ConfigError
from mcpconn.gateway.access.credentials import Refused
from mcpconn.gateway.access.keys import KeyFile
from mcpconn.gateway.principals import Principal


@pytest.fixture
def keys(tmp_path):
    return KeyFile(tmp_path / "state" / "clients.json", wall=lambda: 0.0)


def test_a_key_is_known_by_its_hash_alone(keys):
    made = keys.add("ci")
    assert keys.identify(made).principal == Principal("key:ci")
    assert made.removeprefix("mck_") not in keys.path.read_text()
    assert stat.S_IMODE(keys.path.stat().st_mode) == 0o600
    assert json.loads(keys.path.read_text())["keys"][0]["made"] == "1970-01-01T00:00:00Z"


def test_a_removed_key_opens_nothing(keys):
    made, other = keys.add("ci"), keys.add("ann")
    running = KeyFile(keys.path)
    running.identify(made)
    keys.remove("ci")
    with pytest.raises(Refused):
        running.identify(made)
    assert running.identify(other).principal == Principal("key:ann")
    assert running.names() == ["ann"]


@pytest.mark.parametrize("key", ["", "mck_", "mck_x", "\ud800", "ci"])
def test_an_unknown_key_is_refused(keys, key):
    keys.add("ci")
    with pytest.raises(Refused) as caught:
        keys.identify(key)
    assert key == "" or key not in str(caught.value)


@pytest.mark.parametrize("name", ["", "a b", "a/b", "a" * 65, "a\n", 'a"'])
def test_a_name_is_readable_and_short(keys, name):
    with pytest.raises(ConfigError, match="name"):
        keys.add(name)


def test_a_name_is_taken_once(keys):
    keys.add("ci")
    with pytest.raises(ConfigError, match="remove it first"):
        keys.add("ci")
    with pytest.raises(ConfigError, match="known: ci"):
        keys.remove("nobody")


@pytest.mark.parametrize(
    "content", ["", "[]", "{}", '{"keys": [1]}', '{"keys": [{"name": 1, "sha256": ""}]}', "[" * 9999]
)
def test_with_a_broken_file_all_are_refused(keys, content):
    made = keys.add("ci")
    keys.identify(made)
    keys.path.write_text(content)
    with pytest.raises(ConfigError, match=r"clients\.json"):
        keys.identify(made)


def test_without_a_file_there_are_no_keys(keys):
    assert keys.names() == []
    with pytest.raises(Refused):
        keys.identify("mck_anything")
