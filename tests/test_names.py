"""Public names are one-to-one, legal, stable, and resolve to where they came from."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcpconn.names import (
    DEFAULT_LENGTH,
    SHORTEST_LENGTH,
    Table,
    public_name,
    public_uri,
    split_name,
    split_uri,
    uri_label,
)

# Short texts over few characters meet each other; the others find what nobody thought of.
texts = st.one_of(st.text("ab_-", min_size=1, max_size=6), st.text(min_size=1, max_size=80))
pairs = st.tuples(texts, texts)
limits = st.integers(SHORTEST_LENGTH, 80)


@given(st.lists(pairs, unique=True, min_size=2, max_size=12), limits)
def test_two_tools_never_share_a_name(tools, limit):
    names = {public_name(server, tool, limit=limit) for server, tool in tools}
    assert len(names) == len(tools)


@given(pairs, limits)
def test_a_name_is_legal_and_fits(pair, limit):
    name = public_name(*pair, limit=limit)
    assert re.fullmatch(r"[A-Za-z0-9_-]+", name)
    assert len(name) <= limit


@given(pairs)
def test_a_plain_name_splits_into_its_parts(pair):
    name = public_name(*pair)
    assert split_name(name) in (None, pair)


@given(st.lists(pairs, unique=True, max_size=12))
def test_what_is_published_resolves(tools):
    table = Table({server for server, _ in tools})
    for server, tool in tools:
        assert table.resolve(table.publish(server, [tool])[tool]) == (server, tool)


@given(texts)
def test_only_names_made_here_are_known(text):
    table = Table(["a", "b"])
    found = table.resolve(text)
    assert found is None or table.name(*found) == text


@pytest.mark.parametrize(
    ("server", "tool", "name"),
    [
        ("fs", "read_file", "fs__read_file"),
        ("a", "b__c", "a__b__c"),
        ("fs", "_hidden", "fs___hidden"),
    ],
)
def test_an_ordinary_name_is_readable(server, tool, name):
    assert public_name(server, tool) == name


@pytest.mark.parametrize(
    ("server", "tool"),
    [
        ("a__b", "c"),
        ("a_", "b"),
        ("fs", "x" * 64),
        ("my server", "tool"),
        ("fs", "read.file"),
        ("fs", "look-xabcdefghijkl"),
    ],
)
def test_illegal_names_are_hashed(server, tool):
    assert re.fullmatch(r".+-x[a-z2-7]{12}", public_name(server, tool))


def test_names_are_the_same_in_every_process():
    assert public_name("my server", "tool") == "my_server__tool-xdzix2jmisbrd"
    assert uri_label("My Server") == "my-server-xbzpxjassayoq"


@given(st.lists(st.tuples(texts, st.sampled_from(["file:///x", "a+b:c", "x"])), unique=True, max_size=12))
def test_two_resources_never_share_a_uri(resources):
    table = Table({server for server, _ in resources})
    uris = {table.uri(server, uri) for server, uri in resources}
    assert len(uris) == len(resources)
    assert all(table.resolve_uri(table.uri(*each)) == each for each in resources)


@given(texts, st.text(max_size=20))
def test_a_uri_gets_a_scheme_and_stays(server, uri):
    public = public_uri(server, f"file:{uri}")
    assert re.match(r"[a-z][a-z0-9+.-]*:", public)
    assert split_uri(public) == (uri_label(server), f"file:{uri}")


def test_a_view_of_one_server_keeps_names():
    table = Table(["fs"], prefix=False)
    assert table.publish("fs", ["read.file"]) == {"read.file": "read.file"}
    assert table.resolve("read.file") == ("fs", "read.file")
    assert table.resolve_uri("file:///x") == ("fs", "file:///x")


def test_two_servers_need_a_prefix():
    with pytest.raises(ValueError, match="exactly one server"):
        Table(["a", "b"], prefix=False)


def test_a_limit_must_leave_room_for_a_hash():
    with pytest.raises(ValueError, match=f"at least {SHORTEST_LENGTH}"):
        Table(["a"], limit=SHORTEST_LENGTH - 1)
    assert DEFAULT_LENGTH >= SHORTEST_LENGTH


def test_a_colliding_name_is_left_out(monkeypatch):
    monkeypatch.setattr("mcpconn.names._digest", lambda *_: "a" * 12)
    table = Table(["a b"])
    assert table.publish("a b", ["t", "t!"]) == {"t": "a_b__t-xaaaaaaaaaaaa"}
    assert table.resolve("a_b__t-xaaaaaaaaaaaa") == ("a b", "t")
