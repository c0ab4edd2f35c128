"""The keys of a token issuer (RFC 7517), fetched without unnecessary waits.

The old keys remain in use while the issuer is unreachable. A token with an unknown key id has them fetched again, at
most once in `APART` seconds, so that forged tokens cannot cause a flood of requests.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from urllib.parse import urlsplit

import anyio
import httpx2
from jwt import PyJWK, PyJWKSet
from jwt.exceptions import PyJWTError

from mcpconn.errors import ConfigError
from mcpconn.gateway.access.credentials import NotNow, Refused
from mcpconn.loopback import LOOPBACK
from mcpconn.observe import log

APART = 30.0
"""Seconds between two fetches for the sake of an unknown key id."""
FRESH = 600.0
"""Seconds after which the keys are fetched again: a key that the issuer has withdrawn is refused after that."""
TIMEOUT = 5.0
"""Seconds that a fetch may take."""
LARGEST = 256 * 1024
"""Bytes of a key set."""

UNUSABLE = (OSError, httpx2.HTTPError, PyJWTError, ValueError, TypeError, AttributeError, RecursionError)
"""What comes of a key set that cannot be fetched, or is none. The network's time-outs are OSErrors."""

Fetch = Callable[[str], Awaitable[bytes]]


class KeySet:
    """The keys at one URL."""

    def __init__(self, url: str, *, fetch: Fetch | None = None, now: Callable[[], float] = anyio.current_time) -> None:
        """
        Args:
            url: Of the key set. https, or http on this machine.
            fetch: Reads a URL; for tests.
            now: Monotonic seconds.

        Raises:
            ConfigError: the URL is not safe to take keys from.
        """
        check_url(url, "jwks")
        self.url = url
        self._fetch = fetch or fetch_document
        self._now = now
        self._keys: dict[str | None, PyJWK] = {}
        self._loaded: float | None = None
        self._tried: float | None = None
        self._lock: anyio.Lock | None = None

    async def key(self, kid: str | None) -> PyJWK:
        """The key of an id. Without an id, the only key there is.

        Raises:
            Refused: the issuer has no such key.
            NotNow: its keys were never loaded.
        """
        if self._loaded is None:
            await self._load(apart=1.0)
        elif self._now() - self._loaded >= FRESH:
            await self._load(apart=APART)
        if (found := self._find(kid)) is None:
            await self._load(apart=APART)
            found = self._find(kid)
        if self._loaded is None:
            raise NotNow("the issuer's keys could not be loaded")
        if found is None:
            raise Refused("the token's key is not one of its issuer's")
        return found

    def _find(self, kid: str | None) -> PyJWK | None:
        if kid is None:
            return next(iter(self._keys.values())) if len(self._keys) == 1 else None
        return self._keys.get(kid)

    async def _load(self, *, apart: float) -> None:
        """Fetch the keys, unless that was tried within `apart` seconds. What fails leaves the old ones."""
        if self._lock is None:
            self._lock = anyio.Lock()
        async with self._lock:
            if self._tried is not None and self._now() - self._tried < apart:
                return
            self._tried = self._now()
            try:
                with anyio.fail_after(TIMEOUT):
                    content = await self._fetch(self.url)
                keys = PyJWKSet.from_dict(json.loads(content)).keys
            except UNUSABLE as error:
                # The type alone: a text could quote what was fetched.
                log.warning("gateway.jwks_unavailable", url=self.url, error=type(error).__name__)
                return
            self._keys = {each.key_id: each for each in keys}
            self._loaded = self._now()


async def fetch_document(url: str) -> bytes:
    """Read a small document: without redirects, which could lead into a private network, and with a limit.

    Raises:
        ValueError: it is too large, or the answer is not 200.
        httpx2.HTTPError: it could not be fetched.
    """
    async with (
        httpx2.AsyncClient(follow_redirects=False, timeout=TIMEOUT) as client,
        client.stream("GET", url, headers={"accept": "application/json"}) as answer,
    ):
        if answer.status_code != 200:
            raise ValueError(f"HTTP {answer.status_code}")
        content = b""
        async for chunk in answer.aiter_bytes():
            content += chunk
            if len(content) > LARGEST:
                raise ValueError("too large")
        return content


def check_url(url: object, key: str) -> None:
    """A URL from which trust is taken: https, or http on this machine.

    Raises:
        ConfigError: it is neither.
    """
    parts = urlsplit(url) if isinstance(url, str) else None
    if parts is None or not parts.hostname or parts.username or parts.password:
        raise ConfigError(f"gateway.access: {key} must be an https:// URL without credentials in it", key=key)
    if parts.scheme != "https" and not (parts.scheme == "http" and parts.hostname in LOOPBACK):
        raise ConfigError(f"gateway.access: {key} must be https://; http:// is for this machine alone", key=key)
