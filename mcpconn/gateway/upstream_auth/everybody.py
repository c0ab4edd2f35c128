"""Logins that all users of a gateway share, in the store that its processes on several machines share.

An entry with `auth` and without `credentials` is one login shared by all users. On one machine its tokens are in a file
(see `mcpconn.login`), and a file lock ensures that only one process refreshes them. Replicas on several machines share
no file. Two machines with copies of one file would use the same refresh token twice, and a server that rotates refresh
tokens then revokes the login. So a gateway whose store is in Redis keeps these logins there, sealed, and uses no file.
`mcpconn login NAME --store URL` stores them there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from urllib.parse import urlsplit

import anyio

from mcpconn.auth.credentials import CredentialsRefused, CredentialsUnavailable
from mcpconn.auth.store import StoredTokens
from mcpconn.auth.stored import ANYWHERE, LoginProvider, configured_client, login_provider, provider_of
from mcpconn.connection import Connection
from mcpconn.gateway.principals import Principal
from mcpconn.gateway.store import Store
from mcpconn.gateway.store.sealed import on_other_machines
from mcpconn.gateway.upstream_auth.logins import TOKENS, UserOAuth
from mcpconn.gateway.upstream_auth.tokens import PrincipalTokens
from mcpconn.gateway.upstream_auth.users import lacks_credentials, reconnected
from mcpconn.login import Login
from mcpconn.seal import KeyRing

EVERYBODY = Principal("everybody")
"""The principal that owns these tokens. No client can have this name: principals of keys begin with `key:`, and
principals of tokens contain an issuer."""
LOOK = 2.0
"""Seconds between checks for a new login while a connection has failed for lack of one. The person who logged in is
waiting."""
NO_LOGIN = (
    "the gateway's store has no login for this server; log in with `mcpconn login NAME --store URL --sealing-keys FILE`"
)


class SharedLogins:
    """Stores the logins that all users share."""

    def __init__(self, store: Store, ring: KeyRing, *, alone: bool = False) -> None:
        """
        Args:
            store: The gateway's store, as returned by `prepared`.
            ring: The gateway's keys.
            alone: There is only one user, on this machine, so the tokens are in a file whatever the store is.
        """
        self._store = None if alone or not on_other_machines(store) else store
        self._sealer = ring.sealer(TOKENS)

    def storage(self, login: Login, url: str, *, redirect_uri: str | None = None) -> StoredTokens:
        """The token storage for one server, in the store.

        Args:
            login: The entry's `auth`.
            url: The server's address.
            redirect_uri: The redirect URI of the login; None if the result is not used to log in.
        """
        assert self._store is not None
        return PrincipalTokens(
            self._store,
            self._sealer,
            principal=EVERYBODY,
            # Not the entry's name: several entries of one address share a login, as they share a file.
            server=urlsplit(url).hostname or "",
            url=url,
            client=configured_client(login, redirect_uri),
        )

    def provider(self, login: Login, url: str) -> LoginProvider:
        """The credentials provider of one login.

        Args:
            login: What the entry says.
            url: The server's address.
        """
        if self._store is None:
            return provider_of(login, url)
        provider = login_provider(login, url, self.storage(login, url), redirect_uri=ANYWHERE)
        provider.no_login = NO_LOGIN
        return provider


async def follow(connections: Callable[[], Iterable[Connection]]) -> None:
    """Keep reconnecting connections that failed for lack of a login once that login exists. Runs until cancelled.

    A login is made with a command, possibly on another machine, and replicas are not notified of it.

    Args:
        connections: All connections of the gateway. Those with users' own logins are also reconnected by their next
        call.
    """
    while True:
        for connection in [each for each in connections() if lacks_credentials(each)]:
            if await _is_new(connection.config.auth):
                await reconnected(connection, timeout=0)
        await anyio.sleep(LOOK)


async def _is_new(credentials: object) -> bool:
    """Whether the stored tokens differ from those that were refused."""
    if not isinstance(credentials, UserOAuth):
        return False
    storage = credentials.provider.context.storage
    try:
        stored = await storage.load() if isinstance(storage, StoredTokens) else None
    except (CredentialsRefused, CredentialsUnavailable):
        return False
    return stored is not None and stored.tokens is not None and bool(stored.tokens.access_token != credentials.refused)
