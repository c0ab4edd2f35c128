"""Combines the parts for users' own credentials in one gateway: logins, exchanges, the page, and offers to calls."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from mcp.server.transport_security import TransportSecuritySettings

from mcpconn.config import ServerConfig
from mcpconn.gateway.access.gate import Gate
from mcpconn.gateway.clients.downstream import Call
from mcpconn.gateway.principals import Principal
from mcpconn.gateway.store import Store
from mcpconn.gateway.upstream_auth.addresses import Fetcher
from mcpconn.gateway.upstream_auth.config import UpstreamAuthSettings
from mcpconn.gateway.upstream_auth.entries import Entries, fetcher
from mcpconn.gateway.upstream_auth.everybody import SharedLogins, follow
from mcpconn.gateway.upstream_auth.logins import Logins
from mcpconn.gateway.upstream_auth.offering import Offers
from mcpconn.gateway.upstream_auth.page import LoginPage
from mcpconn.gateway.upstream_auth.users import UserAuth
from mcpconn.manager import Manager
from mcpconn.mcpjson import Servers
from mcpconn.seal import KeyRing


class UpstreamAuth:
    """All parts of a gateway that handle its users' own credentials."""

    def __init__(self, settings: UpstreamAuthSettings, *, store: Store, ring: KeyRing, alone: bool) -> None:
        """
        Args:
            settings: The gateway's settings.
            store: The gateway's store, as returned by `prepared`.
            ring: Its keys.
            alone: There is only one user, who logs in with `mcpconn login` (over stdio).
        """
        self._alone = alone
        self._store = store
        self._ring = ring
        self._entries = Entries(SharedLogins(store, ring, alone=alone))
        self._settings = settings
        self.users: UserAuth
        self.offers: Offers
        self.page: LoginPage

    def prepare(self, servers: Mapping[str, ServerConfig], settings: UpstreamAuthSettings) -> Servers:
        """The entries of servers as the gateway uses them.

        Raises:
            ConfigError: an entry contradicts its `credentials`.
        """
        return self._entries.prepare(
            servers, settings.credentials, allowed=settings.allowed_addresses, alone=self._alone
        )

    def assemble(
        self,
        *,
        gate: Gate,
        security: TransportSecuritySettings,
        entry: Callable[[str], ServerConfig],
        one_person: bool,
        done: Callable[[Principal, str], None],
    ) -> None:
        """Create the parts.

        Args:
            gate: Authenticates clients.
            security: The allowed hosts and origins.
            entry: A server's entry, by name; raises `KeyError` if it is gone.
            one_person: All anonymous users are the same person.
            done: Called with a user whose lists at a server have changed.
        """
        self._gate = gate
        self._entry = entry
        logins = Logins(self._store, self._ring, fetch=self._fetcher, config=entry)
        self.users = UserAuth({}, logins, config=entry, one_person=one_person)
        self.offers = Offers(self.users, page=self._address)
        self.page = LoginPage(logins, self._ring, gate=gate, security=security, done=self._logged_in)
        self._done = done
        self.settle(self._settings)

    def settle(self, settings: UpstreamAuthSettings) -> None:
        """Use these settings from now on."""
        self._settings = settings
        self.users.settings = {} if self._alone else settings.credentials

    async def follow(self, manager: Manager) -> None:
        """Keep reconnecting connections that failed for lack of a shared login, once there is one. Runs until
        cancelled."""
        await follow(lambda: [manager[name] for name in manager])

    def _fetcher(self, server: str) -> Fetcher:
        return fetcher(self._entry(server), self._settings.allowed_addresses)

    def _address(self, call: Call) -> str | None:
        scope = call.ctx.request.scope if call.ctx.request is not None else None
        return None if scope is None else f"{self._gate.origin(scope)}{scope.get('root_path', '')}"

    def _logged_in(self, principal: Principal, server: str) -> None:
        self.offers.done(principal, server)
        self._done(principal, server)
