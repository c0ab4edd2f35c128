"""Requests through a proxy: failures of the proxy are attributed to the proxy, not to the server behind it."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from typing import Any

import httpx2

from mcpconn.core.failures import Trouble
from mcpconn.wire.environment import ProxySetting
from mcpconn.wire.reasons import place

UNABLE = range(500, 600)
"""Statuses of a proxy that could not reach the server. All others are about the proxy's own rules."""


class ProxyRefused(httpx2.ProxyError):
    """The proxy does not let this request through."""

    trouble = Trouble.PROXY_REFUSED


class Proxied(httpx2.AsyncBaseTransport):
    """A transport whose requests go through a proxy."""

    reports_writes = True

    def __init__(self, inner: Any, setting: ProxySetting) -> None:
        """
        Args:
            inner: Sends through the proxy.
            setting: The proxy.
        """
        self._inner = inner
        self._setting = setting
        url = httpx2.URL(setting.url)
        self._place = place(url.host, url.port or {"http": 80, "https": 443}.get(url.scheme, 1080))

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        failed: httpx2.TransportError
        try:
            response: httpx2.Response = await self._inner.handle_async_request(request)
            return response
        except httpx2.ProxyError as error:
            failed = self._refused(str(error))
        except (httpx2.ConnectError, httpx2.ConnectTimeout) as error:
            if not str(error).startswith(self._place):
                # The proxy worked: the server is unreachable, or its certificate is wrong.
                raise
            failed = type(error)(f"{self._setting}: {str(error).removeprefix(f'{self._place}: ')}")
        raise failed

    def _refused(self, text: str) -> httpx2.TransportError:
        status, _, reason = text.partition(" ")
        said = f"HTTP {status} {reason}".strip() if status.isdigit() else text
        if status.isdigit() and int(status) in UNABLE:
            return httpx2.ConnectError(f"{self._setting} could not connect to the server: {said}")
        hint = f"; give its user and password in {self._setting.variable}" if status == "407" else ""
        return ProxyRefused(f"{self._setting} refused the connection: {said}{hint}")

    def tended(self) -> AbstractAsyncContextManager[None]:
        """For the time of a session, as `Library.tended`."""
        tended: AbstractAsyncContextManager[None] = self._inner.tended()
        return tended

    async def aclose(self) -> None:
        await self._inner.aclose()
