"""Connects credentials with a connection: adds them to each request, and lets the supervisor renew them."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Mapping
from typing import Any
from weakref import WeakKeyDictionary

import httpx2
from mcp.client.auth import OAuthClientProvider, OAuthFlowError
from mcp.client.auth.utils import extract_field_from_www_auth
from pydantic import ValidationError

from mcpconn.auth.credentials import (
    Credentials,
    CredentialsRefused,
    CredentialsStatus,
    CredentialsUnavailable,
    FromCallable,
    StaticBearer,
)
from mcpconn.auth.oauth import OAuth
from mcpconn.auth.single_flight import SingleFlight
from mcpconn.auth.stored import provider_of
from mcpconn.auth.token_requests import VERSION_HEADER, Fetch, is_token_request
from mcpconn.auth.token_response import plain
from mcpconn.auth.words import from_host, words
from mcpconn.headers import BadHeader, checked_headers
from mcpconn.login import Login
from mcpconn.redact.places import secrets_of_headers
from mcpconn.redact.redactor import Redactor
from mcpconn.sdk import oauth as sdk

Flow = AsyncGenerator[httpx2.Request, httpx2.Response]

logger = logging.getLogger("mcpconn")

_FLIGHTS: WeakKeyDictionary[Any, SingleFlight[tuple[bool, bool]]] = WeakKeyDictionary()
"""The renewal that is in progress, for credentials that serve several connections."""


class RequestAuth(httpx2.Auth):
    """The credentials of one connection: adds them to requests, and records which were refused.

    The credentials themselves may serve many connections. Where another one has renewed them already, there is
    nothing left to renew here.
    """

    def __init__(self, auth: Any, *, redact: Redactor, fetch: Fetch | None = None, url: str = "") -> None:
        """
        Args:
            auth: The configured credentials: see `as_credentials`; or a `Login`.
            redact: Called with every secret that is sent, for servers that say it back.
            fetch: Sends the requests of an OAuth flow.
            url: The server that a `Login` is for.

        Raises:
            TypeError: `auth` is nothing that could be used.
        """
        self.credentials = as_credentials(provider_of(auth, url) if isinstance(auth, Login) else auth)
        """What is used: credentials, or an `httpx2.Auth` that runs as it is."""
        self._redact = redact
        self._fetch = fetch
        self._served: Mapping[str, str] | None = None
        self._refused: Mapping[str, str] | None = None
        self._version: str | None = None
        self._learned: tuple[str, ...] = ()
        self.found = False
        """The last renewal found that others had renewed, and did nothing itself."""

    @property
    def renewable(self) -> bool:
        """Whether a refusal can be answered by a renewal at all."""
        renewable: bool = getattr(self.credentials, "renewable", True)
        return renewable and not isinstance(self.credentials, httpx2.Auth)

    def update(self, auth: Any) -> None:
        """Use `auth` from now on; None reads the present credentials again: they were renewed at their source."""
        if auth is not None:
            self.credentials = as_credentials(auth)
            return
        forget = getattr(self.credentials, "forget", None)
        if callable(forget):
            forget()

    def status(self) -> CredentialsStatus:
        """For `Connection.status()`: what kind of credentials these are, and what they wait for. Nothing secret."""
        told = getattr(self.credentials, "status", None)
        if isinstance(self.credentials, OAuth) and callable(told):
            return told()  # type: ignore[no-any-return]
        return {"kind": type(self.credentials).__name__}

    # -- for the supervisor

    async def refresh(self, challenge: str | None) -> bool:
        """Renew the credentials, unless another connection has done it since they were refused here.

        Raises:
            CredentialsRefused: a person has to do something.
            CredentialsUnavailable: it could not be tried now.
        """
        auth = self.credentials
        if isinstance(auth, httpx2.Auth):
            return False

        async def refresh() -> bool:
            if self._refused is not None and _sendable(await self._headers(auth)) != self._refused:
                self.found = True
                return True
            renewed, self.found = await _flight_of(auth).run(lambda: self._renew(auth, challenge))
            return renewed

        try:
            return await from_host(refresh, "the credentials cannot be renewed now", self._redact)
        finally:
            self._learn(auth)

    async def _renew(self, auth: Credentials, challenge: str | None) -> tuple[bool, bool]:
        if isinstance(auth, OAuth):
            renewed = await auth.renew(challenge, version=self._version, fetch=self._fetch, note=self._note)
            return True, not renewed
        return await auth.refresh(challenge), False

    # -- for requests

    async def async_auth_flow(self, request: httpx2.Request) -> Flow:
        """Add the credentials to a request; record whether they were refused."""
        auth = self.credentials
        flow = self._theirs(auth, request) if isinstance(auth, httpx2.Auth) else self._ours(auth, request)
        try:
            outgoing = await flow.__anext__()
            while True:
                response = yield outgoing
                outgoing = await flow.asend(response)
        except StopAsyncIteration:
            return
        finally:
            await flow.aclose()

    async def _ours(self, auth: Credentials, request: httpx2.Request) -> Flow:
        headers = await self._current(auth)
        self._put(request, headers)
        response = yield request
        challenge = response.headers.get("www-authenticate")
        if response.status_code == 401 and headers == self._served:
            self._refused = headers
            self._version = request.headers.get(VERSION_HEADER)
        elif response.status_code == 403 and isinstance(auth, OAuth) and challenge is not None:
            if extract_field_from_www_auth(response, "error") != "insufficient_scope":
                return
            version = request.headers.get(VERSION_HEADER)
            if await auth.step_up(challenge, version=version, fetch=self._fetch, note=self._note):
                self._put(request, await self._current(auth))
                yield request

    async def _current(self, auth: Credentials) -> dict[str, str]:
        """What the credentials give now.

        Raises:
            CredentialsRefused: it can be no header.
            CredentialsUnavailable: there is nothing now.
        """

        async def headers() -> dict[str, str]:
            return _sendable(await self._headers(auth))

        try:
            return await from_host(headers, "no credentials are available now", self._redact)
        finally:
            self._learn(auth)

    async def _theirs(self, auth: httpx2.Auth, request: httpx2.Request) -> Flow:
        """An `httpx2.Auth` runs as it is. What it sends is noted as secret, and what it raises is not passed on.

        Token responses reach it in plain JSON: the SDK's parsers quote what they cannot read, new tokens included.
        """
        flow = auth.async_auth_flow(request)
        failed: CredentialsRefused | CredentialsUnavailable
        try:
            outgoing = await flow.__anext__()
            while True:
                self._note(outgoing.headers.get("authorization", ""))
                outgoing.headers.update(_sendable(dict(outgoing.headers.items()), framing=True))
                response = yield outgoing
                if outgoing is not request and is_token_request(outgoing):
                    await response.aread()
                    response = plain(response, outgoing, self._note)
                outgoing = await flow.asend(response)
        except StopAsyncIteration:
            return
        except (CredentialsRefused, CredentialsUnavailable, httpx2.TransportError):
            raise
        except (OAuthFlowError, ValidationError) as error:
            failed = CredentialsRefused(words(error, self._redact))
        except Exception as error:  # credentials are host code
            failed = CredentialsUnavailable(f"no credentials are available now: {words(error, self._redact)}")
        finally:
            await flow.aclose()
        raise failed

    async def _headers(self, auth: Credentials) -> Mapping[str, str]:
        if isinstance(auth, OAuth):
            return await auth.headers(fetch=self._fetch, note=self._note)
        return await auth.headers()

    def _put(self, request: httpx2.Request, headers: dict[str, str]) -> None:
        if headers != self._served:
            self._served = headers
            for secret in secrets_of_headers(headers):
                self._note(secret)
        request.headers.update(headers)

    def _note(self, secret: str) -> None:
        """Hide `secret` in everything that this connection shows."""
        if secret:
            self._redact.learn(secret)

    def _learn(self, auth: Credentials) -> None:
        if isinstance(auth, OAuth) and auth.secrets != self._learned:
            self._learned = auth.secrets
            for secret in self._learned:
                self._note(secret)


def renewable(auth: RequestAuth | None) -> RequestAuth | None:
    """What the supervisor renews when a server refuses a dial; None when a refusal is final."""
    return auth if auth is not None and auth.renewable else None


def as_credentials(auth: Any) -> Credentials | httpx2.Auth:
    """What a configuration gives as `auth`, in one of the two forms that requests understand.

    A string is a bearer token. A provider of the SDK is wrapped in `OAuth`, unless its class has a flow of its
    own, or the SDK is so new that its parts are not known: that one, and any other `httpx2.Auth`, runs as it is.
    A callable is wrapped in `FromCallable`.

    Raises:
        TypeError: none of these.
    """
    if isinstance(auth, str):
        return StaticBearer(auth)
    if isinstance(auth, OAuthClientProvider) and not sdk.has_own_flow(type(auth)):
        missing = sdk.missing(auth)
        if not missing:
            # One wrapper for a provider, wherever it is given: it is the wrapper that keeps renewals apart.
            wrapper: OAuth = auth.__dict__.setdefault("_mcpconn_oauth", OAuth(auth))
            return wrapper
        logger.warning(
            "oauth.unknown_sdk version=%s missing=%s: the provider runs by itself, without refreshes for all at once",
            sdk.installed(),
            ", ".join(missing),
        )
    if isinstance(auth, (httpx2.Auth, Credentials)):
        return auth
    if callable(auth):
        return FromCallable(auth)
    raise TypeError(f"auth must be a token, credentials, a callable or an httpx2.Auth, not {type(auth).__name__}")


def _sendable(headers: Mapping[str, str], *, framing: bool = False) -> dict[str, str]:
    """Headers as a request can carry them. A library would quote the value of a bad one in its error.

    Raises:
        CredentialsRefused: it cannot carry them; only the supplier of the credentials can change that.
    """
    try:
        return checked_headers(headers, framing=framing)
    except BadHeader as error:
        raise CredentialsRefused(f"the credentials cannot be sent: {error}") from None


def _flight_of(auth: Credentials) -> SingleFlight[tuple[bool, bool]]:
    try:
        return _FLIGHTS.setdefault(auth, SingleFlight())
    except TypeError:
        # It cannot be a key (no hash, or no weak references): then it is on its own.
        return SingleFlight()
