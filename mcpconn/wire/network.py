"""The state that the HTTP connections of one manager share: the TLS context, and the environment's proxies.

Building a TLS context is most of the cost of a bare client (measured: 60 ms and 911 KiB a connection
against 22 ms and 78 KiB with one shared). Cookies, headers, credentials and sockets are each connection's
own, so nothing leaks between servers or users, and a slow server cannot use up another's sockets.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable
from functools import cached_property

import httpx2

from mcpconn.wire.environment import Environment
from mcpconn.wire.proxied import Proxied

KEEPALIVE_EXPIRY = 4.0
"""Seconds after which an unused socket is not reused. uvicorn and node close idle sockets after 5 s: a request that is
written at that moment is lost, and its outcome is unknown. Giving up the socket earlier avoids this."""

PROBES = 3
"""TCP keep-alive probes that may remain unanswered before a connection counts as cut."""
SILENCE = 30
"""Seconds of silence before the first probe. Most NAT gateways drop a silent connection after 60 s or more."""
INTERVAL = 10
"""Seconds between two of them."""


def _socket_options() -> tuple[tuple[int, int, int], ...]:
    """Options that let the system detect that the peer has vanished silently.

    An event stream only receives, so without them it would wait indefinitely after a cable was pulled or a NAT gateway
    restarted. Linux supports all of them, macOS and Windows some.
    """
    found = [(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)]
    wanted = {
        "TCP_KEEPIDLE": SILENCE,
        "TCP_KEEPALIVE": SILENCE,  # macOS's name for it
        "TCP_KEEPINTVL": INTERVAL,
        "TCP_KEEPCNT": PROBES,
        # Milliseconds that sent data may remain unacknowledged (RFC 5482).
        "TCP_USER_TIMEOUT": (SILENCE + PROBES * INTERVAL) * 1000,
    }
    for name, value in wanted.items():
        option = getattr(socket, name, None)
        if option is not None:
            found.append((socket.IPPROTO_TCP, option, value))
    return tuple(found)


SOCKET_OPTIONS = _socket_options()


class Network:
    """Makes HTTP transports that share one TLS context."""

    def __init__(self) -> None:
        self._environment = Environment()

    @cached_property
    def tls(self) -> ssl.SSLContext:
        """The TLS context, with httpx2's defaults; made when first needed.

        Raises:
            ConfigError: the certificates that a variable names cannot be read.
        """
        return self._environment.tls()

    def transport(
        self,
        url: str,
        engine: str = "direct",
        *,
        tls: Callable[[], ssl.SSLContext] | None = None,
        learn: Callable[[str], None] = lambda secret: None,
    ) -> httpx2.AsyncBaseTransport:
        """A transport for one connection to `url`, with its own sockets.

        Args:
            url: The server.
            tls: The TLS context for this server alone; None: the one that all share.
            engine: `direct` for the project's own (`wire.engine`), `httpx` for httpx2's. Only the latter supports
                proxies, and it is used whenever there is one.
            learn: Called with the secrets of the proxy.

        Raises:
            ConfigError: a setting of the environment that is for this URL cannot be used.
        """
        proxy = self._environment.proxy_for(url)
        tls = tls or (lambda: self.tls)
        if url.startswith("https"):
            # Done now, so that an invalid setting is not detected in the middle of a request.
            tls()
        # Both are imported with the first connection that needs them, as httpx2 does with httpcore2: h11 takes a while.
        if engine == "direct" and proxy is None:
            from mcpconn.wire.engine.pool import Engine

            return Engine(tls, keepalive_expiry=KEEPALIVE_EXPIRY, socket_options=SOCKET_OPTIONS)
        from mcpconn.wire.library import Library

        through = proxy.url if proxy is not None else None
        library = Library(tls(), keepalive_expiry=KEEPALIVE_EXPIRY, proxy=through, socket_options=SOCKET_OPTIONS)
        if proxy is None:
            return library
        for secret in proxy.secrets:
            learn(secret)
        return Proxied(library, proxy)
