"""Which connection a request uses, and when it is opened and closed.

Who shares an upstream session is its server's scope: `client` (one downstream session), `user` (one principal) or
`shared` (all clients). A server that keeps state per session must not be shared, because one client would read what
another wrote. A modern server keeps no session, so its default is `user`; every other's is `client`.

Which era an upstream session speaks is its client's, if the server speaks that, too. Many servers serve both, and a
tool of theirs that was written for one of them asks its client in the way of that era only.

Lists come from one connection per server, the manager's own of that name, so that listing opens nothing per client. A
server that sees its users' own credentials is listed once for each user: what it shows may be theirs alone. One that
lists by what a client can do is listed once for each kind of clients (see `profiles`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import replace
from hashlib import sha256
from typing import Any, Literal

import anyio
import mcp_types as types

from mcpconn.catalog.entries import CatalogChange
from mcpconn.checks import PREFER_LEGACY
from mcpconn.config import ServerConfig
from mcpconn.connection import Connection
from mcpconn.core.states import State
from mcpconn.errors import McpConnError, UnknownServer
from mcpconn.gateway.capacity import Capacity
from mcpconn.gateway.clients.downstream import CALL, EVERYBODY, Downstream
from mcpconn.gateway.principals import Principal
from mcpconn.gateway.servers.eras import speaks_modern
from mcpconn.gateway.servers.log_levels import LogLevels
from mcpconn.gateway.servers.profiles import Profile, Profiles, Wanted, declaring_tasks
from mcpconn.gateway.servers.relay import Relay
from mcpconn.gateway.upstream_auth.users import NoCredentials, UserAuth
from mcpconn.manager import Manager
from mcpconn.runtime.dials import Dials

Scope = Literal["client", "user", "shared"]

RECENT = 30.0
"""Seconds for which a connection that was asked for is not closed to make room: its call may still wait for the era,
the log level or a list (5, 5 and 1 s at most) before it counts as one."""
ERA_PATIENCE = 5.0
"""Seconds to wait for a server's era, which decides who may share a session with it."""
MARK = "#"
"""Between a server's name and the client's part in a connection's name. No server's own name has it."""


class NotShared(McpConnError):
    """The server keeps state per session, and this client has no session of its own. Nothing was sent."""


class Upstreams:
    """The connections of a gateway."""

    def __init__(
        self,
        manager: Manager,
        *,
        scopes: Mapping[str, Scope],
        relay: Relay,
        one_person: bool,
        users: UserAuth,
        listed: Callable[[CatalogChange, Principal | None], None] = lambda change, principal: None,
        limits: Capacity | None = None,
    ) -> None:
        """
        Args:
            manager: Holds the servers' own connections, by name, and the others beside them.
            scopes: The scope of a server, if its entry names one.
            relay: Passes on what servers send; gives the callbacks by which a server reaches its clients.
            one_person: All anonymous users are the same person, as on a loopback listener.
            users: The credentials of users, for servers that see them.
            listed: Told when a list has changed that is one user's alone, or one kind of clients'.
            limits: How many connections are held for clients and users, and for how long.
        """
        self._manager = manager
        self.scopes = scopes
        """May be replaced while the gateway runs."""
        self._relay = relay
        relay.relist = self._relist
        self._one_person = one_person
        self.users = users
        self._listed = listed
        limits = limits or Capacity()
        self.idle = limits.connection_idle
        """Seconds after which an unused connection is closed."""
        self._at_most = limits.connections
        # In the order of their last use, oldest first; by the key they were made for.
        self._open: dict[str, Connection] = {}
        self._of_session: dict[str, set[str]] = {}
        self._principals: dict[str, Principal] = {}
        self._asked: dict[str, float] = {}
        """When a connection was last asked for, by the event loop's clock."""
        # Servers that were seen to refuse the older era.
        self._modern_only: set[str] = set()
        self._profiles = Profiles()
        self._levels = LogLevels()

    @property
    def dials(self) -> Dials:
        """The dials of all connections."""
        return self._manager.dials

    def lister(self, server: str, client: Downstream) -> Connection:
        """The connection whose lists a client sees.

        Raises:
            NoCredentials: the server is listed for each user, and this client cannot be one.
        """
        base = self._base_lister(server, client)
        return self._profiles.lister(base, self._profile(server, client, base))

    async def look(self, servers: Iterable[str], client: Downstream) -> None:
        """Find out which servers list something else for clients of this kind, as far as it is not known."""
        wanted = []
        for server in servers:
            try:
                base = self._base_lister(server, client)
            except NoCredentials:
                continue
            profile = self._profile(server, client, base)
            if profile != Profile(mode=base.config.mode):
                wanted.append(self._wanted(server, client, base, profile))
        await self._profiles.look(wanted)

    def _profile(self, server: str, client: Downstream, base: Connection) -> Profile:
        """The kind of clients that a client is of, if the server may tell it from others."""
        if self.scopes.get(server) == "shared" and base.config.url is None:
            # One child for all: a second one must not be started.
            return Profile(mode=base.config.mode)
        mirrors = base.config.mode == "auto" and client.sid is not None and server not in self._modern_only
        return Profile(client.abilities, PREFER_LEGACY if mirrors and speaks_modern(base) else base.config.mode)

    def _wanted(self, server: str, client: Downstream, base: Connection, profile: Profile) -> Wanted:
        principal = client.principal if self.users.own(server) else None

        def opened() -> Connection:
            name = _name(server, f"lists of {base.name} {sorted(profile.abilities)} {profile.mode}")
            # No client is asked here. It announces the capabilities so that the server lists the tools that need them.
            able = replace(EVERYBODY, abilities=profile.abilities)
            options = {**(base.config.options or {}), **self._relay.callbacks(server, able)}
            config = replace(base.config, options=options, lazy=False, catalog="lazy", mode=profile.mode)
            return self.reused(name) or self._add(name, config, principal)

        def differs(connection: Connection, kinds: Iterable[str], late: bool) -> None:
            connection.catalog.subscribe(lambda change: self._listed(change, principal))
            for kind in kinds if late else ():
                self._listed(CatalogChange(server, kind, (), (), (), connection.catalog.epoch), principal)

        return Wanted(base, profile, opened, lambda connection: self._remove(connection.name), differs)

    def _base_lister(self, server: str, client: Downstream) -> Connection:
        if not self.users.own(server):
            return self._manager[server]
        credentials, rights = self.users.credentials(server, client)
        name = _name(server, f"lists of {client.principal.digest} {rights}")
        connection = self.reused(name)
        if connection is None:
            config = replace(self.users.configured(server, credentials), lazy=False, catalog="lazy")
            connection = self._add(name, config, client.principal)
            connection.catalog.subscribe(lambda change: self._listed(change, client.principal))
        return connection

    def listers(self, servers: Iterable[str], client: Downstream | None) -> dict[str, Connection | NoCredentials]:
        """The connections whose lists a client sees, or why it sees none; for None the ones that all clients see."""
        found: dict[str, Connection | NoCredentials] = {}
        for server in servers:
            if client is not None:
                try:
                    found[server] = self.lister(server, client)
                except NoCredentials as error:
                    found[server] = error
            elif not self.users.own(server):
                found[server] = self._manager[server]
        return found

    def common(self, server: str) -> Connection:
        """The manager's own connection to a server. One that sees its users' credentials is never used."""
        return self._manager[server]

    def tools(self, server: str, client: Downstream) -> Mapping[str, types.Tool]:
        """The tools that a client sees of a server, as far as they are known."""
        try:
            return self.lister(server, client).catalog.tools
        except NoCredentials:
            return {}

    def harmless(self, server: str, tool: str, client: Downstream | None = None) -> bool:
        """Whether running a tool twice is harmless, according to the annotations that a client sees; None: that all
        clients see."""
        if client is None:
            return not self.users.own(server) and self._manager[server].catalog.known_safe(tool)
        try:
            return self.lister(server, client).catalog.known_safe(tool)
        except NoCredentials:
            return False

    def scope(self, server: str, client: Downstream | None, mode: str) -> Scope:
        """Who shares a session with this server, if it is opened in this mode."""
        declared = self.scopes.get(server)
        if declared is not None:
            return declared
        return "user" if self._is_modern(server, client) and mode != PREFER_LEGACY else "client"

    def mode(self, server: str, client: Downstream) -> str:
        """The configured mode of connecting, or the one by which the session is of the client's era."""
        mode = self._manager[server].config.mode
        if mode != "auto" or client.sid is None:
            return mode
        # A session that has a connection of its own keeps it, and what it has subscribed to there.
        own = any(name.rpartition(MARK)[0] == server for name in self._of_session.get(client.sid, ()))
        return PREFER_LEGACY if own or server not in self._modern_only else mode

    def _is_modern(self, server: str, client: Downstream | None) -> bool:
        """Whether its last session spoke the modern protocol. Unknown means no: that shares less."""
        if client is None and self.users.own(server):
            return any(speaks_modern(each) for name, each in self._open.items() if name.rpartition(MARK)[0] == server)
        connection = self._manager[server] if client is None else self._base_lister(server, client)
        return connection.config.url is not None and speaks_modern(connection)

    def keeps_state(self, server: str, client: Downstream | None = None) -> bool:
        """Whether a server keeps state for each session, and the session belongs to one client or principal.

        Args:
            server: Its name.
            client: Whose session it is; None for a modern client.
        """
        mode = self._manager[server].config.mode if client is None else self.mode(server, client)
        modern = mode != PREFER_LEGACY and self._is_modern(server, client)
        return self.scope(server, client, mode) != "shared" and not modern

    async def settle(self, server: str, client: Downstream, timeout: float) -> None:
        """Wait until the connection that lists knows the server's era, if the scope of a client's depends on it.

        Raises:
            NoCredentials: as `lister`.
        """
        known = server in self.scopes or self._manager[server].config.url is None
        if known or self.mode(server, client) == PREFER_LEGACY:
            return
        connection = self._base_lister(server, client)
        try:
            await connection.wait_ready(timeout)
        except McpConnError:
            # It is away: its scope is `client` until it is seen.
            return

    def connection(self, server: str, client: Downstream) -> Connection:
        """The connection for a request of `client` to `server`; it is opened at its first use.

        Raises:
            NotShared: the server keeps state, and nothing tells this client from others.
            NoCredentials: the server needs credentials that this client cannot have.
        """
        mode = self.mode(server, client)
        scope = self.scope(server, client, mode)
        config, rights = self._manager[server].config, ""
        if self.users.own(server):
            credentials, rights = self.users.credentials(server, client)
            config = self.users.configured(server, credentials)
        owned = scope != "shared"
        if not owned:
            if self._manager[server].config.url is None:
                # A shared child cannot ask, because over stdio a question does not say which call it belongs to.
                self._relay.hear_child(server, self._manager[server])
                return self._manager[server]
            owner = "everybody"
        elif scope == "client" and client.sid is not None:
            owner = f"session {client.sid}"
        elif scope == "user" or self._one_person or client.principal.client != "anonymous":
            owner = f"principal {client.principal.digest}"
        else:
            raise NotShared(
                f"server {server!r} keeps state for each session, and this gateway cannot tell its anonymous clients "
                'apart: use a client that keeps a session, or a key, or say `"scope": "shared"` in the server\'s '
                "entry if all may share one session"
            )
        # What a client can do is said once, when a session begins: clients that can do other things need another.
        profile = ",".join(sorted(client.abilities)) if owned else ""
        profile += mode if mode == PREFER_LEGACY else ""
        # So is whether it takes tasks for answers; the older era has no such question.
        tasks = client.tasks and mode != PREFER_LEGACY and self._is_modern(server, client)
        profile += " tasks" if tasks else ""
        name = _name(server, f"{owner} {profile} {rights}")
        connection = self.reused(name)
        if connection is None:
            options = {**(config.options or {}), **self._relay.callbacks(server, client if owned else EVERYBODY)}
            options = declaring_tasks(options) if tasks else options
            config = replace(config, options=options, lazy=False, catalog="off", mode=mode)
            connection = self._add(name, config, client.principal if owned else None)
        elif mode == PREFER_LEGACY and speaks_modern(connection):
            self._modern_only.add(server)
        if client.sid is not None and scope == "client":
            self._of_session.setdefault(client.sid, set()).add(name)
        return connection

    def reused(self, name: str) -> Connection | None:
        """The client's connection of this name, which counts as used now; None if there is none any more."""
        connection = self._open.pop(name, None)
        if connection is None or connection.state is State.CLOSED:
            return None
        self._open[name] = self._manager.get_or_add(name, connection.config, ttl=self.idle)
        self._asked[name] = anyio.current_time()
        return self._open[name]

    def _add(self, name: str, config: ServerConfig, principal: Principal | None) -> Connection:
        self._make_room()
        # Tasks that live as long as the connection must not take the current call for theirs.
        token = CALL.set(None)
        try:
            self._open[name] = connection = self._manager.get_or_add(name, config, ttl=self.idle)
            self._asked[name] = anyio.current_time()
        finally:
            CALL.reset(token)
        if principal is not None:
            self._principals[name] = principal
        return connection

    def _make_room(self) -> None:
        for name in [name for name, each in self._open.items() if each.state is State.CLOSED]:
            self._remove(name)
        while len(self._open) >= self._at_most:
            if (idle := next((name for name in self._open if self._is_idle(name)), None)) is None:
                return
            self._remove(idle)

    def _is_idle(self, name: str) -> bool:
        """Whether no call is on a connection, and none is about to be: one that was just asked for is."""
        _, busy, _ = self._open[name].usage()
        busy = busy or self._relay.watches.on(self._open[name])
        return not busy and anyio.current_time() - self._asked.get(name, 0.0) >= RECENT

    def of_user(self, server: str, principal: Principal) -> list[Connection]:
        """The connections that a principal has to a server."""
        names = [name for name, whose in self._principals.items() if whose == principal]
        return [self._open[name] for name in names if name.rpartition(MARK)[0] == server and name in self._open]

    def _relist(self, server: str, client: Downstream, notification: Any) -> None:
        """A client's connection heard a notification: a changed list is read again at the next listing."""
        with suppress(NoCredentials, UnknownServer):
            self.lister(server, client).catalog.notice(notification)

    def revoke(self, principal: Principal) -> None:
        """A principal was revoked: what it has open is closed, and nothing is opened again for what it watched."""
        self._relay.watches.revoke(principal)
        for name in [name for name, whose in self._principals.items() if whose == principal]:
            self._remove(name)

    def of_session(self, sid: str) -> list[Connection]:
        """The connections that a downstream session has for itself."""
        return [self._open[name] for name in self._of_session.get(sid, ()) if name in self._open]

    async def set_level(self, connection: Connection, level: str) -> None:
        """Have a legacy server send log messages from this level on; see `LogLevels.set`."""
        owned = any(connection.name in names for names in self._of_session.values())
        await self._levels.set(connection, level, owned=owned)

    def release(self, sid: str, *, drain: bool = True) -> None:
        """A downstream session has ended: its upstream sessions end with it.

        Args:
            sid: The session.
            drain: False: at once, whatever is in flight.
        """
        for name in self._of_session.pop(sid, ()):
            self._remove(name, drain=drain)

    def release_principal(self, digest: str) -> None:
        """The sessions that a principal's clients share must not be used any more: they end at once.

        A connection to a modern server stays: it has no session that another replica could own, and calls on it go on.
        """
        owned = set().union(*self._of_session.values())
        for name in [name for name, whose in self._principals.items() if whose.digest == digest and name not in owned]:
            if not speaks_modern(self._open[name]):
                self._remove(name, drain=False)

    def forget(self, server: str) -> None:
        """Close clients' connections to a server whose entry has changed or is gone. They are reopened when used."""
        self._modern_only.discard(server)
        for name in [name for name in self._open if name.rpartition(MARK)[0] == server]:
            self._remove(name)

    def _remove(self, name: str, *, drain: bool = True) -> None:
        self._open.pop(name, None)
        self._principals.pop(name, None)
        self._asked.pop(name, None)
        if name in self._manager:
            self._manager.remove(name, drain=drain)


def _name(server: str, owner: str) -> str:
    # A digest: neither a session's id nor a user's name must be readable in logs and status.
    return f"{server}{MARK}{sha256(owner.encode()).hexdigest()[:12]}"
