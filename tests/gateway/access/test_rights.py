"""What a rule grants, and how much at once."""

from __future__ import annotations

from pathlib import Path

import pytest

from mcpconn.errors import ConfigError
from mcpconn.gateway.access.config import parse_access
from mcpconn.gateway.access.limits import KEPT, Limits, TooMany
from mcpconn.gateway.access.rights import Rights
from mcpconn.gateway.principals import Principal

ALICE, CI = Principal("app", "https://i", "alice"), Principal("key:ci")


@pytest.mark.parametrize(
    ("who", "fits"),
    [
        (("*",), True),
        (("alice",), True),
        (("al*",), True),
        (("bob", "alice"), True),
        (("app",), True),
        (("scope:admin",), True),
        (("scope:other",), False),
        (("key:ci",), False),
        ((), False),
    ],
)
def test_a_rule_is_about_whom_it_names(who, fits):
    assert Rights(who=who).fits(ALICE, ["admin"]) is fits


def test_a_keys_holder_cannot_be_named_by_a_subject():
    assert not Rights(who=("key:ci",)).fits(Principal("", "https://i", "ci"), [])
    assert Rights(who=("key:ci",)).fits(CI, [])


def test_deny_goes_before_allow():
    rights = Rights(servers=("fs", "shop"), allow=("fs/*",), deny=("fs/delete_*",))
    assert rights.tool("fs", "read")
    assert not rights.tool("fs", "delete_all")
    assert not rights.tool("shop", "charge")
    assert not rights.tool("other", "read")
    assert rights.server("shop")


def test_a_bucket_refuses_and_fills_again():
    now = 0.0
    limits = Limits(lambda: now)
    rights = Rights(rate=2, burst=3)
    for _ in range(3):
        limits.enter(ALICE, rights)
    with pytest.raises(TooMany) as caught:
        limits.enter(ALICE, rights)
    assert caught.value.retry_after == 1
    limits.enter(CI, rights)
    now = 0.5
    limits.enter(ALICE, rights)
    with pytest.raises(TooMany):
        limits.enter(ALICE, rights)
    now = 1000.0
    for _ in range(3):
        limits.enter(ALICE, rights)


def test_requests_in_flight_are_counted():
    limits = Limits(lambda: 0.0)
    rights = Rights(concurrent=1)
    leave = limits.enter(ALICE, rights)
    with pytest.raises(TooMany, match="wait for one"):
        limits.enter(ALICE, rights)
    limits.enter(CI, rights)
    leave()
    limits.enter(ALICE, rights)


def test_memory_is_bounded_and_a_running_request_remembered():
    limits = Limits(lambda: 0.0)
    limits.enter(ALICE, Rights(concurrent=1))
    for number in range(KEPT + 10):
        limits.enter(Principal(f"key:{number}"), Rights(concurrent=1))()
    assert len(limits._uses) <= KEPT + 1
    with pytest.raises(TooMany):
        limits.enter(ALICE, Rights(concurrent=1))


@pytest.mark.parametrize(
    ("section", "said"),
    [
        ([], "gateway.access must be a mapping"),
        ({"key": "x"}, "unknown key 'key'"),
        ({"keys": 1}, "the path of a file"),
        ({"rules": {}}, "rules must be a list"),
        ({"rules": [{"whom": []}]}, r"rules\[0\]: unknown key 'whom'"),
        ({"rules": [{"who": "alice"}]}, r"rules\[0\]\.who must be a list"),
        ({"rules": [{"rate": 0}]}, r"rules\[0\]\.rate"),
        ({"rules": [{"rate": True}]}, r"rules\[0\]\.rate"),
        ({"rules": [{"concurrent": 1.5}]}, r"rules\[0\]\.concurrent"),
        ({"issuers": [{}]}, r"issuers\[0\]\.issuer must be a string"),
        ({"issuers": 1}, "issuers must be a list"),
        ({"issuers": [{"issuer": "i", "audience": "a", "jwks": "http://x/"}]}, "https"),
        ({"issuers": [{"issuer": "i", "audience": "a", "jwks": "https://x/"}] * 2}, "named twice"),
    ],
)
def test_a_mistake_in_the_file_is_named(section, said):
    with pytest.raises(ConfigError, match=said):
        parse_access(section, folder=Path())


def test_without_a_section_no_key_is_needed():
    assert not parse_access(None, folder=Path()).asks


def test_a_rule_can_name_everything_it_knows(tmp_path):
    rule: dict[str, object] = {"who": ["a"], "views": [""], "servers": ["s"], "allow": ["s/*"], "deny": []}
    rule |= {"rate": 1, "burst": 2, "concurrent": 3}
    settings = parse_access({"keys": "clients.json", "rules": [rule]}, folder=tmp_path)
    assert settings.keys is not None
    assert settings.keys.path == tmp_path / "clients.json"
    assert settings.rules == (
        Rights(who=("a",), views=("",), servers=("s",), allow=("s/*",), rate=1.0, burst=2, concurrent=3),
    )
