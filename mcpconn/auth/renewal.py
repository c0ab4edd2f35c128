"""Renews the tokens of one provider: with the refresh token, which is never used twice, or by its own grant.

The order of the steps prevents any process from using a refresh token twice:

1. take the store's lock, if it has one, and read the record: another process may have renewed already;
2. write the record's next generation with a mark (compare-and-set: one writer succeeds);
3. send the refresh token;
4. write the generation after that, with the new tokens and without the mark.

If 2 fails, 3 does not happen. If the process dies between 2 and 4, a process that finds its mark does not send the
token: it may have been used, and a server that rotates refresh tokens ends the whole login when it sees one twice. A
person then has to log in, and the error says why. The process that wrote the mark may send the token again after an
answer was lost, because with that answer the next tokens were lost as well: nothing is left that a second use could
revoke.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import Any

import anyio
import httpx2
from mcp.client.auth import OAuthClientProvider, OAuthFlowError
from mcp.shared.auth import OAuthToken

from mcpconn.auth.credentials import CredentialsRefused, CredentialsUnavailable
from mcpconn.auth.discovery import AuthorizationServer, origin, same_issuer
from mcpconn.auth.grants import Request, log_in, merged, refresh_request
from mcpconn.auth.held import HeldTokens, Overtaken
from mcpconn.auth.registration import Client, belongs_to, is_dynamic
from mcpconn.auth.single_flight import finished
from mcpconn.auth.store import expiry
from mcpconn.auth.token_requests import GRACE, NoAnswer
from mcpconn.auth.token_response import Refused
from mcpconn.auth.words import words
from mcpconn.redact.places import redact_url
from mcpconn.sdk import oauth as sdk

ATTEMPTS = 5
"""Times that others may be first. Each of them has renewed, or has logged in or out."""


class Renewer:
    """Gets other tokens for one provider."""

    def __init__(self, provider: OAuthClientProvider, *, login_timeout: float | None) -> None:
        self.held = HeldTokens(provider)
        self._provider = provider
        self._context = provider.context
        self._login_timeout = login_timeout
        self._server: AuthorizationServer | None = None
        """Where the current tokens came from, as it was found last."""
        self._worthless: dict[str, str] = {}
        """A refresh token that was refused, and why."""
        self.forgotten: str | None = None
        """Id of a registration that the authorization server does not know any more."""
        self._candidate: Client | None = None
        """Its replacement, until a login with it has succeeded."""

    def forget(self) -> None:
        """Forget what was refused, because a person has logged in, perhaps in another process."""
        self.held.forget()
        self._worthless.clear()
        self.forgotten = self._candidate = None

    def is_due(self) -> bool:
        """Whether the access token's time is over, and there is a refresh token that was not refused."""
        return self.held.expiring and self._refreshable

    @property
    def _refreshable(self) -> bool:
        tokens = self._context.current_tokens
        return self._context.can_refresh_token() and tokens is not None and tokens.refresh_token not in self._worthless

    async def prolong(self, request: Request) -> bool:
        """Load the token, and renew it if its time is over.

        Returns:
            Whether it was.

        Raises:
            CredentialsRefused, CredentialsUnavailable: that cannot be done now.
        """
        held = self.held
        if not held.loaded:
            await held.load()
        if not self.is_due():
            return False
        async with held.alone():
            return await self._until_first(partial(self._prolong, request))

    async def save(self) -> None:
        """Store what could not be stored when it came. Never raises: it is tried again."""
        async with self.held.alone():
            with suppress(CredentialsRefused, CredentialsUnavailable):
                await self.held.load()

    async def renew(self, request: Request) -> bool:
        """Get other tokens than the present ones, by all means.

        Returns:
            False if the store held others already.

        Raises:
            CredentialsRefused: a person has to do something, and this says what.
            CredentialsUnavailable: it cannot be done now.
        """
        held = self.held
        before = held.access
        async with held.alone():
            return await self._until_first(partial(self._renew, request, before))

    async def step_up(self, request: Request) -> None:
        """Get tokens that allow more, by a login.

        Raises:
            CredentialsRefused, CredentialsUnavailable: as `renew`.
        """
        before = self.held.access
        async with self.held.alone():
            await self.held.load()
            if self.held.access == before:
                await self._log_in(request, "")

    async def _until_first(self, attempt: Callable[[], Awaitable[bool]]) -> bool:
        """Make an attempt, and repeat it whenever another process has written to the store first."""
        for _ in range(ATTEMPTS - 1):
            try:
                return await attempt()
            except Overtaken:
                continue
        return await attempt()

    async def _prolong(self, request: Request) -> bool:
        held = self.held
        await held.load()
        abandoned = await held.others()
        # An earlier refresh that was not finished: nothing is risked before the token is useless.
        unfinished = held.record.mark is not None or held.record.doubt is not None
        if self.is_due() and (not unfinished or held.expired):
            why = abandoned or await self._refresh(request)
            if why:
                raise CredentialsRefused(why)
        return True

    async def _renew(self, request: Request, before: str | None) -> bool:
        held = self.held
        await held.load()
        abandoned = await held.others()
        if held.access not in (None, before) and not held.expiring:
            return False
        why = abandoned or await self._refresh(request)
        if why is not None:
            await self._log_in(request, why)
        return True

    # -- the refresh token

    async def _refresh(self, request: Request) -> str | None:
        """Spend the refresh token. None: there are other tokens now. Otherwise why not, in words; "" at a first login.

        Raises:
            CredentialsRefused: what was found on the way must not be used.
            CredentialsUnavailable: nothing was decided.
        """
        tokens, record = self._context.current_tokens, self.held.record
        if tokens is None:
            return ""
        if tokens.refresh_token is None or not self._refreshable:
            return self._worthless.get(tokens.refresh_token or "", "there is no refresh token")
        server = self._server
        if server is None or record.issuer is None or not same_issuer(server.issuer, record.issuer):
            server = await request.find(record)
        why = self._not_for(server)
        if why is not None:
            return why
        try:
            outgoing = refresh_request(self._provider, tokens.refresh_token, server)
        except OAuthFlowError as error:
            return sdk.explained(error)
        return await finished(partial(self._spend, request, outgoing, server, tokens), GRACE)

    def _not_for(self, server: AuthorizationServer) -> str | None:
        """Why the refresh token must not be shown to an authorization server; None if it may."""
        record, client = self.held.record, self._context.client_info
        assert client is not None
        named = record.issuer or client.issuer or sdk.fixed_issuer(self._provider)
        asks = f"the MCP server now asks for tokens of {redact_url(server.issuer)}"
        if named is not None and not same_issuer(named, server.issuer):
            return f"the refresh token is of {redact_url(named)}, and {asks}"
        if not belongs_to(client, server, used_with=record.issuer):
            return f"the client is registered with {redact_url(str(client.issuer))}, and {asks}"
        if named is None and server.metadata is None:
            return "it is not known who issued the refresh token, and no authorization server is published"
        return None

    async def _spend(
        self, request: Request, outgoing: httpx2.Request, server: AuthorizationServer, tokens: OAuthToken
    ) -> str | None:
        held = self.held
        await held.mark()
        try:
            outcome = await request.tokens(outgoing, server)
        except NoAnswer as error:
            # What was found about the server may be out of date.
            self._server = None
            if not error.written:
                await held.unmark()
            raise
        except (CredentialsRefused, CredentialsUnavailable):
            await held.unmark()
            raise
        spent = tokens.refresh_token
        if isinstance(outcome, Refused):
            await held.unmark()
            return self._note_refused(outcome, spent)
        self._server = server
        renewed = merged(outcome, tokens)
        await held.renewed(spent, rotates=renewed.refresh_token != spent, **self._changes(renewed, server))
        return None

    def _changes(self, tokens: OAuthToken, server: AuthorizationServer) -> dict[str, Any]:
        """What tokens change in a record."""
        return {
            "tokens": tokens,
            "expires_at": expiry(tokens),
            "issuer": server.issuer,
            "server": origin(self._context.server_url),
            "basis": self.held.basis(),
        }

    def _note_refused(self, outcome: Refused, spent: str | None) -> str:
        client = self._context.client_info
        assert client is not None
        if outcome.registration and is_dynamic(client, self._provider):
            self.forgotten = client.client_id
            why = f"the authorization server does not know this client any more: {outcome.said}"
        elif outcome.registration:
            why = f"the authorization server does not accept the client {client.client_id!r}: {outcome.said}"
        else:
            why = f"the refresh token was refused: {outcome.said}"
        self._worthless[spent or ""] = why
        return why

    # -- a login

    async def _log_in(self, request: Request, why: str) -> None:
        """Run the provider's own grant. `why` that is necessary becomes part of the error.

        Raises:
            CredentialsRefused: no token came of it.
            CredentialsUnavailable: the authorization server does not answer.
        """
        context = self._context
        before = (context.current_tokens, context.token_expiry_time, context.client_info)
        if self._candidate is not None:
            context.client_info = self._candidate
        done, cause = False, None
        try:
            with anyio.fail_after(self._login_timeout):
                await log_in(request, self.held.record, forgotten=self.forgotten, keep=self._keep, commit=self._commit)
            done = True
            return
        except TimeoutError:
            failed = f"the login was not completed within {self._login_timeout or 0:g} s"
        except CredentialsUnavailable:
            raise
        except CredentialsRefused as error:
            failed, cause = str(error), error.__cause__
        except Exception as error:  # of the host's login handlers
            failed = f"the login failed: {words(error, self.held.hide)}"
        finally:
            if not done:
                context.current_tokens, context.token_expiry_time, context.client_info = before
        text = f"{why}; {failed}" if why else failed
        # Outside the handlers, so that no text of theirs hangs on this one.
        raise CredentialsRefused(text) from sdk.same_kind(cause, text)

    async def _keep(self, client: Client) -> None:
        """A client was registered. The one that it replaces is kept in the store until a login has succeeded."""
        if self.held.record.client is None:
            await self.held.write(lambda stored: stored.successor(client=client))
        else:
            self._candidate = client

    async def _commit(self, tokens: OAuthToken, server: AuthorizationServer) -> None:
        """A person has logged in, which supersedes everything in progress."""
        client = None if sdk.brings_client(self._provider) else self._context.client_info
        changes = self._changes(tokens, server)
        self._server, self._candidate, self.forgotten = server, None, None
        self._worthless.clear()
        await self.held.write(
            lambda stored: stored.successor(**changes, client=client or stored.client, rotates=None, mark=None)
        )
