"""Prepares the entries of the gateway's servers, before a manager is made from them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from mcpconn.config import ServerConfig
from mcpconn.gateway.upstream_auth.addresses import AllowedAddresses, Fetcher
from mcpconn.gateway.upstream_auth.config import TokenExchange, UserCredentials
from mcpconn.gateway.upstream_auth.everybody import SharedLogins
from mcpconn.gateway.upstream_auth.logins import UserOAuth
from mcpconn.login import Login
from mcpconn.mcpjson import Servers


def fetcher(config: ServerConfig, allowed: tuple[str, ...]) -> Fetcher:
    """The `fetch` for addresses that a server names, and for the server itself.

    Args:
        config: The server's entry.
        allowed: Hosts and networks that may be private.
    """
    return Fetcher(AllowedAddresses(allowed, origins=[config.endpoint]))


class Entries:
    """Prepares entries. Equal entries are prepared to equal ones, so a reload finds them unchanged."""

    def __init__(self, shared: SharedLogins) -> None:
        """
        Args:
            shared: The logins that all users share.
        """
        self._shared = shared
        self._logins: dict[tuple[Login, str, tuple[str, ...]], UserOAuth] = {}

    def prepare(
        self,
        servers: Mapping[str, ServerConfig],
        credentials: Mapping[str, UserCredentials],
        *,
        allowed: tuple[str, ...],
        alone: bool,
    ) -> Servers:
        """The entries as the gateway uses them.

        Args:
            servers: From the configuration.
            credentials: How users obtain their own credentials, for the servers that need these.
            allowed: Hosts and networks that may be private, if a server names them.
            alone: There is only one user, who logs in with `mcpconn login`, because the gateway has no login page (over
            stdio).

        Raises:
            ConfigError: an entry contradicts its `credentials`.
        """
        made = {
            name: self._entry(config, credentials.get(name), allowed, alone) if config.problem is None else config
            for name, config in servers.items()
        }
        return Servers(made, getattr(servers, "notes", ()))

    def _entry(
        self, config: ServerConfig, own: UserCredentials | None, allowed: tuple[str, ...], alone: bool
    ) -> ServerConfig:
        if own is not None:
            if config.url is None:
                raise config.error("`credentials` are for servers with a url; give others their secrets in env", "url")
            if config.auth is not None and (isinstance(own, TokenExchange) or not isinstance(config.auth, Login)):
                raise config.error(
                    "its entry has credentials that all users share; remove `auth` or `credentials`", "auth"
                )
            if not alone or isinstance(own, TokenExchange):
                # The entry's own connection is never used, because every user has one of their own.
                return replace(config, lazy=True)
            config = replace(config, auth=config.auth or Login())
        if isinstance(config.auth, Login):
            return replace(config, auth=self._login(config, config.auth, allowed))
        return config

    def _login(self, config: ServerConfig, login: Login, allowed: tuple[str, ...]) -> UserOAuth:
        """A login shared by all users. Its requests, too, go only to allowed addresses."""
        place = login, config.endpoint, allowed
        if place not in self._logins:
            made = UserOAuth(self._shared.provider(login, config.endpoint), fetch=fetcher(config, allowed))
            self._logins[place] = made
        return self._logins[place]
