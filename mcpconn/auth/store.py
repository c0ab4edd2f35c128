"""Token stores for the SDK's `TokenStorage`, and the SDK's storages as token stores."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from mcp.client.auth import TokenStorage
from mcp.shared.auth import OAuthClientInformationFull, OAuthToken

from mcpconn.auth.record import TokenRecord, TokenStore


def expiry(tokens: OAuthToken | None) -> float | None:
    """When an access token that has just been received ends, in seconds since 1970."""
    return None if tokens is None or tokens.expires_in is None else time.time() + tokens.expires_in


class StoredTokens:
    """The methods of the SDK's `TokenStorage`, for a class that has `load` and `replace` of `TokenStore`.

    Callers of these methods know nothing of generations: the write is repeated until it is the
    next generation of whatever is stored, and it ends a refresh that is marked.
    """

    load: Callable[[], Any]
    replace: Callable[[TokenRecord], Any]

    async def get_tokens(self) -> OAuthToken | None:
        """The tokens, `expires_in` counted from now.

        Raises:
            CredentialsRefused, CredentialsUnavailable: as `TokenStore.load`.
        """
        record: TokenRecord = await self.load()
        return record.current_tokens()

    async def set_tokens(self, tokens: OAuthToken) -> None:
        """Replace the tokens. They belong to the issuer that the client is registered with."""

        def change(record: TokenRecord) -> TokenRecord:
            issuer = record.client.issuer if record.client is not None else None
            return record.successor(tokens=tokens, expires_at=expiry(tokens), issuer=issuer, rotates=None, mark=None)

        await self.change(change)

    async def get_client_info(self) -> OAuthClientInformationFull | None:
        """The client's registration.

        Raises:
            CredentialsRefused, CredentialsUnavailable: as `TokenStore.load`.
        """
        record: TokenRecord = await self.load()
        return record.client

    async def set_client_info(self, client_info: OAuthClientInformationFull) -> None:
        """Replace the registration."""
        await self.change(lambda record: record.successor(client=client_info))

    async def clear(self) -> None:
        """Forget the tokens, as after a logout. The registration stays."""
        await self.change(
            lambda record: record.successor(tokens=None, expires_at=None, issuer=None, server=None, mark=None)
        )

    async def change(self, change: Callable[[TokenRecord], TokenRecord]) -> None:
        """Store a change of whatever is stored.

        Args:
            change: Makes the next record of the stored one; called again if another process wrote in between.

        Raises:
            CredentialsRefused, CredentialsUnavailable: as `TokenStore.replace`.
        """
        while not await self.replace(change(await self.load())):
            """Another process wrote in between; this write comes after it."""


class SdkStorage:
    """A storage with the SDK's four methods, as a `TokenStore` of this process.

    It has no compare-and-set and no place for issuer or mark: those are kept here, for as long as the process
    runs. After a restart the issuer of the tokens is the one that the client is registered with.
    """

    def __init__(self, storage: TokenStorage) -> None:
        self._storage = storage
        self._record = TokenRecord()

    async def load(self) -> TokenRecord:
        tokens = await self._storage.get_tokens()
        client = await self._storage.get_client_info()
        known = self._record
        access = known.tokens.access_token if known.tokens is not None else None
        if (tokens.access_token if tokens is not None else None) != access:
            # Written by others. (Most storages keep `expires_in` as it was when the tokens came, so for tokens
            # that were seen before, the end that is known already is more exact.)
            issuer = client.issuer if client is not None else None
            self._record = known.successor(
                tokens=tokens, expires_at=expiry(tokens), issuer=issuer, client=client, rotates=None, mark=None
            )
        elif client != known.client:
            self._record = known.successor(client=client)
        return self._record

    async def replace(self, record: TokenRecord) -> bool:
        known = self._record
        if record.generation != known.generation + 1:
            return False
        if record.client is not None and record.client != known.client:
            await self._storage.set_client_info(record.client)
        if record.tokens is not None and record.tokens is not known.tokens:
            await self._storage.set_tokens(record.tokens)
        self._record = record
        return True


def store_of(storage: Any) -> TokenStore:
    """What a provider was given as its storage, as a token store."""
    return storage if isinstance(storage, TokenStore) else SdkStorage(storage)
