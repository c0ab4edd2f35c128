"""This process as one replica of a gateway: what it owns, what it forwards to others, and what it does for them."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import anyio
from mcp import MCPError
from mcp_types import ErrorData
from starlette.types import Receive, Scope, Send

from mcpconn.gateway.access.gate import Gate
from mcpconn.gateway.background import Background
from mcpconn.gateway.clients.downstream import Downstream
from mcpconn.gateway.clients.parked import Ended, ParkingLot
from mcpconn.gateway.clients.replicas import Local
from mcpconn.gateway.clients.session_ids import Session
from mcpconn.gateway.fleet.config import FleetSettings
from mcpconn.gateway.fleet.envelopes import (
    PRINCIPAL,
    RESUME,
    SESSION,
    answer,
    parked_envelope,
    principal_key,
    scope_of,
    session_key,
)
from mcpconn.gateway.fleet.forwarding import AddressRefused, Forwarding, Lost, NotDelivered
from mcpconn.gateway.fleet.go_ahead import GoAhead, put_go_ahead
from mcpconn.gateway.fleet.guard import Guard
from mcpconn.gateway.fleet.handover import Handover
from mcpconn.gateway.fleet.listener import Listener
from mcpconn.gateway.fleet.membership import Membership
from mcpconn.gateway.fleet.ownership import Ownership
from mcpconn.gateway.fleet.peers import Peers
from mcpconn.gateway.fleet.rates import SharedRates
from mcpconn.gateway.fleet.replies import Reply
from mcpconn.gateway.fleet.revocations import Revocations
from mcpconn.gateway.fleet.routing import Routing
from mcpconn.gateway.fleet.scouts import FleetScouts
from mcpconn.gateway.fleet.signing import Envelope, Signer
from mcpconn.gateway.fleet.targets import Targets
from mcpconn.gateway.http.bodies import Bodies
from mcpconn.gateway.principals import Principal, principal_of
from mcpconn.gateway.servers.upstreams import Upstreams
from mcpconn.gateway.store import Store, StoreUnavailable
from mcpconn.names import Table
from mcpconn.observe import log
from mcpconn.seal import KeyRing

if TYPE_CHECKING:
    from mcpconn.gateway.endpoint import Endpoint

GRACE = 30.0
"""Seconds that requests of other replicas get to finish when this one is stopped; as those of its own clients."""
LOOK = 0.2
"""Seconds between looks for sessions that can be given up while this replica is being stopped."""


class Fleet:
    """One replica."""

    def __init__(
        self,
        settings: FleetSettings,
        store: Store,
        ring: KeyRing,
        *,
        bodies: Bodies,
        endpoints: Mapping[str, Endpoint],
        tables: Mapping[str, Table],
        upstreams: Upstreams,
        parking: ParkingLot,
        gate: Gate,
    ) -> None:
        """
        Args:
            settings: Where it listens.
            store: Shared by all replicas.
            ring: The same for all replicas.
            bodies: Reads requests' bodies.
            endpoints: By view.
            tables: Public names, by view.
            upstreams: The connections of clients.
            parking: Calls that wait for an answer of their client in this process.
            gate: The keys that clients have, and their limits.
        """
        self._endpoints = endpoints
        self._upstreams = upstreams
        self._targets = Targets(tables, upstreams)
        self._parking = parking
        self._port = settings.links.listen(settings.host, settings.port)
        host = f"[{settings.host}]" if ":" in settings.host else settings.host
        self.address = f"{host}:{self._port.number}"
        self.membership = Membership(store, ring.sealer("fleet replica"), self.address)
        self.membership.lost = self._drop
        self.ownership = Ownership(store, self.membership, ring.sealer("fleet owner"))
        self.handover = Handover(store, ring.sealer("fleet upstreams"), self.ownership, self._targets.end)
        signer = Signer(ring)
        self.forwarding = Forwarding(signer, settings.networks, links=settings.links)
        self.listener = Listener(
            signer, me=lambda: self.membership.name, owned=self._owned, serve=self._serve, bodies=bodies
        )
        self._dials = upstreams.dials
        self.scouts = FleetScouts(store, self._dials)
        self.revocations = Revocations(store, gate)
        self.rates = SharedRates(store, gate.limits)
        self._routing: Routing
        self._background: Background
        self._draining = False

    # -- life

    @asynccontextmanager
    async def running(self, group: Background) -> AsyncIterator[None]:
        """Take part in the fleet for as long as the block runs.

        Args:
            group: Runs what goes on beside requests.
        """
        self._background = group
        self._routing = Routing(
            self.ownership,
            self.forwarding,
            Peers(group, self.membership.find),
            taken_over=self.handover.take_over,
            not_mine=self._put_away,
        )
        await self.membership.renew()
        group.start_soon(self._port.serve, self.listener)
        group.keep(self.membership.keep)
        group.keep(self.scouts.listen)
        group.keep(self.revocations.follow)
        group.keep(self.rates.follow)
        self._dials.elsewhere = self.scouts
        log.info("gateway.fleet_joined", replica=self.membership.name, address=self.address)
        try:
            yield
        finally:
            self._dials.elsewhere = None
            with anyio.CancelScope(shield=True):
                await self._leave()
                await self._port.aclose()

    async def drain(self) -> None:
        """During shutdown, give up each session as soon as it has nothing in flight. Run it concurrently with
        requests."""
        self._draining = self.ownership.leaving = True
        self._routing.end_streams()
        while True:
            await self._give_up_idle()
            await anyio.sleep(LOOK)

    async def _give_up_idle(self) -> None:
        for key in self.ownership.keys:
            async with self._routing.alone(key):
                if not self._routing.in_use(key) and self.ownership.mine(key) is not None:
                    await self._put_away(key)
                    await self.released(key)

    async def _leave(self) -> None:
        """Finish what was begun for other replicas, and give up everything."""
        self._draining = self.ownership.leaving = True
        with anyio.move_on_after(GRACE):
            while self.listener.running:
                await self._give_up_idle()
                await anyio.sleep(LOOK / 4)
        with anyio.move_on_after(GRACE / 6):
            for key in self.ownership.keys:
                await self._put_away(key)
                await self.released(key)
            await self.membership.leave()

    # -- sessions of this replica

    async def begin(self, session: Session) -> None:
        """A session begins here."""
        await self._routing.begin(session_key(session.sid))

    async def session_released(self, sid: str) -> None:
        """A session was put away here."""
        await self.released(session_key(sid))

    async def released(self, key: str) -> None:
        """A key was released here: the replica that gets its next request becomes its owner."""
        if self.ownership.mine(key) is not None:
            # One that was idle for long, or deleted, has nothing to be notified of; one that is moved on has.
            await (self.handover.leave(key) if self._draining else self.handover.forget(key))
            await self.ownership.release(key)

    async def route_session(
        self, session: Session, scope: Scope, receive: Receive, send: Send, body: bytes, local: Local
    ) -> None:
        """Serve a request of a legacy session here, or have its owner serve it."""
        await self._routing.route(
            session_key(session.sid),
            scope,
            receive,
            send,
            action=SESSION,
            view=session.view,
            body=body,
            local=local,
            repeatable=lambda: self._targets.repeatable(session.view, body),
        )

    async def route_modern(
        self, view: str, scope: Scope, receive: Receive, send: Send, body: bytes, local: Local
    ) -> None:
        """Serve a modern request here, or have the owner of its principal's state serve it."""
        if not self._targets.keeps_state(view, scope):
            await local(receive, send)
            return
        await self._routing.route(
            principal_key(principal_of(scope)),
            scope,
            receive,
            send,
            action=PRINCIPAL,
            view=view,
            body=body,
            local=local,
            repeatable=lambda: self._targets.repeatable(view, body),
        )

    def guard(self, client: Downstream, server: str) -> Guard | None:
        """What stands around a request to a server; None if no upstream session of it is owned."""
        if client.sid == "stdio" or not self._upstreams.keeps_state(server, client):
            return None
        key = session_key(client.sid) if client.sid is not None else principal_key(client.principal)
        return Guard(self.membership, self.handover, key, server, superseded=partial(self._superseded, key))

    # -- for other replicas

    async def _owned(self, envelope: Envelope) -> bool:
        if envelope.action not in (SESSION, PRINCIPAL):
            return True
        if self.ownership.superseded(envelope.key, envelope.number):
            await self._give_up([envelope.key])
            return False
        await self.membership.settle()
        if self._draining and envelope.new:
            # The sender tries again until what is in flight has ended, and finds another owner then.
            return False
        own = await self._routing.owner(envelope.key, number=envelope.number)
        return (
            own is not None
            and own.mine
            and own.number == envelope.number
            and envelope.to == self.membership.name
            and self.membership.may_write
        )

    async def _serve(self, envelope: Envelope, body: bytes, receive: Receive, send: Send, go_ahead: GoAhead) -> None:
        scope = scope_of(envelope)
        put_go_ahead(scope, go_ahead)
        if envelope.action == RESUME:
            await answer(send, 200, await self._resume_parked(json.loads(body), envelope.whom))
            return
        endpoint = self._endpoints.get(envelope.view)
        if endpoint is None:
            await answer(send, 404, {"error": "no such view"})
            return
        reply = Reply(send, envelope.method, body)

        async def serve() -> None:
            own = self.ownership.mine(envelope.key)
            if envelope.action in (SESSION, PRINCIPAL) and (own is None or own.number != envelope.number):
                # Lost while the body arrived. From here on, a loss ends what is served.
                raise NotDelivered("the session was lost before the request was served")
            if envelope.action == SESSION:
                await endpoint.sessions.serve_owned(scope, receive, reply, body)
            else:
                await endpoint.serve(scope, receive, reply)

        try:
            await self._routing.serve_here(envelope.key, reply, serve, go_ahead)
        except NotDelivered:
            if envelope.asks or not reply.started:
                raise
            # What has begun cannot be taken back without frames.
            await reply.end_unknown()

    # -- parked calls

    async def resume_elsewhere(
        self, owner: str, name: str, principal: Principal, responses: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Go on with a call that is parked in another replica.

        Args:
            owner: The replica.
            name: The parked call.
            principal: Who answers its question.
            responses: The answers.

        Raises:
            Ended: it is gone, and the outcome of the call unknown.
            MCPError: the call ended with an error.
        """
        body = json.dumps({"name": name, "responses": responses}).encode()
        try:
            replica = await self.membership.find(owner)
            if replica is None:
                raise NotDelivered("the replica is gone")
            envelope = parked_envelope(owner, principal, body)
            async with self.forwarding.send(replica.address, envelope, body) as answered:
                said = json.loads(b"".join([chunk async for chunk in answered.chunks()]))
        except (NotDelivered, Lost, AddressRefused, StoreUnavailable) as error:
            log.info("gateway.fleet_parked_call_lost", reason=str(error))
            raise Ended(
                "The replica of the gateway in which this call waited is gone. It is not known whether the tool ran."
            ) from None
        if "error" in said:
            raise MCPError.from_error_data(ErrorData.model_validate(said["error"]))
        result: dict[str, Any] = said["result"]
        return result

    async def _resume_parked(self, asked: dict[str, Any], principal: Principal) -> dict[str, Any]:
        try:
            return {"result": await self._parking.resume(asked["name"], principal, asked["responses"])}
        except MCPError as error:
            return {"error": error.error.model_dump(mode="json", exclude_none=True)}

    # -- what is lost

    async def _drop(self) -> None:
        """The lease was lost: nothing that is held here may be used any more."""
        await self._give_up(self.ownership.drop_all())

    def _superseded(self, key: str) -> None:
        """The store has another owner than this replica."""
        own = self.ownership.mine(key)
        if own is not None and self.ownership.superseded(key, own.number + 1):
            # Beside the call that has noticed it, whose own connection is closed by it.
            self._background.start_soon(self._give_up, [key])

    async def _give_up(self, keys: list[str]) -> None:
        # First everything that takes no time: clients are told, and upstream sessions are cut off.
        for key in keys:
            self._routing.lose(key)
            self.handover.drop(key)
            what, _, name = key.partition("/")
            if what == SESSION:
                self._upstreams.release(name, drain=False)
            else:
                self._upstreams.release_principal(name)
        for key in keys:
            await self._put_away(key)

    async def _put_away(self, key: str) -> None:
        """Close what is open here for a key. A session's id stays good."""
        what, _, name = key.partition("/")
        if what != SESSION:
            self._upstreams.release_principal(name)
            return
        for endpoint in tuple(self._endpoints.values()):
            await endpoint.sessions.put_away(name)
