"""Checks the ownership before and after each request to a server on behalf of owned state."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from mcpconn.connection import Connection
from mcpconn.gateway.fleet.go_ahead import ask_go_ahead, take_back_go_ahead
from mcpconn.gateway.fleet.handover import CHILD, Handover, Upstream
from mcpconn.gateway.fleet.membership import Membership, OwnershipLost
from mcpconn.gateway.rewrite import Json
from mcpconn.keys import NEW_SESSION


class Guard:
    """One request's."""

    def __init__(
        self, membership: Membership, handover: Handover, key: str, server: str, *, superseded: Callable[[], None]
    ) -> None:
        """
        Args:
            membership: This replica's lease.
            handover: Called with upstream sessions before they are used.
            key: What the request belongs to.
            server: Where it goes.
            superseded: Called when the store turns out to have another owner although the lease was kept: a replica
                with other sealing keys, or whoever can write to the store, has overwritten the record.
        """
        self._superseded = superseded
        self._membership = membership
        self._handover = handover
        self._key = key
        self._server = server
        self._name = membership.name
        self.sent = False
        """Whether it was let out."""

    async def note(self, connection: Connection) -> None:
        """Write down the session that the request goes out on. It costs a write when the session is a new one.

        Raises:
            OwnershipLost: nothing may be sent.
        """
        upstream = upstream_of(connection)
        if upstream is not None:
            try:
                await self._handover.note(self._key, self._server, upstream)
            except OwnershipLost:
                # Otherwise this replica would go on as the owner, and refuse each call of the session.
                self._superseded()
                raise OwnershipLost(sent=self.sent) from None

    async def before(self) -> None:
        """To be awaited immediately before the request goes out, after everything else that waits.

        Raises:
            OwnershipLost: nothing may be sent.
        """
        await self._check()
        self.sent = True

    async def after(self) -> None:
        """To be awaited when the answer has come.

        Raises:
            OwnershipLost: the answer came to a replica that is no longer the owner, and counts for nothing.
        """
        await self._check()

    def told(self, answer: Json) -> Json:
        """The answer, with the word that the upstream session is a new one, if it is."""
        news = self._handover.news(self._key, self._server)
        return answer if news is None else {**answer, "_meta": {**(answer.get("_meta") or {}), NEW_SESSION: news}}

    async def _check(self) -> None:
        try:
            await self._membership.check(self._name)
        except OwnershipLost:
            raise OwnershipLost(sent=self.sent) from None


async def let_out(
    request: Any, connection: Connection, before: Callable[[], Awaitable[None]] | None, guard: Guard | None
) -> None:
    """Everything that has to happen immediately before a request goes to its server, in order.

    Args:
        request: The client's HTTP request; None over stdio.
        connection: Where it goes.
        before: Writes the ledger's record.
        guard: Of owned state.

    Raises:
        OwnershipLost: it may not go out.
    """
    try:
        if guard is not None:
            await guard.note(connection)
        # After that write, because a call whose owner is lost between the go-ahead and the request is unknown; before
        # the ledger's record, which a call that may not go out does not need.
        await ask_go_ahead(request)
        if before is not None:
            await before()
        if guard is not None:
            await guard.before()
    except OwnershipLost as error:
        if not error.sent:
            take_back_go_ahead(request)
        raise


def upstream_of(connection: Connection) -> Upstream | None:
    """The present session of a connection, as a successor has to know it; None if it keeps no state."""
    if connection.config.kind != "http":
        return CHILD
    session = connection.session_id
    return None if session is None else (session, connection.protocol_version)
