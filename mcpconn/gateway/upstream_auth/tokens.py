"""The tokens of one principal for one server, sealed in the gateway's store."""

from __future__ import annotations

import hashlib
from dataclasses import replace

from mcp.shared.auth import OAuthClientInformationFull

from mcpconn.auth.credentials import CredentialsRefused, CredentialsUnavailable
from mcpconn.auth.record import TokenRecord
from mcpconn.auth.shared import LIFETIME, SharedTokens
from mcpconn.gateway.principals import Principal
from mcpconn.gateway.store import Key, Store, StoreUnavailable
from mcpconn.redis.standing import Standing
from mcpconn.seal import NotSealedHere, Sealer


def address_hash(url: str) -> str:
    """A server's address in keys: if a server's name gets another address later, the tokens are not sent there."""
    return hashlib.sha256(url.encode()).hexdigest()[:16]


class PrincipalTokens(SharedTokens):
    """A `TokenStore` on the gateway's store. It is shared by all processes of the gateway."""

    def __init__(
        self,
        store: Store,
        sealer: Sealer,
        *,
        principal: Principal,
        server: str,
        url: str,
        client: OAuthClientInformationFull | None = None,
    ) -> None:
        """
        Args:
            store: The gateway's.
            sealer: Seals what is stored.
            principal: The owner of the tokens.
            server: The server's name.
            url: Its address.
            client: The configured client; its secret is not stored.
        """
        self._store = store
        self._sealer = sealer
        self._client = client
        self._server = server
        self._place = Key(f"tokens/{principal.digest}", f"{server} {address_hash(url)}")
        # Someone who can write to the store cannot pass off one user's sealed tokens as another's.
        self._context = "\n".join(self._place)

    @property
    def _standing(self) -> Standing:
        return self._store.standing

    async def load(self) -> TokenRecord:
        record = await super().load()
        return record if self._client is None else replace(record, client=self._client)

    async def replace(self, record: TokenRecord) -> bool:
        return await super().replace(record if self._client is None else replace(record, client=None))

    async def _get(self) -> tuple[bytes, int] | None:
        try:
            present = await self._store.get(self._place)
        except StoreUnavailable:
            unavailable = self._unavailable()
        else:
            return None if present is None else (self._opened(present.value), present.version)
        raise unavailable

    async def _put(self, value: bytes, version: int | None) -> bool:
        sealed = self._sealer.seal(value, self._context).encode("ascii")
        try:
            if version is None:
                return await self._store.add(self._place, sealed, ttl=LIFETIME) is not None
            return await self._store.swap(self._place, version, sealed, ttl=LIFETIME) is not None
        except StoreUnavailable:
            unavailable = self._unavailable()
        raise unavailable

    async def delete(self) -> None:
        """Forget the login: its principal was revoked.

        Raises:
            CredentialsUnavailable: the store does not answer.
        """
        try:
            await self._store.delete(self._place)
        except StoreUnavailable:
            unavailable = self._unavailable()
        else:
            return
        raise unavailable

    def _opened(self, value: bytes) -> bytes:
        try:
            return self._sealer.open(value.decode("ascii", "replace"), self._context)
        except NotSealedHere:
            pass
        raise CredentialsRefused(f"the stored login at {self._server!r} cannot be read with the present sealing keys")

    def _unavailable(self) -> CredentialsUnavailable:
        return CredentialsUnavailable(f"the gateway's store, with the login at {self._server!r}, does not answer")

    def __repr__(self) -> str:
        return f"<PrincipalTokens for {self._server}>"
