"""Calls that may have to wait until their user logs in."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from mcpconn.connection import Connection
from mcpconn.errors import CallFailed
from mcpconn.gateway.clients.downstream import Call, is_modern
from mcpconn.gateway.clients.parked import Parked, ParkingLot
from mcpconn.gateway.clients.rounds import Rounds
from mcpconn.gateway.outcomes import unanswered
from mcpconn.gateway.rewrite import Json
from mcpconn.gateway.upstream_auth.offering import LoginNeeded, Offers

Attempt = Callable[[Parked | None], Awaitable[Json]]
"""Makes a request to a server, in the given task of the gateway if there is one."""


class LoginsOfCalls:
    """Runs calls, and asks their users to log in."""

    def __init__(self, offers: Offers, parking: ParkingLot) -> None:
        """
        Args:
            offers: Offers logins.
            parking: Runs calls whose client is asked through the call's result.
        """
        self._offers = offers
        self._parking = parking

    async def run(self, call: Call, connection: Connection, attempt: Attempt, parked: Parked | None) -> Json:
        """Make a request. If it is refused for lack of a login, have the user log in and repeat it once.

        Args:
            call: The client's call.
            connection: The connection to the server.
            attempt: Makes it.
            parked: The gateway's task that it runs in, if any.

        Raises:
            LoginNeeded: it was not made, because the user has not logged in.
            Exception: what the request raised.
        """
        try:
            return await attempt(parked)
        except CallFailed as error:
            if not self._offers.may_help(call, error):
                raise
            offer = await self._offers.offer(call, connection, error)

        async def after(parked: Parked | None) -> Json:
            call.parked = parked
            await self._offers.ask(call, offer)
            return await attempt(parked)

        return await self._asking(call, after, parked)

    async def _asking(self, call: Call, run: Attempt, parked: Parked | None) -> Json:
        """Run a call that may ask the client: in a task of its own if a modern client is asked through the result."""
        if parked is None and is_modern(call.ctx) and self._offers.elicits(call):
            begun = self._parking.begin(call.client.principal, run, expires=call.client.expires)
            return await self._parking.outcome(begun)
        return await run(parked)

    async def tool(self, call: Call, connection: Connection, rounds: Rounds) -> Json:
        """Run the tool `log_in`, by which a user logs in at a server.

        Args:
            call: The client's call; the login is for its server.
            connection: The user's connection to that server.
            rounds: The number of the call's round.
        """
        if rounds.parked is not None:
            client, responses = call.client, rounds.responses or {}
            return await self._parking.resume(rounds.parked, client.principal, responses, expires=client.expires)

        async def run(parked: Parked | None) -> Json:
            call.parked = parked
            return await self._offers.tool(call, connection)

        try:
            return await self._asking(call, run, None)
        except LoginNeeded as needed:
            return needed.result({})
        except CallFailed as error:
            return unanswered(error, call.server, {})
