"""How a client is told that its user must log in at a server: by a URL elicitation, or by a link in a text."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import anyio
import mcp_types as types
from mcp import MCPError
from mcp_types import INVALID_REQUEST

from mcpconn.connection import Connection
from mcpconn.core.failures import FailureKind
from mcpconn.core.outcome import Outcome
from mcpconn.errors import CallFailed
from mcpconn.gateway.clients.downstream import Call
from mcpconn.gateway.outcomes import OUTCOME, tool_error
from mcpconn.gateway.principals import Principal
from mcpconn.gateway.rewrite import Json
from mcpconn.gateway.store import StoreUnavailable
from mcpconn.gateway.upstream_auth.logins import GOOD_FOR, Invitation, LoginFailed, UserOAuth
from mcpconn.gateway.upstream_auth.page import LOGIN
from mcpconn.gateway.upstream_auth.users import UserAuth, lacks_credentials

LOGIN_META = "mcpconn/login"
"""Key in the `_meta` of a failed result, and in an error's data: the link with which the user logs in."""
LOGIN_TOOL = "log_in"
"""The tool that a server lists until the user has logged in, because the server's own tools are unknown until then."""
LOOK = 1.0
"""Seconds between two checks for a login that was made through another process of the gateway."""
OFFERED_AGAIN = 300.0
"""Seconds for which the same link is offered again; after that it is still valid for at least as long."""


class LoginNeeded(MCPError):
    """A call was not made, because its user has to log in first. The text has the link."""

    def __init__(self, text: str, url: str | None = None) -> None:
        super().__init__(INVALID_REQUEST, text, {OUTCOME: "not_run", **({LOGIN_META: url} if url else {})})

    def result(self, meta: Json) -> Json:
        """The same as a tool's result."""
        link = {key: value for key, value in self.error.data.items() if key != OUTCOME}
        return tool_error(self.error.message, "not_run", {**meta, **link})


@dataclass(frozen=True)
class Offer:
    """A login that a call needs; nothing if it is enough to retry the call."""

    server: str
    connection: Connection
    url: str | None
    elicitation: str = ""
    """The elicitation's id."""


class Offers:
    """Offers logins to clients whose calls need one."""

    def __init__(self, users: UserAuth, *, page: Callable[[Call], str | None]) -> None:
        """
        Args:
            users: The users' credentials.
            page: The gateway's own address, as a client knows it; None if it has none (over stdio).
        """
        self._users = users
        self._page = page
        self._made: dict[tuple[Principal, str], tuple[Invitation, float]] = {}
        self._waiting: dict[tuple[Principal, str], anyio.Event] = {}

    def may_help(self, call: Call, error: CallFailed) -> bool:
        """Whether a call was not run for lack of credentials that its user could have."""
        lacking = error.failure.kind is FailureKind.AUTH and error.outcome == Outcome.NOT_RUN
        return lacking and self._users.own(call.server)

    def elicits(self, call: Call) -> bool:
        """Whether the client opens links for its user (URL elicitation, MCP 2025-11-25)."""
        said = call.ctx.session.client_capabilities
        return said is not None and said.elicitation is not None and said.elicitation.url is not None

    async def offer(self, call: Call, connection: Connection, error: CallFailed) -> Offer:
        """What a call that failed with `error` needs.

        Raises:
            CallFailed: `error`, because a login of the user would not help.
            LoginNeeded: no link can be made; the text says why.
        """
        server = call.server
        if await self._users.revive(connection, server, call.client):
            return Offer(server, connection, None)
        credentials, _ = self._users.credentials(server, call.client)
        if not isinstance(credentials, UserOAuth):
            raise error
        page = self._page(call)
        if page is None:
            raise error
        try:
            invitation = await self._invitation(call.client.principal, server, credentials)
        except (LoginFailed, StoreUnavailable) as failed:
            why = str(failed)
        else:
            return Offer(server, connection, f"{page}{LOGIN}{invitation.id}", invitation.id)
        raise LoginNeeded(f"MCP server {server!r} needs a login of the user's own, and nothing was run. {why}")

    async def _invitation(self, principal: Principal, server: str, credentials: UserOAuth) -> Invitation:
        made, at = self._made.get((principal, server), (None, 0.0))
        now = time.monotonic()
        if made is not None and now - at < OFFERED_AGAIN and made.challenge == credentials.challenge:
            return made
        for place in [place for place, (_, since) in self._made.items() if now - since >= OFFERED_AGAIN]:
            del self._made[place]
        forgotten = credentials.forgotten_client
        made = await self._users.logins.invite(principal, server, credentials.challenge, forgotten=forgotten)
        self._made[principal, server] = made, now
        return made

    async def ask(self, call: Call, offer: Offer) -> None:
        """Ask the user to log in, and wait until that has happened.

        Raises:
            LoginNeeded: the client cannot open links, or its user did not log in.
        """
        if offer.url is None:
            return
        what = f"MCP server {offer.server!r} needs a login of the user's own, so nothing was run."
        link = f"The link is for this user alone and good for {GOOD_FOR / 60:.0f} minutes: {offer.url}"
        if not self.elicits(call):
            raise LoginNeeded(
                f"{what} Ask the user to open this link in a browser and to log in, then call again. {link}", offer.url
            )
        answer = await self._elicit(call, offer)
        if answer.action != "accept":
            raise LoginNeeded(f"{what} The user did not want to log in now. Call again only if asked to.")
        with anyio.move_on_after(GOOD_FOR):
            await self._logged_in(call, offer)
            if call.parked is None:
                await call.notify("notifications/elicitation/complete", {"elicitationId": offer.elicitation})
            return
        raise LoginNeeded(f"{what} The login was not finished within {GOOD_FOR / 60:.0f} minutes. Call again to begin.")

    async def _elicit(self, call: Call, offer: Offer) -> types.ElicitResult:
        assert offer.url is not None
        question = types.ElicitRequest(
            params=types.ElicitRequestURLParams(
                message=f"Log in at {offer.server} to use it through this gateway.",
                url=offer.url,
                elicitation_id=offer.elicitation,
            )
        )
        if call.parked is not None:
            return types.ElicitResult.model_validate(await call.parked.ask(question), by_name=False)
        answer: types.ElicitResult = await call.ask(question, types.ElicitResult)
        return answer

    async def _logged_in(self, call: Call, offer: Offer) -> None:
        place = call.client.principal, offer.server
        while lacks_credentials(offer.connection):
            if await self._users.revive(offer.connection, offer.server, call.client):
                return
            event = self._waiting.setdefault(place, anyio.Event())
            with anyio.move_on_after(LOOK):
                await event.wait()

    def done(self, principal: Principal, server: str) -> None:
        """A user has logged in: resume the calls that wait for it."""
        self._made.pop((principal, server), None)
        if (event := self._waiting.pop((principal, server), None)) is not None:
            event.set()

    # -- the tool

    async def tool(self, call: Call, connection: Connection) -> Json:
        """`log_in`: the only tool of a server until its user has logged in."""
        server = call.server
        try:
            await connection.wait_ready(connection.policy.call_timeout)
        except CallFailed as error:
            if not self.may_help(call, error):
                raise
            offer = await self.offer(call, connection, error)
            try:
                await self.ask(call, offer)
            except LoginNeeded as needed:
                if needed.error.data.get(LOGIN_META) is None:
                    return needed.result({})
                text = f"To log in at {server!r}, the user has to open this link in a browser: {offer.url}"
                return {"content": [{"type": "text", "text": text}], "_meta": {LOGIN_META: offer.url}}
        text = f"The user is logged in at {server!r}. List the tools again to see what it offers."
        return {"content": [{"type": "text", "text": text}]}


def login_tool(server: str, name: str) -> Json:
    """The entry of `log_in` in a list of tools.

    Args:
        server: The server's name.
        name: The tool's public name.
    """
    return {
        "name": name,
        "title": f"Log in at {server}",
        "description": f"MCP server {server!r} shows its tools to users who have logged in there. Call this to get a "
        "link for the user; the server's own tools are listed after that.",
        "inputSchema": {"type": "object", "properties": {}},
        "annotations": {"readOnlyHint": True, "idempotentHint": True, "openWorldHint": True},
    }
