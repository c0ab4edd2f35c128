"""Where `mcpconn login` keeps tokens: in a file for every program of this user, or in a gateway's store."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mcpconn.auth import FileTokenStorage, Login, token_file
from mcpconn.auth.store import StoredTokens
from mcpconn.auth.stored import file_storage
from mcpconn.cli.failures import USAGE, CliError

if TYPE_CHECKING:
    from mcpconn.gateway.upstream_auth.everybody import SharedLogins


@dataclass(frozen=True)
class GatewayStore:
    """The store of a gateway, for a login that all its processes use."""

    url: str
    keys: Path
    """The gateway's file of sealing keys."""


class Place:
    """Where the tokens for one server are kept: in a file of this user's."""

    def __init__(self, url: str) -> None:
        self.url = url

    def storage(self, login: Login, redirect_uri: str) -> StoredTokens:
        return file_storage(login, self.url, redirect_uri)

    @property
    def bare(self) -> StoredTokens:
        """The same, without what the configuration says of the client."""
        return FileTokenStorage(token_file(self.url))

    def __str__(self) -> str:
        return str(token_file(self.url))


class _InStore(Place):
    """The same in a gateway's store."""

    def __init__(self, url: str, shared: SharedLogins, store: str) -> None:
        super().__init__(url)
        self._shared = shared
        self._store = store

    def storage(self, login: Login, redirect_uri: str) -> StoredTokens:
        return self._shared.storage(login, self.url, redirect_uri=redirect_uri)

    @property
    def bare(self) -> StoredTokens:
        return self._shared.storage(Login(), self.url)

    def __str__(self) -> str:
        return self._store


@asynccontextmanager
async def place_of(url: str, given: GatewayStore | None) -> AsyncIterator[Place]:
    """Where the tokens for a server are, for as long as the block runs.

    Raises:
        CliError: the gateway's extra is not installed, or there are no sealing keys.
        ConfigError: the store's address or the keys cannot be used.
    """
    if given is None:
        yield Place(url)
        return
    try:
        from mcpconn.gateway.store import RedisStore
        from mcpconn.gateway.store.sealed import prepared, running
        from mcpconn.gateway.upstream_auth.everybody import SharedLogins
        from mcpconn.seal import given_ring
    except ModuleNotFoundError as error:
        raise CliError(f"--store needs {error.name}: pip install '.[gateway,redis]' in a clone of mcpconn") from None
    if not given.keys.exists():
        # Made here, they would seal the login so that no gateway could open it.
        raise CliError(f"{given.keys}: there are no sealing keys; name the gateway's with --sealing-keys", USAGE)
    ring = given_ring(given.keys)
    inner = RedisStore(given.url)
    store = prepared(inner, ring)
    async with running(store):
        yield _InStore(url, SharedLogins(store, ring), str(inner.link.address))
