"""The environment's proxies: whose requests go through them, whose do not, and what is said when they fail."""

from __future__ import annotations

import json
import logging
from importlib.metadata import version
from typing import Any

import anyio
import httpx2
import pytest

from mcpconn import Connection, FailureKind, Policy
from mcpconn.errors import CallFailed, ConfigError, ConnectionFailed
from mcpconn.testing import HttpServer, Script
from mcpconn.wire.environment import Environment
from mcpconn.wire.network import Network
from mcpconn.wire.proxied import Proxied
from tests.certificates import made
from tests.support import SAFETY, text_of
from tests.wire.forward import ForwardProxy, TlsFront
from tests.wire.sockets import free_port
from tests.wire.test_reachability import ONCE, failing, trusted, unset

__all__ = ["trusted", "unset"]

pytestmark = pytest.mark.anyio

TOKEN = "tok-1234567890-abcdef"
PASSWORD = "correct-horse-battery"


def environment(monkeypatch: pytest.MonkeyPatch, **variables: str) -> Environment:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    return Environment()


@pytest.mark.parametrize(
    ("variables", "url", "expected"),
    [
        ({"HTTP_PROXY": "http://p:3128"}, "http://server.example/mcp", "http://p:3128"),
        ({"HTTP_PROXY": "p:3128"}, "http://server.example/mcp", "http://p:3128"),
        ({"http_proxy": "p:3128"}, "http://server.example/mcp", "http://p:3128"),
        ({"HTTP_PROXY": " http://p:3128 "}, "http://server.example/mcp", "http://p:3128"),
        ({"HTTP_PROXY": "p:3128"}, "https://server.example/mcp", None),
        ({"HTTPS_PROXY": "p:3128"}, "https://server.example/mcp", "http://p:3128"),
        ({"ALL_PROXY": "p:3128"}, "https://server.example/mcp", "http://p:3128"),
        ({"ALL_PROXY": "a:1", "HTTPS_PROXY": "p:3128"}, "https://server.example/mcp", "http://p:3128"),
        ({}, "http://server.example/mcp", None),
    ],
)
def test_a_proxy_is_found_by_scheme(
    variables: dict[str, str], url: str, expected: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = environment(monkeypatch, **variables).proxy_for(url)
    assert (found.url if found else None) == expected


KNOWS_WILDCARDS = tuple(map(int, version("httpx2").split(".")[:2])) > (2, 14)
"""2.14, the last release for Python 3.10, takes the asterisk of `*.host` literally; 2.16 does not."""
EXCEPTIONS = [
    ("server.example", "http://server.example/mcp", True),
    ("server.example", "http://sub.server.example/mcp", True),
    ("server.example", "http://myserver.example/mcp", False),
    (".server.example", "http://sub.server.example/mcp", True),
    ("*.server.example", "http://sub.server.example/mcp", KNOWS_WILDCARDS),
    ("*.server.example", "http://server.example/mcp", False),
    ("server.example:8080", "http://server.example:8080/mcp", True),
    ("server.example:8080", "http://server.example:9090/mcp", False),
    ("10.0.0.0/8", "http://10.1.2.3/mcp", True),
    ("10.0.0.0/8", "http://11.1.2.3/mcp", False),
    ("127.0.0.1", "http://127.0.0.1:8000/mcp", True),
    ("127.0.0.0/8", "http://127.0.0.1:8000/mcp", True),
    ("::1", "http://[::1]:8000/mcp", True),
    ("[::1]", "http://[::1]:8000/mcp", True),
    ("[::1]:8000", "http://[::1]:8000/mcp", True),
    ("[::1]:8000", "http://[::1]:9000/mcp", False),
    ("fd00::/8", "http://[fd12::1]/mcp", True),
    ("localhost", "http://localhost:8000/mcp", True),
    ("*", "http://server.example/mcp", True),
    ("a.example, server.example ,b.example", "http://server.example/mcp", True),
    ("https://server.example", "http://server.example/mcp", False),
    ("http://server.example", "http://server.example/mcp", True),
    ("300.0.0.0/99,[bad", "http://server.example/mcp", False),
]


@pytest.mark.parametrize(("no_proxy", "url", "excepted"), EXCEPTIONS)
def test_no_proxy_excepts_as_in_httpx2(
    no_proxy: str, url: str, excepted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = environment(monkeypatch, ALL_PROXY="p:3128", NO_PROXY=no_proxy).proxy_for(url)
    assert (found is None) is excepted


@pytest.mark.parametrize(("no_proxy", "url", "excepted"), EXCEPTIONS)
def test_those_are_its_own_clients_rules(
    no_proxy: str, url: str, excepted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ALL_PROXY", "http://p:3128")
    monkeypatch.setenv("NO_PROXY", no_proxy)
    client = httpx2.AsyncClient(verify=made()[0])
    chosen = client._transport_for_url(httpx2.URL(url))
    assert (chosen is client._transport) is excepted


@pytest.mark.parametrize(
    ("variable", "value", "says"),
    [
        ("HTTP_PROXY", "htp://p:3128", "HTTP_PROXY=htp://p:3128 is not the URL of a proxy, such as http://host:port"),
        ("HTTP_PROXY", "http://p:99999", "HTTP_PROXY=http://p:99999 is not the URL of a proxy"),
        ("HTTP_PROXY", "http://[bad", "HTTP_PROXY=*** is not the URL of a proxy"),
        ("HTTP_PROXY", "http://:3128", "HTTP_PROXY=http://:3128 names no host"),
        ("all_proxy", f"socks5://u:{PASSWORD}@p:1080", "all_proxy=socks5://p:1080 is a SOCKS proxy, which needs"),
        ("ALL_PROXY", f"ftp://u:{PASSWORD}@p", "ALL_PROXY=ftp://p is not the URL"),
    ],
)
async def test_a_bad_setting_blames_no_server(
    variable: str, value: str, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(ConfigError) as caught:
        Environment().proxy_for("http://server.example/mcp")
    assert says in str(caught.value)
    assert PASSWORD not in str(caught.value)
    error = await failing("http://server.example/mcp", "direct", Policy())
    assert f"its configuration cannot be used ({variable}=" in str(error)
    assert (error.failure.kind, error.retry_in) == (FailureKind.CONFIG, None)
    assert PASSWORD not in str(error)


async def test_a_bad_setting_does_not_trouble_those_whom_it_is_not_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "htp://p:3128")
    monkeypatch.setenv("HTTP_PROXY", "htp://p:3128")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    async with HttpServer(Script()) as server, Connection({"url": server.url}, name="srv") as connection:
        assert text_of(await connection.call_tool("add", {"a": 1, "b": 1})) == "2"


@pytest.mark.parametrize("excepted", [True, False])
async def test_credentials_do_not_go_through_a_proxy_that_is_excepted(
    excepted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ForwardProxy() as proxy, anyio.fail_after(SAFETY):
        async with HttpServer(Script(get_stream="405")) as server:
            monkeypatch.setenv("HTTP_PROXY", f"127.0.0.1:{proxy.port}")
            monkeypatch.setenv("NO_PROXY", "127.0.0.0/8" if excepted else "10.0.0.0/8")
            async with Connection({"url": server.url, "auth": TOKEN}, name="srv") as connection:
                assert text_of(await connection.call_tool("add", {"a": 1, "b": 1})) == "2"
            assert (f"POST {server.url}" in proxy.asked) is not excepted
    assert (f"Bearer {TOKEN}" in proxy.authorizations) is not excepted


async def test_tls_goes_through_a_tunnel(monkeypatch: pytest.MonkeyPatch, trusted: Any) -> None:
    serving, public = made()
    trusted(public)
    async with HttpServer(Script()) as server:
        with ForwardProxy() as proxy, TlsFront(serving, server.port) as front, anyio.fail_after(SAFETY):
            monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{proxy.port}")
            entry = {"url": f"https://127.0.0.1:{front.port}/mcp", "auth": TOKEN}
            async with Connection(entry, name="srv") as connection:
                assert text_of(await connection.call_tool("add", {"a": 1, "b": 1})) == "2"
            assert set(proxy.asked) == {f"CONNECT 127.0.0.1:{front.port}"}
            assert set(proxy.authorizations) == {""}


async def test_a_bad_tunnelled_certificate_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    async with HttpServer(Script()) as server:
        with ForwardProxy() as proxy, TlsFront(made()[0], server.port) as front:
            monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{proxy.port}")
            error = await failing(f"https://127.0.0.1:{front.port}/mcp", "direct", Policy())
    assert "127.0.0.1: the certificate is not trusted: self-signed certificate" in str(error)
    assert error.failure.kind is FailureKind.CONFIG


@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_a_proxy_that_wants_a_password_is_a_matter_of_configuration(
    scheme: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ForwardProxy(credentials="user:another") as proxy:
        monkeypatch.setenv("ALL_PROXY", f"http://user:{PASSWORD}@127.0.0.1:{proxy.port}")
        error = await failing(f"{scheme}://127.0.0.1:9/mcp", "direct", Policy())
    assert "HTTP 407" in str(error)
    if scheme == "https":
        assert f"the proxy http://127.0.0.1:{proxy.port} (ALL_PROXY) refused the connection" in str(error)
        assert "give its user and password in ALL_PROXY" in str(error)
    else:
        assert "the proxy requires other credentials" in str(error)
        assert "it wants Basic credentials" in str(error)
        assert "the office" not in str(error)
    assert (error.failure.kind, error.outcome) == (FailureKind.CONFIG, "not_run")
    assert PASSWORD not in str(error)


async def test_a_proxy_with_a_password_is_passed_and_it_is_not_shown(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, logger="mcpconn")
    with ForwardProxy(credentials=f"user:{PASSWORD}") as proxy, anyio.fail_after(SAFETY):
        async with HttpServer(Script(get_stream="405")) as server:
            monkeypatch.setenv("HTTP_PROXY", f"http://user:{PASSWORD}@127.0.0.1:{proxy.port}")
            async with Connection({"url": server.url}, name="srv", policy=ONCE) as connection:
                assert text_of(await connection.call_tool("add", {"a": 1, "b": 1})) == "2"
                # A server, or the proxy, that says the password back: the connection's redactor knows it.
                assert connection._redact(f"user:{PASSWORD} is not welcome") == "*** is not welcome"
                shown = [json.dumps(connection.status()), caplog.text]
    assert not any(PASSWORD in text for text in shown)


async def test_a_proxy_that_does_not_answer_is_blamed_and_not_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    port = await free_port()
    monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{port}")
    error = await failing("http://server.example/mcp", "direct")
    assert f"the proxy http://127.0.0.1:{port} (HTTP_PROXY): connection refused" in str(error)
    assert error.failure.kind is FailureKind.UNAVAILABLE


@pytest.mark.parametrize(
    ("status", "says", "kind"),
    [
        (403, "refused the connection: HTTP 403 Forbidden", FailureKind.CONFIG),
        (502, "could not connect to the server: HTTP 502 Bad Gateway", FailureKind.UNAVAILABLE),
        (503, "could not connect to the server: HTTP 503 Service Unavailable", FailureKind.UNAVAILABLE),
    ],
)
async def test_a_proxys_words_on_a_tunnel_are_told(
    status: int, says: str, kind: FailureKind, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ForwardProxy() as proxy:
        proxy.status = status
        monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{proxy.port}")
        error = await failing("https://server.example/mcp", "direct")
        assert f"the proxy http://127.0.0.1:{proxy.port} (HTTPS_PROXY) {says}" in str(error)
    assert error.failure.kind is kind


async def test_a_proxy_that_changes_its_password_ends_in_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every call would be refused: the connection must not stay ready."""
    with ForwardProxy() as proxy, anyio.fail_after(SAFETY):
        async with HttpServer(Script(get_stream="405")) as server:
            monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{proxy.port}")
            async with Connection({"url": server.url}, name="srv", policy=ONCE) as connection:
                proxy.status = 407
                with pytest.raises(CallFailed, match="HTTP 407"):
                    await connection.call_tool("add", {"a": 1, "b": 1})
                with pytest.raises(ConnectionFailed, match="the proxy requires other credentials"):
                    while True:
                        await connection.call_tool("add", {"a": 1, "b": 1})


async def test_the_authorization_server_has_its_own_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("NO_PROXY", "mcp.example")
    network = Network()
    excepted, other = network.transport("http://mcp.example/mcp"), network.transport("http://as.example/token")
    assert not isinstance(excepted, Proxied)
    assert isinstance(other, Proxied)
    for each in (excepted, other):
        await each.aclose()
