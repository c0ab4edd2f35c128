"""OAuth with the SDK's own providers, as credentials that a connection can renew.

The SDK's provider is an `httpx2.Auth`. It holds one lock from before a request until the headers of its answer,
so that a slow call holds up all others; after a restart it forgets when its token expires and where the
authorization server is, and sends a person through the browser although it has a refresh token; and it knows
nothing of other processes. Here the same provider runs its flow step by step, but apart from the requests: what
it is fed is the refusal that a request met.
"""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

import anyio
import httpx2
from mcp.client.auth import OAuthClientProvider, OAuthFlowError
from mcp.client.auth.utils import extract_scope_from_www_auth
from mcp.shared.auth import OAuthToken
from mcp.shared.auth_utils import calculate_token_expiry

from mcpconn.auth.credentials import CredentialsRefused, CredentialsUnavailable
from mcpconn.auth.exchange import Fetch, default_fetch, refusal
from mcpconn.auth.flight import SingleFlight
from mcpconn.auth.flow import drive, spend
from mcpconn.redact import Redactor

logger = logging.getLogger("mcpconn")

LOGIN_TIMEOUT = 300.0
"""Seconds a person has to log in."""
LEEWAY = 10.0
"""Seconds before its end at which a token is renewed; a tenth of its remaining life where that is less."""
PATIENCE = 10.0
"""Seconds a request waits for a token to be renewed ahead of time. After that the server may say what it thinks."""
PAUSE = 30.0
"""Seconds until that is tried again where the authorization server does not answer."""


class OAuth:
    """Credentials from a provider of `mcp.client.auth`: authorization code with PKCE, client credentials, or JWT.

    `headers` gives the token, and renews it when its time is over. `refresh` spends the refresh token, and
    where there is none, or it is refused, runs the provider's whole flow, a person's login included. A storage
    with a `lock` (`FileTokenStorage`) is locked meanwhile and read first: another process may have done it.
    """

    def __init__(self, provider: OAuthClientProvider, *, login_timeout: float | None = LOGIN_TIMEOUT) -> None:
        """
        Args:
            provider: The SDK's provider. It serves all sessions of all connections that are given this object.
            login_timeout: Seconds a person has to log in; None: for ever.
        """
        self.provider = provider
        self._login_timeout = login_timeout
        self._context = provider.context
        self._loaded = False
        self._unsaved = False
        self._lock = anyio.Lock()
        self._flight: SingleFlight[bool] = SingleFlight()
        self._not_before = 0.0
        self._worthless: str | None = None
        """A refresh token that the authorization server has refused."""
        self._steps: dict[str, SingleFlight[bool]] = {}
        self._stepped: set[str] = set()
        """Scopes asked for since the last renewal. Asking again would only be refused again."""

    # -- what a connection asks for

    async def headers(self, *, fetch: Fetch | None = None) -> Mapping[str, str]:
        """The access token, renewed first if its time is over; nothing where there is none yet.

        A renewal that fails is no error here: the token is sent as it is, and the server says what it thinks.
        """
        due = self._expiring() and self._refreshable() and time.time() >= self._not_before
        if due or not self._loaded:
            try:
                with anyio.move_on_after(PATIENCE):
                    await self._prolong(fetch or default_fetch)
            except (CredentialsRefused, CredentialsUnavailable) as error:
                self._not_before = time.time() + PAUSE
                logger.info("oauth.not_prolonged why=%r", str(error))
        tokens = self._context.current_tokens
        return {"Authorization": f"Bearer {tokens.access_token}"} if tokens is not None else {}

    async def refresh(self, challenge: str | None) -> bool:
        """Get another token: with the refresh token, or by the provider's whole flow.

        Raises:
            CredentialsRefused: a person has to do something, and this says what.
            CredentialsUnavailable: the authorization server does not answer.
        """
        await self.renew(challenge)
        return True

    async def renew(self, challenge: str | None, *, version: str | None = None, fetch: Fetch | None = None) -> bool:
        """As `refresh`, with what a connection knows besides.

        Args:
            challenge: The server's WWW-Authenticate header.
            version: The MCP-Protocol-Version header of the refused request, which decides what is asked for.
            fetch: Sends the flow's requests; a client made for each does where none is given.

        Returns:
            False where nothing had to be done: the storage holds another token than the refused one.
        """
        return await self._flight.run(lambda: self._renew(refusal(401, challenge), version, fetch or default_fetch))

    async def step_up(self, challenge: str, *, version: str | None = None, fetch: Fetch | None = None) -> bool:
        """Get a token that allows more: the server refused a call with 403 and `insufficient_scope`.

        Returns:
            False where that was tried already, or was refused. The call's refusal stands then.
        """
        refused = refusal(403, challenge)
        wanted = extract_scope_from_www_auth(refused) or ""
        flight = self._steps.setdefault(wanted, SingleFlight())
        try:
            return await flight.run(lambda: self._step_up(refused, wanted, version, fetch or default_fetch))
        except (CredentialsRefused, CredentialsUnavailable) as error:
            logger.warning("oauth.not_stepped_up scope=%r why=%r", wanted, str(error))
            return False

    def forget(self) -> None:
        """Read the storage anew before the next request: somebody has logged in, perhaps in another process."""
        self._loaded = self._unsaved = False
        self._worthless = None
        self._stepped.clear()

    # -- tokens

    @property
    def _access(self) -> str | None:
        tokens = self._context.current_tokens
        return tokens.access_token if tokens is not None else None

    def _expiring(self) -> bool:
        tokens, end = self._context.current_tokens, self._context.token_expiry_time
        if tokens is None or end is None:
            return False
        return time.time() >= end - min(LEEWAY, (tokens.expires_in or 0) / 10)

    def _refreshable(self) -> bool:
        tokens = self._context.current_tokens
        return self._context.can_refresh_token() and tokens is not None and tokens.refresh_token != self._worthless

    @asynccontextmanager
    async def _alone(self) -> AsyncIterator[None]:
        """Keep others from renewing: in this process, and in those that share the storage."""
        lock = getattr(self._context.storage, "lock", None)
        async with self._lock:
            if lock is None:
                yield
                return
            async with lock():
                yield

    async def _load(self) -> None:
        """Read the storage, which another process may have written to."""
        if self._unsaved and self._context.current_tokens is not None:
            await self._save(self._context.current_tokens)
        if self._unsaved:
            return
        before = self._access
        await self.provider._initialize()
        self._loaded = True
        tokens = self._context.current_tokens
        if tokens is None or tokens.access_token != before:
            # The provider does this only for tokens that it received. (Most storages keep `expires_in` as it
            # was then: what is known already is more exact.)
            self._context.token_expiry_time = calculate_token_expiry(tokens.expires_in) if tokens else None

    async def _save(self, tokens: OAuthToken) -> None:
        """Store tokens. Where that cannot be done they are used all the same: they may be the only ones."""
        try:
            await self._context.storage.set_tokens(tokens)
            self._unsaved = False
        except Exception as error:
            self._keep_unsaved(error)

    def _keep_unsaved(self, error: Exception) -> None:
        logger.error("oauth.not_saved storage=%s why=%r", type(self._context.storage).__name__, self._hide(str(error)))
        self._unsaved = True

    async def _prolong(self, fetch: Fetch) -> None:
        """Load the token, and renew it if its time is over."""
        if not self._loaded:
            await self._load()
        if not (self._expiring() and self._refreshable()):
            return
        async with self._alone():
            await self._load()
            if self._expiring() and self._refreshable():
                await self._spend(refusal(401, None), None, fetch)

    async def _step_up(self, refused: httpx2.Response, wanted: str, version: str | None, fetch: Fetch) -> bool:
        before = self._access
        async with self._alone():
            if self._access == before:
                if wanted in self._stepped:
                    return False
                await self._log_in(refused, version, fetch)
                self._stepped.add(wanted)
            return True

    async def _renew(self, refused: httpx2.Response, version: str | None, fetch: Fetch) -> bool:
        before = self._access
        async with self._alone():
            await self._load()
            if self._access not in (None, before) and not self._expiring():
                return False
            why = await self._spend(refused, version, fetch) if self._refreshable() else "there is no refresh token"
            if why is not None:
                await self._log_in(refused, version, fetch, why=why)
            self._stepped.clear()
            return True

    # -- the refresh token

    async def _spend(self, refused: httpx2.Response, version: str | None, fetch: Fetch) -> str | None:
        """Get tokens for the refresh token. Otherwise, why it is worth nothing any more."""
        tokens = self._context.current_tokens
        spent = tokens.refresh_token if tokens is not None else None
        try:
            why = await spend(self.provider, refused, version, fetch, save=self._save)
        except OAuthFlowError as error:
            why = self._hide(str(error))
        if why is not None:
            self._worthless = spent
        return why

    # -- the provider's whole flow

    async def _log_in(
        self, refused: httpx2.Response, version: str | None, fetch: Fetch, *, why: str | None = None
    ) -> None:
        """Have the provider run its flow, as if it had sent a request that was so refused.

        Raises:
            CredentialsRefused: no token came of it.
            CredentialsUnavailable: the authorization server does not answer.
        """
        context = self._context
        before, expiry = context.current_tokens, context.token_expiry_time
        if refused.status_code == 401:
            # Otherwise the flow would begin with the refresh token.
            context.clear_tokens()
        failed: str
        try:
            with anyio.fail_after(self._login_timeout):
                await drive(self.provider, refused, version, fetch)
            return
        except TimeoutError:
            failed = f"nobody logged in within {self._login_timeout:g} s" if self._login_timeout else "no answer"
        except CredentialsUnavailable:
            raise
        except CredentialsRefused as error:
            failed = str(error)
        except Exception as error:  # the provider's own errors, those of the host's login handlers, of the storage
            if self._access is not None and context.current_tokens is not before:
                self._keep_unsaved(error)
                return
            failed = self._hide(str(error)) or type(error).__name__
        finally:
            if context.current_tokens is None:
                context.current_tokens, context.token_expiry_time = before, expiry
        known = f"{why}; " if why and before is not None else ""
        raise CredentialsRefused(f"{known}{failed}")

    def _hide(self, text: str) -> str:
        tokens, client = self._context.current_tokens, self._context.client_info
        known = [tokens.access_token, tokens.refresh_token] if tokens is not None else []
        if client is not None:
            known.append(client.client_secret)
        return Redactor(value for value in known if value)(text)

    def __repr__(self) -> str:
        return f"<OAuth {type(self.provider).__name__}>"
