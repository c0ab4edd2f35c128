"""Tokens in Redis, shared between processes on any machines."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from typing_extensions import Self

from mcpconn.auth.credentials import CredentialsRefused, CredentialsUnavailable
from mcpconn.auth.shared import LIFETIME, SharedTokens
from mcpconn.redis.address import Address
from mcpconn.redis.link import Link, RedisUnavailable
from mcpconn.redis.records import hashed, milliseconds, record_keys
from mcpconn.redis.scripts import ADD, GET, SWAP
from mcpconn.redis.standing import Standing

if TYPE_CHECKING:
    from mcpconn.seal import Sealer


class RedisTokenStorage(SharedTokens):
    """A `TokenStore` and the SDK's `TokenStorage`, in Redis or Valkey, for one server and one user.

        async with RedisTokenStorage("rediss://redis:6379", "alice https://mcp.example.com", keys=[key]) as storage:
            provider = OAuthClientProvider(url, metadata, storage)

    Processes on any machines may share it. One process sends a refresh token, and only after the server has durably
    stored a mark; nothing is sent if the server is unreachable. Redis has no lock that proves that a holder has died,
    so if a mark remains for a minute, a new login is needed. The server must persist (`appendonly yes`, best with
    `appendfsync always`) and must not evict, or no token is refreshed.
    """

    def __init__(
        self, redis: str | RedisTokenStorage, name: str, *, keys: Sequence[bytes] = (), may_lose: bool = False
    ) -> None:
        """
        Args:
            redis: A URL (see `mcpconn.redis.address`); or a storage that is entered, whose connection and keys this
                one shares.
            name: Name of the login: different for each user and server.
            keys: Secrets of 32 random bytes that the tokens are sealed with, the same for all processes: the first one
                seals, all of them open.
            may_lose: Refresh even if the server evicts or does not persist.

        Raises:
            ConfigError: the URL or the keys cannot be used, or coredis is not installed.
        """
        # Not at the top: it loads a library of ciphers, which most programs that import mcpconn.auth do not need.
        from mcpconn.seal import KeyRing, NotSealedHere

        self._not_sealed = NotSealedHere
        self._link: Link
        self._sealer: Sealer
        if isinstance(redis, RedisTokenStorage):
            self._link, self._sealer = redis._link, redis._sealer
        else:
            self._sealer = KeyRing(keys).sealer("tokens")
            self._link = Link(Address.parse(redis), may_lose=may_lose)
        self._name = name
        self._keys = record_keys(self._link, f"tokens/{name}", "tokens")

    async def __aenter__(self) -> Self:
        await self._link.__aenter__()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._link.__aexit__(*exc)

    @property
    def _standing(self) -> Standing:
        return self._link.standing

    async def _get(self) -> tuple[bytes, int] | None:
        failed: Exception
        try:
            found = await self._link.run(GET, self._keys, hashed("tokens"))
            if not found:
                return None
            return self._sealer.open(found[0].decode("ascii", "replace"), self._name), int(found[1])
        except RedisUnavailable as error:
            failed = CredentialsUnavailable(str(error))
        except self._not_sealed:
            failed = CredentialsRefused(f"{self!r} was sealed with other keys than these, or changed since")
        raise failed

    async def _put(self, value: bytes, version: int | None) -> bool:
        sealed, ttl = self._sealer.seal(value, self._name), milliseconds(LIFETIME)
        script, wanted = (ADD, -1) if version is None else (SWAP, version)
        failed: CredentialsUnavailable
        try:
            (said,) = await self._link.run(script, self._keys, hashed("tokens"), sealed, ttl, wanted, durable=True)
            return bool(said)
        except RedisUnavailable as error:
            failed = CredentialsUnavailable(str(error))
        raise failed

    def __repr__(self) -> str:
        return f"<RedisTokenStorage {self._name!r} in {self._link.address}>"
