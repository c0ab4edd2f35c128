"""Where a store is, from a URL."""

from __future__ import annotations

import pytest

from mcpconn.errors import ConfigError
from mcpconn.redis.address import Address


@pytest.mark.parametrize(
    ("url", "kind", "hosts", "tls"),
    [
        ("redis://one", "single", (("one", 6379),), False),
        ("rediss://one:7000/3", "single", (("one", 7000),), True),
        ("redis://[::1]:7000", "single", (("::1", 7000),), False),
        ("redis://[::1]", "single", (("::1", 6379),), False),
        ("redis+cluster://a:1,b", "cluster", (("a", 1), ("b", 6379)), False),
        ("rediss+sentinel://a,b:1/main", "sentinel", (("a", 26379), ("b", 1)), True),
    ],
)
def test_a_url_names_servers(url, kind, hosts, tls):
    address = Address.parse(url)
    assert (address.kind, address.hosts, address.tls) == (kind, hosts, tls)


def test_a_url_names_user_and_database():
    address = Address.parse("redis://us%3Aer:pa%40ss@one/3?prefix=gw")
    assert (address.user, address.password, address.database, address.prefix) == ("us:er", "pa@ss", 3, "gw")
    sentinel = Address.parse("redis+sentinel://one/main/2?sentinel_user=s")
    assert (sentinel.service, sentinel.database, sentinel.sentinel_user) == ("main", 2, "s")


def test_a_password_can_be_in_a_file(tmp_path):
    (tmp_path / "password").write_text("from the file\n")
    address = Address.parse(f"redis://user@one?password_file={tmp_path / 'password'}")
    assert address.password == "from the file"
    with pytest.raises(ConfigError, match="password file"):
        Address.parse(f"redis://one?password_file={tmp_path / 'missing'}")


def test_no_password_is_shown():
    address = Address.parse("redis://user:canary@one")
    assert "canary" not in f"{address} {address!r}"


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("http://one", "scheme"),
        ("redis+other://one", "scheme"),
        ("redis://", "host"),
        ("redis://one:port", "host"),
        ("redis://one:70000", "host"),
        ("redis://[one", "not a URL"),
        ("redis://one/first", "number of a database"),
        ("redis+sentinel://one", "name the service"),
        ("redis+cluster://one/2", "no database but 0"),
        ("redis://one?timeout=3", "unknown option"),
        ("redis://one?prefix={x}", "prefix"),
    ],
)
def test_a_url_that_cannot_be_used_says_why(url, why):
    with pytest.raises(ConfigError, match=why):
        Address.parse(url)


def test_certificates_that_cannot_be_read_are_named(tmp_path):
    assert Address.parse("redis://one").ssl_context() is None
    assert Address.parse("rediss://one").ssl_context() is not None
    with pytest.raises(ConfigError, match="certificates"):
        Address.parse(f"rediss://one?ca={tmp_path / 'missing'}").ssl_context()
