"""OAuth with the SDK's own providers, as credentials that a connection can renew.

The SDK's provider is an `httpx2.Auth`. It holds one lock from before a request until the headers of its answer, so a
slow call delays all others. After a restart it has lost the expiry of its token and the location of the authorization
server, and requires a new login although it has a refresh token. And it does not coordinate with other processes. Here
the provider's steps run separately from the requests, once for all callers: `renewal` selects them, `grants` executes
them.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping

import anyio
from mcp.client.auth import OAuthClientProvider
from mcp.client.auth.utils import extract_scope_from_www_auth

from mcpconn.auth.credentials import CredentialsRefused, CredentialsStatus, CredentialsUnavailable
from mcpconn.auth.grants import Request
from mcpconn.auth.renewal import Renewer
from mcpconn.auth.single_flight import SingleFlight
from mcpconn.auth.token_requests import Fetch, default_fetch, refusal

logger = logging.getLogger("mcpconn")

LOGIN_TIMEOUT = 300.0
"""Seconds a person has to log in."""
PATIENCE = 10.0
"""Seconds that a request waits for an early renewal of its token. After that the old token is sent."""
PAUSE = 30.0
"""Seconds until that is tried again where the authorization server does not answer."""
FLOOR = 10.0
"""Seconds between two renewals ahead of time. A server whose tokens live shorter refuses them itself, and a clock
that is wrong must not make a token request of every request."""

SAVING, SAVE_EVERY = 0.25, 1.0
"""Seconds that a request waits while tokens are stored that could not be stored when they came, and between two such
attempts. A store that is back takes milliseconds."""

Note = Callable[[str], None]


def unheard(secret: str) -> None:
    """A callback that does nothing."""


class OAuth:
    """Credentials from a provider of `mcp.client.auth`: authorization code with PKCE, client credentials, or JWT.

    `headers` returns the token, and renews it when it has expired. `refresh` uses the refresh token, and
    if there is none, or it is refused, runs the provider's whole flow, a person's login included. A storage that is a
    `TokenStore` (`FileTokenStorage`) may be shared with other processes: one of them renews the tokens, and the others
    use the result.
    """

    def __init__(
        self,
        provider: OAuthClientProvider,
        *,
        login_timeout: float | None = LOGIN_TIMEOUT,
        fetch: Fetch | None = None,
    ) -> None:
        """
        Args:
            provider: The SDK's provider. It serves all sessions of all connections that are given this object.
            login_timeout: Seconds a person has to log in; None: indefinitely.
            fetch: Sends all requests of the flow, whatever `fetch` a connection brings; None: the connection's does.
        """
        self.provider = provider
        self._fetch = fetch
        self._renewer = Renewer(provider, login_timeout=login_timeout)
        self._flight: SingleFlight[bool] = SingleFlight()
        self._not_before = 0.0
        """When a token may be renewed ahead of time again, by the monotonic clock."""
        self._save_after = 0.0
        self._steps: dict[str, SingleFlight[bool]] = {}
        self._stepped: set[str] = set()
        """Scopes asked for since the last renewal. Asking again would only be refused again."""

    # -- what a connection asks for

    async def headers(self, *, fetch: Fetch | None = None, note: Note = unheard) -> Mapping[str, str]:
        """The access token, renewed first if its time is over; nothing if there is none yet.

        A failed renewal is not an error here: the old token is sent, and the server decides.

        Args:
            fetch: Sends the flow's requests; a client made for each does by default.
            note: Called with every secret that comes up.
        """
        renewer = self._renewer
        if renewer.held.unsaved and time.monotonic() >= self._save_after:
            # Others wait for them, and a crash would lose them.
            self._save_after = time.monotonic() + SAVE_EVERY
            with anyio.move_on_after(SAVING):
                await renewer.save()
        due = renewer.is_due() and time.monotonic() >= self._not_before
        if due or not renewer.held.loaded:
            await self._prolong(self._request(401, None, None, fetch, note))
        tokens = self.provider.context.current_tokens
        return {"Authorization": f"Bearer {tokens.access_token}"} if tokens is not None else {}

    async def _prolong(self, request: Request) -> None:
        wait, why = PAUSE, f"no answer within {PATIENCE:g} s"
        try:
            with anyio.move_on_after(PATIENCE):
                tried = await self._renewer.prolong(request)
                wait, why = FLOOR if tried else 0.0, ""
        except (CredentialsRefused, CredentialsUnavailable) as error:
            why = str(error)
            wait = max(PAUSE, getattr(error, "retry_after", None) or 0.0)
        if why:
            logger.info("oauth.not_prolonged why=%r", why)
        self._not_before = time.monotonic() + wait

    async def refresh(self, challenge: str | None) -> bool:
        """Get a new token: with the refresh token, or by the provider's whole flow.

        Raises:
            CredentialsRefused: a person has to act; the text says how.
            CredentialsUnavailable: the authorization server does not answer.
        """
        await self.renew(challenge)
        return True

    async def renew(
        self,
        challenge: str | None,
        *,
        version: str | None = None,
        fetch: Fetch | None = None,
        note: Note = unheard,
    ) -> bool:
        """As `refresh`, with what a connection knows besides.

        Args:
            challenge: The server's WWW-Authenticate header.
            version: The MCP-Protocol-Version header of the refused request, which decides what is asked for.
            fetch: Sends the flow's requests.
            note: Called with every secret that comes up.

        Returns:
            False if nothing had to be done: the storage holds another token than the refused one.
        """
        request = self._request(401, challenge, version, fetch, note)
        renewed = await self._flight.run(lambda: self._renewer.renew(request))
        if renewed:
            self._stepped.clear()
        return renewed

    async def step_up(
        self, challenge: str, *, version: str | None = None, fetch: Fetch | None = None, note: Note = unheard
    ) -> bool:
        """Get a token that allows more: the server refused a call with 403 and `insufficient_scope`.

        Returns:
            False if that was tried already, or was refused. The call's refusal stands then.
        """
        request = self._request(403, challenge, version, fetch, note)
        wanted = extract_scope_from_www_auth(request.refusal) or ""
        flight = self._steps.setdefault(wanted, SingleFlight())
        try:
            return await flight.run(lambda: self._step_up(request, wanted))
        except (CredentialsRefused, CredentialsUnavailable) as error:
            logger.warning("oauth.not_stepped_up scope=%r why=%r", wanted, str(error))
            return False

    async def _step_up(self, request: Request, wanted: str) -> bool:
        if wanted in self._stepped:
            return False
        await self._renewer.step_up(request)
        self._stepped.add(wanted)
        return True

    def _request(
        self, status: int, challenge: str | None, version: str | None, fetch: Fetch | None, note: Note
    ) -> Request:
        return Request(self.provider, refusal(status, challenge), version, self._fetch or fetch or default_fetch, note)

    def forget(self) -> None:
        """Read the storage again before the next request, because a person has logged in, perhaps in another
        process."""
        self._renewer.forget()
        self._stepped.clear()
        self._not_before = 0.0

    # -- what others show

    @property
    def secrets(self) -> tuple[str, ...]:
        """The secrets: the tokens, and the client's secret."""
        return self._renewer.held.secrets

    @property
    def forgotten_client(self) -> str | None:
        """Id of a registered client that the authorization server does not know any more; None: it knows ours."""
        return self._renewer.forgotten

    def status(self) -> CredentialsStatus:
        """For `Connection.status()`: nothing secret."""
        return self._renewer.held.status()

    def __repr__(self) -> str:
        return f"<OAuth {type(self.provider).__name__}>"
