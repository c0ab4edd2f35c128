"""Private parts of the SDK's HTTP libraries (httpx2, httpcore2)."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import httpx2
import httpx2._utils

NOT_WRITTEN = (
    httpx2.ConnectError,
    httpx2.ConnectTimeout,
    httpx2.PoolTimeout,
    httpx2.ProxyError,
    httpx2.UnsupportedProtocol,
    httpx2.LocalProtocolError,
)
"""Errors of httpx2 that are raised before the first byte of a request."""


def pool_of(transport: httpx2.AsyncHTTPTransport) -> Any | None:
    """The connection pool (`httpcore2.AsyncConnectionPool`) under a transport of httpx2.

    Its idle connections have to be closed when the server has closed them, and httpcore2 checks them only when another
    request is made.
    """
    return getattr(transport, "_pool", None)


def use_backend(transport: httpx2.AsyncHTTPTransport, backend: Any) -> None:
    """Have a transport of httpx2 open its sockets with `backend` (`httpcore2.AsyncNetworkBackend`).

    httpcore2's pool accepts one as an argument, but httpx2 does not pass one on.
    """
    pool: Any = pool_of(transport)
    if hasattr(pool, "_network_backend"):
        pool._network_backend = backend


class ProxyMap:
    """The environment's proxies and exceptions, by the rules of httpx2's client, which does not expose them."""

    def __init__(self) -> None:
        read = getattr(httpx2._utils, "get_environment_proxies", None)
        pattern = getattr(httpx2._utils, "URLPattern", None)
        self._entries: list[tuple[Any, str | None]] | None = None
        if callable(read) and callable(pattern):
            # Sorted as in the client: the most specific pattern first.
            entries = [(pattern(key), proxy) for key, proxy in read().items()]
            self._entries = sorted(entries, key=lambda entry: entry[0])

    def find(self, url: str) -> tuple[str, str] | None:
        """The scheme whose variable names the proxy for `url` (`http`, `https`, `all`), and the proxy's URL."""
        if self._entries is None:
            return self._by_urllib(url)
        target = httpx2.URL(url)
        for pattern, proxy in self._entries:
            if pattern.matches(target):
                return None if proxy is None else (pattern.scheme or "all", proxy)
        return None

    def _by_urllib(self, url: str) -> tuple[str, str] | None:
        parts, found = urlsplit(url), getproxies()
        for scheme in (parts.scheme, "all"):
            if found.get(scheme) and not proxy_bypass(parts.hostname or ""):
                proxy = found[scheme]
                return scheme, proxy if "://" in proxy else f"http://{proxy}"
        return None
