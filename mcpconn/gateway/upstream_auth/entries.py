"""What the gateway changes in the entries of its servers, before a manager is made of them."""

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
    """Sends requests to addresses that a server names, and to the server itself.

    Args:
        config: The server's entry.
        allowed: Hosts and networks that may be private.
    """
    return Fetcher(AllowedAddresses(allowed, origins=[config.endpoint]))


class Entries:
    """Prepares entries. The same entry is prepared to an equal one, so that a reload finds it unchanged."""

    def __init__(self, shared: SharedLogins) -> None:
        """
        Args:
            shared: Where the logins for everybody are.
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
            credentials: How the users of some of them come by their own credentials.
            allowed: Hosts and networks that may be private, if a server names them.
            alone: There is one user, who logs in with `mcpconn login`: the gateway has no page, as over stdio.

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
                raise config.error("its entry has credentials for everybody; remove `auth` or `credentials`", "auth")
            if not alone or isinstance(own, TokenExchange):
                # Its own connection is never used: what there is to see, each user sees.
                return replace(config, lazy=True)
            config = replace(config, auth=config.auth or Login())
        if isinstance(config.auth, Login):
            return replace(config, auth=self._login(config, config.auth, allowed))
        return config

    def _login(self, config: ServerConfig, login: Login, allowed: tuple[str, ...]) -> UserOAuth:
        """A login for everybody. Its requests, too, go to allowed addresses alone."""
        place = login, config.endpoint, allowed
        if place not in self._logins:
            made = UserOAuth(self._shared.provider(login, config.endpoint), fetch=fetcher(config, allowed))
            self._logins[place] = made
        return self._logins[place]
