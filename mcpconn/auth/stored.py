"""A provider of the SDK for a `Login`: its tokens are in a file, its client is configured or registered."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace

from mcp.client.auth import AuthorizationCodeResult, OAuthClientProvider
from mcp.shared.auth import OAuthClientInformationFull, OAuthClientMetadata
from pydantic import AnyUrl

from mcpconn.auth.record import TokenRecord
from mcpconn.auth.storage import FileTokenStorage
from mcpconn.auth.store import StoredTokens
from mcpconn.login import Login, token_file

ANYWHERE = "http://127.0.0.1/callback"
"""The redirect URI of a provider that is not used to log in. (The port of a loopback address is not compared: RFC 8252,
7.3.)"""
CLIENT_NAME = "mcpconn"


class LoginProvider(OAuthClientProvider):
    """The SDK's provider, and the text for when no one has logged in."""

    no_login = "no login is stored for this server; log in with `mcpconn login`"
    configured_scope: str | None = None
    """What to ask for; None: what the server names."""


class _Configured(StoredTokens):
    """A token file for a client that is configured. The client's secret stays in the configuration."""

    def __init__(self, inner: FileTokenStorage, client: OAuthClientInformationFull) -> None:
        self._inner = inner
        self._client = client

    async def load(self) -> TokenRecord:
        return replace(await self._inner.load(), client=self._client)

    async def replace(self, record: TokenRecord) -> bool:
        return await self._inner.replace(replace(record, client=None))

    @asynccontextmanager
    async def lock(self) -> AsyncIterator[None]:
        async with self._inner.lock():
            yield

    def holder(self) -> str | None:
        return self._inner.holder()


def provider_of(
    login: Login,
    url: str,
    *,
    redirect_uri: str | None = None,
    redirect: Callable[[str], Awaitable[None]] | None = None,
    callback: Callable[[], Awaitable[AuthorizationCodeResult]] | None = None,
) -> LoginProvider:
    """The provider for a login at the server of `url`.

    Args:
        login: What is configured.
        url: The server's address.
        redirect_uri: Where the browser comes back to.
        redirect: Sends a person to an address. None: no login is possible, and only the stored tokens are used.
        callback: Returns what the browser came back with.
    """
    back = redirect_uri or login.redirect_uri or ANYWHERE
    storage = file_storage(login, url, back)
    return login_provider(login, url, storage, redirect_uri=back, redirect=redirect, callback=callback)


def file_storage(login: Login, url: str, redirect_uri: str) -> StoredTokens:
    """The file with the tokens for the server of `url`.

    Args:
        login: What is configured.
        url: The server's address.
        redirect_uri: Where the browser comes back to.
    """
    file = FileTokenStorage(token_file(url))
    client = configured_client(login, redirect_uri)
    return file if client is None else _Configured(file, client)


def login_provider(
    login: Login,
    url: str,
    storage: StoredTokens,
    *,
    redirect_uri: str,
    client_name: str = CLIENT_NAME,
    redirect: Callable[[str], Awaitable[None]] | None = None,
    callback: Callable[[], Awaitable[AuthorizationCodeResult]] | None = None,
) -> LoginProvider:
    """As `provider_of`, with a storage of the caller's.

    Args:
        login: What is configured.
        url: The server's address.
        storage: Where the tokens are.
        redirect_uri: Where the browser comes back to.
        client_name: What people read about who asks.
        redirect: As for `provider_of`.
        callback: As for `provider_of`.
    """
    scope = _scope(login)
    metadata = OAuthClientMetadata(
        redirect_uris=[AnyUrl(redirect_uri)], client_name=client_name, scope=scope, token_endpoint_auth_method=None
    )
    provider = LoginProvider(url, metadata, storage, redirect_handler=redirect, callback_handler=callback)
    provider.configured_scope = scope
    return provider


def configured_client(login: Login, redirect_uri: str | None = None) -> OAuthClientInformationFull | None:
    """The client that a configuration names; None if one has to be registered.

    Args:
        login: What is configured.
        redirect_uri: Where the browser comes back to; None if it is not known.
    """
    if login.client_id is None:
        return None
    return OAuthClientInformationFull(
        client_id=login.client_id,
        client_secret=login.client_secret,
        redirect_uris=None if redirect_uri is None else [AnyUrl(redirect_uri)],
        token_endpoint_auth_method="client_secret_post" if login.client_secret else "none",
        scope=_scope(login),
    )


def _scope(login: Login) -> str | None:
    return " ".join(login.scopes) or None
