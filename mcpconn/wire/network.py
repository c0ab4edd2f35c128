"""What the HTTP connections of one manager share: the TLS context, and the environment's proxies.

Building a TLS context is most of the cost of a bare client (measured: 60 ms and 911 KiB a connection
against 22 ms and 78 KiB with one shared). Cookies, headers, credentials and sockets are each connection's
own, so nothing leaks between servers or users, and a slow server cannot use up another's sockets.
"""

from __future__ import annotations

import ssl
from functools import cached_property
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import httpx2

KEEPALIVE_EXPIRY = 4.0
"""Seconds after which an unused socket is not used again. uvicorn and node close theirs after 5 s: a request that
is written in that very moment is lost, and nobody can say whether it was. Giving the socket up first avoids it."""


class Network:
    """Makes HTTP transports that share one TLS context."""

    @cached_property
    def tls(self) -> ssl.SSLContext:
        """The TLS context, with httpx2's defaults; made when first needed."""
        return httpx2.create_ssl_context()

    @cached_property
    def proxies(self) -> dict[str, str]:
        """The environment's proxies (HTTPS_PROXY and so on), by scheme. Read once: that takes half a millisecond."""
        return getproxies()

    def proxy_for(self, url: str) -> str | None:
        """The proxy that the environment names for `url`, unless NO_PROXY excepts it."""
        parts = urlsplit(url)
        proxy = self.proxies.get(parts.scheme) or self.proxies.get("all")
        return None if proxy is None or proxy_bypass(parts.hostname or "") else proxy

    def transport(self, url: str, engine: str = "direct") -> httpx2.AsyncBaseTransport:
        """A transport for one connection to `url`, with sockets of its own.

        Args:
            url: The server.
            engine: `direct` for the project's own (`wire.engine`), `httpx` for httpx2's. Proxies are known
                to the latter alone, and it is taken wherever there is one.
        """
        proxy = self.proxy_for(url)
        if engine == "direct" and proxy is None:
            # Imported with the first connection that needs it, as httpx2 does with httpcore2: h11 takes a while.
            from mcpconn.wire.engine import Engine

            return Engine(lambda: self.tls, keepalive_expiry=KEEPALIVE_EXPIRY)
        # The number of sockets is bounded by the calls in flight; a pool limit below it could only deadlock
        # against the standalone event streams, which hold a socket for as long as the session lives.
        limits = httpx2.Limits(max_connections=None, max_keepalive_connections=None, keepalive_expiry=KEEPALIVE_EXPIRY)
        options: dict[str, Any] = {"verify": self.tls, "limits": limits}
        if proxy is not None:
            options["proxy"] = proxy
        return httpx2.AsyncHTTPTransport(**options)


class Borrowed(httpx2.AsyncBaseTransport):
    """A transport that outlives the client it is lent to: sessions come and go, sockets stay."""

    def __init__(self, inner: httpx2.AsyncBaseTransport) -> None:
        self._inner = inner

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        return await self._inner.handle_async_request(request)
