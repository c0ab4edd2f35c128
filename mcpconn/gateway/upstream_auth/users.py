"""The credentials of users' connections, for servers that receive their users' own."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any
from weakref import WeakValueDictionary

from mcpconn.auth.credentials import CredentialsRefused, CredentialsUnavailable
from mcpconn.config import ServerConfig
from mcpconn.connection import Connection
from mcpconn.core.failures import FailureKind
from mcpconn.core.states import State
from mcpconn.errors import CallFailed, McpConnError
from mcpconn.gateway.clients.downstream import Downstream
from mcpconn.gateway.principals import Principal
from mcpconn.gateway.upstream_auth.addresses import AllowedAddresses, Fetcher
from mcpconn.gateway.upstream_auth.config import TokenExchange, UserCredentials, UserLogin
from mcpconn.gateway.upstream_auth.exchange import ExchangedToken
from mcpconn.gateway.upstream_auth.logins import Logins, UserOAuth
from mcpconn.observe import log

REVIVED = 10.0
"""Seconds that a call waits for a connection whose credentials are valid again."""


class NoCredentials(McpConnError):
    """This client cannot have credentials of its own for the server. Nothing was sent."""


class UserAuth:
    """The credentials of all users for all servers."""

    def __init__(
        self,
        settings: Mapping[str, UserCredentials],
        logins: Logins,
        *,
        config: Callable[[str], ServerConfig],
        one_person: bool,
    ) -> None:
        """
        Args:
            settings: By name, for the servers that receive their users' own credentials.
            logins: The users' logins.
            config: The entry of a server, by name.
            one_person: All anonymous users are the same person.
        """
        self.settings = settings
        """May be replaced while the gateway runs."""
        self.logins = logins
        self._config = config
        self._one_person = one_person
        # Kept as long as a connection uses them. All connections of a user to a server share one object, so that a
        # token is renewed once.
        self._known: WeakValueDictionary[tuple[Principal, str, str], UserOAuth | ExchangedToken] = WeakValueDictionary()

    def own(self, server: str) -> bool:
        """Whether a server receives its users' own credentials."""
        return server in self.settings

    def logs_in(self, server: str) -> bool:
        """Whether a server's users log in there themselves."""
        return isinstance(self.settings.get(server), UserLogin)

    def credentials(self, server: str, client: Downstream) -> tuple[UserOAuth | ExchangedToken, str]:
        """A client's credentials for a server, and a key that distinguishes them from others of the same principal.

        Raises:
            NoCredentials: the client cannot have any.
        """
        settings, principal = self.settings[server], client.principal
        url = self._config(server).endpoint
        if isinstance(settings, UserLogin):
            if principal.client == "anonymous" and not self._one_person:
                raise NoCredentials(
                    f"server {server!r} needs a login of the user's own, and this gateway cannot tell its anonymous "
                    "clients apart: use a key or a token"
                )
            return self._of(principal, server, url, lambda: self.logins.credentials(principal, server)), ""
        inbound = client.inbound
        if inbound is None:
            raise NoCredentials(
                f"server {server!r} needs a token of the user's own, and a key cannot be exchanged for one: use a "
                "token of an issuer that this gateway knows"
            )
        # A token with fewer scopes must not use a session that was opened with more.
        rights = hashlib.sha256(" ".join(sorted(inbound.scopes)).encode()).hexdigest()[:16]
        found = self._of(principal, server, f"{url} {rights}", lambda: self._exchange(settings, server, url))
        assert isinstance(found, ExchangedToken)
        found.offer(inbound)
        return found, rights

    def _exchange(self, settings: TokenExchange, server: str, url: str) -> ExchangedToken:
        fetch = Fetcher(AllowedAddresses(origins=[settings.token_endpoint]))
        return ExchangedToken(settings, server=server, url=url, fetch=fetch)

    def _of(
        self, principal: Principal, server: str, kind: str, make: Callable[[], UserOAuth | ExchangedToken]
    ) -> UserOAuth | ExchangedToken:
        place = principal, server, kind
        found = self._known.get(place)
        if found is None:
            found = self._known[place] = make()
        return found

    def configured(self, server: str, auth: Any) -> ServerConfig:
        """The entry of a server for a connection with these credentials."""
        return replace(self._config(server), auth=auth)

    async def revive(self, connection: Connection, server: str, client: Downstream) -> bool:
        """Reconnect a connection that failed for lack of credentials if there are new ones. Returns whether there are.

        The user may have logged in through another process of the gateway, or sent another token.
        """
        if not lacks_credentials(connection):
            return False
        credentials, _ = self.credentials(server, client)
        if isinstance(credentials, UserOAuth):
            try:
                stored = await self.logins.storage(client.principal, server).load()
            except (CredentialsRefused, CredentialsUnavailable):
                return False
            if stored.tokens is None or stored.tokens.access_token == credentials.refused:
                return False
        elif not credentials.untried:
            return False
        await reconnected(connection)
        return True

    async def logged_in(self, connections: list[Connection]) -> None:
        """A user has logged in: reconnect the connections that failed for lack of it."""
        for connection in connections:
            if connection.state is not State.CLOSED:
                await reconnected(connection, timeout=0)

    def revoke(self, principal: Principal) -> None:
        """A principal was revoked: forget its credentials in this process."""
        for place in [place for place in self._known if place[0] == principal]:
            self._known.pop(place, None)

    async def forget(self, principal: Principal) -> None:
        """A principal was revoked: delete its logins, so that a later principal with the same name does not get
        them."""
        for server in [name for name in self.settings if self.logs_in(name)]:
            try:
                await self.logins.storage(principal, server).delete()
            except CredentialsUnavailable as error:
                log.error("gateway.login_not_forgotten", server=server, error=str(error))


def lacks_credentials(connection: Connection) -> bool:
    """Whether a connection has failed because its credentials were refused, or there are none."""
    failure = connection.last_failure
    return connection.state is State.FAILED and failure is not None and failure.kind is FailureKind.AUTH


async def reconnected(connection: Connection, *, timeout: float = REVIVED) -> None:
    """Have a connection read its credentials again. A failure is reported to the next call."""
    try:
        await connection.update_credentials(timeout=timeout)
    except CallFailed:
        return
