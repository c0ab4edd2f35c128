"""The gateway as an ASGI application: `/mcp` for everything, `/mcp/NAME` for a view."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import anyio
from mcp.server.transport_security import TransportSecuritySettings
from starlette.types import Receive, Scope, Send
from typing_extensions import Self

from mcpconn.catalog.entries import CatalogChange
from mcpconn.connection import Connection
from mcpconn.gateway.access.gate import Gate
from mcpconn.gateway.access.hosts import loopback
from mcpconn.gateway.background import Background
from mcpconn.gateway.clients.downstream import Downstream
from mcpconn.gateway.clients.events import Events
from mcpconn.gateway.clients.extras import Extras
from mcpconn.gateway.clients.parked import ParkingLot
from mcpconn.gateway.config import Settings, loaded
from mcpconn.gateway.endpoint import Endpoint
from mcpconn.gateway.fleet.config import FleetSettings
from mcpconn.gateway.fleet.fleet import Fleet
from mcpconn.gateway.http.asgi import refuse, within_lifespan
from mcpconn.gateway.http.bodies import Bodies
from mcpconn.gateway.http.notes import arriving
from mcpconn.gateway.http.tracing import continued
from mcpconn.gateway.metrics import Metrics, Requests
from mcpconn.gateway.outside import Outside
from mcpconn.gateway.principals import Principal
from mcpconn.gateway.requests.audit import Auditing, AuditLog, note
from mcpconn.gateway.requests.forward import Forwarder
from mcpconn.gateway.requests.instructions import joined
from mcpconn.gateway.requests.keyed import look_up
from mcpconn.gateway.requests.ledger import Ledger
from mcpconn.gateway.requests.lists import Lists
from mcpconn.gateway.servers.listings import Listings
from mcpconn.gateway.servers.relay import Relay
from mcpconn.gateway.servers.upstreams import MARK, Upstreams
from mcpconn.gateway.store import Store
from mcpconn.gateway.store.sealed import prepared, running
from mcpconn.gateway.upstream_auth.page import LOGIN
from mcpconn.gateway.upstream_auth.service import UpstreamAuth
from mcpconn.gateway.upstream_auth.users import NoCredentials
from mcpconn.gateway.views import View, view_of
from mcpconn.manager import Manager
from mcpconn.names import Table
from mcpconn.observe import log
from mcpconn.seal import KeyRing
from mcpconn.version import __version__


class App:
    """The gateway. Mount it into any ASGI application, and run it for as long as that serves.

        gateway = mcpconn.gateway.App("mcp.json")
        app = Starlette(routes=[Mount("/", gateway)], lifespan=gateway.lifespan)

    Without `store` and `ring`, sessions and the ledger end with the process, which is suitable for embedding. `mcpconn
    serve` uses files for both.
    """

    def __init__(
        self,
        servers: Manager | str | os.PathLike[str] | Mapping[str, Any],
        *,
        settings: Settings | None = None,
        store: Store | None = None,
        ring: KeyRing | None = None,
        security: TransportSecuritySettings | None = None,
        one_person: bool = True,
        owns_manager: bool | None = None,
        public_url: str | None = None,
        fleet: FleetSettings | None = None,
        alone: bool = False,
    ) -> None:
        """
        Args:
            servers: A manager that the host runs, or a file or mapping of servers for one of the gateway's own.
            settings: Views and scopes; read from the file's `gateway` section if not given.
            store: The ledger, deleted sessions and their extras; in memory if not given. One in Redis is entered here.
            ring: Seals what clients are given; a key that ends with the process if not given.
            security: Accepted hosts and origins; by default those of the SDK for loopback.
            one_person: All anonymous clients count as one person, as on a loopback listener.
            owns_manager: Whether the gateway enters and exits the manager. None: unless a manager was given.
            public_url: The URL that clients use, without a path, if it differs from their `Host`.
            fleet: Run as one of several replicas that share the store and the ring; None: this process is the whole
                gateway.
            alone: One user is served, over stdio: there is no page to log in at, and `mcpconn login` does it.

        Raises:
            ConfigError: the file or the settings cannot be used.
        """
        self._own = not isinstance(servers, Manager) if owns_manager is None else owns_manager
        given, settings = (None, settings) if isinstance(servers, Manager) else loaded(servers, settings)
        self.settings = settings = settings or Settings()
        self.ring = ring or KeyRing.ephemeral()
        self.store = prepared(store, self.ring)
        self.auth = UpstreamAuth(settings, store=self.store, ring=self.ring, alone=alone)
        self.manager = servers if isinstance(servers, Manager) else Manager(self.auth.prepare(given or {}, settings))
        self.ledger = Ledger(self.store)
        self._security = security or loopback()
        self._one_person = one_person
        self._fleet_settings = fleet
        self.fleet: Fleet | None = None
        """This process as a replica, while it runs."""
        self._bodies = Bodies()
        self._endpoints: dict[str, Endpoint] = {}
        self._tables: dict[str, Table] = {}
        self._stack: AsyncExitStack | None = None
        self._group: Background
        self._requests = Requests()
        self._metrics = Metrics(self.manager, self._requests, sessions=self._count_sessions)
        self._outside = Outside(self.manager, self.settings.dashboard, self._metrics.render, self.store)
        self._audit: AuditLog | None = None
        self.relay: Relay
        self._listings = Listings(self.store, connection=lambda name: self.manager[name], changed=self._changed)
        self._gate = Gate(
            self._serve,
            self.settings.access,
            view=view_of,
            bodies=self._bodies,
            public_url=public_url,
            ended=self._principal_ended,
        )
        self.auth.assemble(
            gate=self._gate,
            security=self._security,
            entry=lambda server: self.manager[server].config,
            one_person=one_person,
            done=self._logged_in,
        )

    # -- life

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(running(self.store))
            if self._own:
                await stack.enter_async_context(self.manager)
            tasks = await stack.enter_async_context(anyio.create_task_group())
            stack.callback(tasks.cancel_scope.cancel)
            group = Background(tasks)
            stack.callback(self._metrics.follow())
            if self.settings.audit is not None:
                self._audit = AuditLog(self.settings.audit, arguments=self.settings.audit_arguments)
                stack.callback(self._audit.close)
                stack.callback(self.manager.observe(note))
                self._metrics.audit = self._audit
            self.relay = relay = Relay(listens=self._listens, uri=self._public_uri, group=group)
            self.upstreams = Upstreams(
                self.manager,
                scopes=self.settings.scopes,
                relay=relay,
                one_person=self._one_person,
                users=self.auth.users,
                listed=self._changed,
                limits=self.settings.limits,
            )
            self.parking = parking = ParkingLot(
                group, owner=lambda: "" if self.fleet is None else self.fleet.membership.name
            )
            if self._fleet_settings is not None:
                self.fleet = Fleet(
                    self._fleet_settings,
                    self.store,
                    self.ring,
                    bodies=self._bodies,
                    endpoints=self._endpoints,
                    tables=self._tables,
                    upstreams=self.upstreams,
                    parking=parking,
                    gate=self._gate,
                )
            for name, view in self.settings.views.items():
                self._endpoints[name] = endpoint = self._endpoint(view, relay, parking)
                await stack.enter_async_context(endpoint.running())
                group.keep(endpoint.sessions.sweep)
            if self.fleet is not None:
                await stack.enter_async_context(self.fleet.running(group))
            group.keep(self._gate.watch)
            group.keep(partial(self.auth.follow, self.manager))
            await look_up(self.ledger, shared=self.fleet is not None)
            group.keep(self.ledger.own)
            group.keep(self.ledger.obey)
            for server in self.servers:
                self._follow(server)
            group.keep(self._listings.keep)
            self._group = group
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, *exc: object) -> None:
        stack, self._stack = self._stack, None
        if stack is not None:
            await stack.aclose()
        self._endpoints.clear()

    def drain(self, *, calls: bool = False) -> None:
        """Begin to end: event streams end cleanly now, so that what is in flight can finish; with `calls`, that is
        answered now as well (`unknown`, or `not_run` if that is certain), and new requests are refused with 503."""
        self._outside.status.drain()
        self._metrics.draining = True
        if self.fleet is not None and self._stack is not None and not calls:
            self._group.start_soon(self.fleet.drain)
        for endpoint in self._endpoints.values():
            endpoint.drain(calls=calls)

    def reload(self, path: str | os.PathLike[str]) -> dict[str, list[str]]:
        """Apply a changed configuration file while the gateway runs.

        Servers whose entry has not changed keep their sessions, and so do their clients'. Rules and keys apply from the
        next request on. Views do not change.

        Args:
            path: The file.

        Returns:
            The names of servers, under `added`, `removed`, `changed` and `unchanged`.

        Raises:
            ConfigError: the file cannot be used. Nothing has changed.
        """
        found, settings = loaded(path, None)
        if self._own:
            found = self.auth.prepare(found, settings)
        result = self.manager.reload(found)
        # The section's settings for a server may have changed although its entry has not.
        told = [name for name in result["unchanged"] if settings.of_server(name) != self.settings.of_server(name)]
        self.upstreams.scopes = settings.scopes
        self.auth.settle(settings)
        for server in (*result["removed"], *result["changed"], *told):
            self.upstreams.forget(server)
        for server in (*result["removed"], *result["changed"]):
            self._listings.forget(server)
        for server in (*result["added"], *result["changed"]):
            self._follow(server)
        if settings.views != self.settings.views:
            log.warning("gateway.views_changed", do="restart the gateway: views are those of its start")
        for issuer in settings.access.issuers:
            issuer.keep_keys(self.settings.access.issuers)
        self._gate.settings = settings.access
        self.settings = replace(settings, views=self.settings.views)
        for name, table in self._tables.items():
            table.serve(self._chosen(self.settings.views[name]))
        if any(result[what] for what in ("added", "removed", "changed")):
            for kind in ("tools", "prompts", "resources"):
                self.relay.changed(kind, set(self._tables))
        return result

    def _follow(self, server: str) -> None:
        """Pass on what changes in a server's lists."""
        if not self.auth.users.own(server):
            self._listings.follow(server)

    def endpoint(self, view: str) -> Endpoint:
        """The endpoint of a view; it exists while the gateway runs."""
        return self._endpoints[view]

    @asynccontextmanager
    async def lifespan(self, app: Any = None) -> AsyncIterator[None]:
        """The same as a lifespan of Starlette or FastAPI."""
        async with self:
            yield

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await within_lifespan(self, receive, send)
            return
        if scope["type"] != "http":
            return
        # A mounted application's path begins after the path that it is mounted at.
        path: str = scope["path"].removeprefix(scope.get("root_path", ""))
        if self._outside.takes(path):
            await self._outside(path, scope, receive, send)
        elif path.startswith(LOGIN):
            await self.auth.page(path, scope, receive, send)
        else:
            with continued(scope), self._requests.counted(scope["method"], send) as counting:
                await self._gate(arriving(scope, self.ledger.epoch), receive, counting)

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        view = view_of(scope)
        endpoint = self._endpoints.get(view) if view is not None else None
        if endpoint is None:
            await refuse(send, 404, "There is no MCP endpoint here")
            return
        await endpoint(scope, receive, send)

    def _principal_ended(self, principal: Principal) -> None:
        """A principal was revoked: its calls that wait for an answer must not continue."""
        if self._stack is not None:
            self.parking.end(principal)
            self.auth.users.revoke(principal)
            self.upstreams.revoke(principal)
            self.relay.later(partial(self.auth.users.forget, principal))

    def _logged_in(self, principal: Principal, server: str) -> None:
        """A user has logged in at a server: waiting calls continue, and the server's lists are now the user's."""
        self.relay.later(partial(self.auth.users.logged_in, self.upstreams.of_user(server, principal)))
        for kind in ("tools", "prompts", "resources"):
            self.relay.changed(kind, set(self._tables), principal)

    # -- parts

    @property
    def servers(self) -> list[str]:
        """Names of the configured servers, without the connections of clients."""
        return [name for name in self.manager if MARK not in name]

    def _endpoint(self, view: View, relay: Relay, parking: ParkingLot) -> Endpoint:
        table = self._tables[view.name] = Table(self._chosen(view), limit=view.name_length, prefix=view.prefix)
        lists = Lists(
            partial(self._listers, view),
            table,
            sealer=self.ring.sealer(f"cursor {view.name}"),
            allowed=view.shows,
            trusted=self._trusted,
            look=lambda client: self.upstreams.look(self._served(view), client),
            logs_in=self.auth.users.logs_in,
            listings=self._listings,
        )
        endpoint: Endpoint
        forwarder = Forwarder(
            view,
            table=table,
            lists=lists,
            upstreams=self.upstreams,
            relay=relay,
            parking=parking,
            ledger=self.ledger,
            extras=Extras(self.store),
            offers=self.auth.offers,
            sealer=self.ring.sealer(f"task {view.name}"),
            stamp=lambda: endpoint.server.server_info_stamp,
            trusted=self._trusted,
            fleet=self.fleet,
        )
        endpoint = Endpoint(
            view,
            name=self.settings.name,
            version=__version__,
            instructions=partial(self._instructions, view),
            ledger=self.ledger.advertised,
            schema=lists.schema,
            settled=lists.first_look,
            forwarder=forwarder,
            relay=relay,
            ring=self.ring,
            store=self.store,
            events=Events(self.store, owner=self.ledger.owner, alive=None if self.fleet else self.ledger.alive),
            ended=lambda session: self.upstreams.release(session.sid),
            security=self._security,
            bodies=self._bodies,
            auditing=Auditing(self._audit, view.name, table) if self._audit is not None else None,
            replicas=self.fleet,
            limits=self.settings.limits,
        )
        return endpoint

    def _chosen(self, view: View) -> tuple[str, ...]:
        """Names of a view's servers."""
        return view.servers if view.servers is not None else tuple(self.servers)

    def _trusted(self, server: str) -> bool:
        return server in self.settings.trusted

    def _listers(self, view: View, client: Downstream | None = None) -> dict[str, Connection | NoCredentials]:
        return self.upstreams.listers(self._served(view), client)

    def _served(self, view: View) -> list[str]:
        """Names of a view's existing servers."""
        return [name for name in self._chosen(view) if name in self.manager]

    def _instructions(self, view: View) -> str | None:
        chosen = self._chosen(view)
        return joined([self.manager[name] for name in chosen if name in self.manager], alone=len(chosen) == 1)

    def _listens(self, sid: str) -> bool:
        return sid == "stdio" or any(endpoint.sessions.has_stream(sid) for endpoint in self._endpoints.values())

    def _count_sessions(self) -> int:
        return sum(len(endpoint.sessions) for endpoint in self._endpoints.values())

    def _public_uri(self, view: str, server: str, uri: str) -> str:
        table = self._tables.get(view)
        return table.uri(server, uri) if table is not None else uri

    def _changed(self, change: CatalogChange, principal: Principal | None = None) -> None:
        server = change.server.partition(MARK)[0]
        views = {name for name, table in self._tables.items() if server in table.servers}
        self.relay.changed(change.kind, views, principal)
