"""A canary for each inner working of the HTTP libraries that `mcpconn.sdk.http` depends on."""

from __future__ import annotations

import inspect

import httpcore2
import httpx2
import httpx2._utils
import pytest

from mcpconn.sdk.http import ProxyMap, pool_of, use_backend


def test_proxies_are_found_as_by_httpx2(monkeypatch: pytest.MonkeyPatch) -> None:
    assert callable(httpx2._utils.get_environment_proxies)
    assert httpx2._utils.URLPattern("all://*.example").matches(httpx2.URL("http://a.example/"))
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    monkeypatch.setenv("ALL_PROXY", "proxy:3128")
    monkeypatch.setenv("NO_PROXY", "excepted.example")
    assert ProxyMap().find("http://a.example/") == ("all", "http://proxy:3128")
    assert ProxyMap().find("http://excepted.example/") is None
    # Without them, urllib's rules do, which know fewer ways to write an exception.
    monkeypatch.delattr(httpx2._utils, "URLPattern")
    assert ProxyMap().find("http://a.example/") == ("all", "http://proxy:3128")
    assert ProxyMap().find("http://excepted.example/") is None


def test_a_transports_pool_takes_our_backend() -> None:
    transport, backend = httpx2.AsyncHTTPTransport(), httpcore2.AsyncMockBackend([])
    assert isinstance(pool_of(transport), httpcore2.AsyncConnectionPool)
    use_backend(transport, backend)
    assert transport._pool._network_backend is backend
    assert "self._network_backend" in inspect.getsource(httpcore2.AsyncConnectionPool.create_connection)


def test_a_transport_without_a_pool_keeps_its_own_sockets(monkeypatch: pytest.MonkeyPatch) -> None:
    transport = httpx2.AsyncHTTPTransport()
    monkeypatch.delattr(transport, "_pool")
    use_backend(transport, httpcore2.AsyncMockBackend([]))
    assert pool_of(transport) is None
