"""Exchanges a user's token for one that the upstream server accepts (RFC 8693). The user's token is sent only to the
authorization server."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

import httpx2

from mcpconn.auth.credentials import CredentialsRefused
from mcpconn.auth.single_flight import SingleFlight
from mcpconn.auth.token_requests import Fetch, default_fetch, request_tokens
from mcpconn.auth.token_response import Refused
from mcpconn.gateway.access.credentials import Inbound
from mcpconn.gateway.upstream_auth.config import TokenExchange
from mcpconn.redact.forms import basic
from mcpconn.redact.places import redact_url

GRANT = "urn:ietf:params:oauth:grant-type:token-exchange"
ACCESS_TOKEN = "urn:ietf:params:oauth:token-type:access_token"
LEEWAY = 10.0
"""Seconds before its expiry from which an exchanged token is no longer used."""
KEPT = 8
"""Maximum number of exchanged tokens and refusals kept for one user, who may have several tokens at once."""


@dataclass(frozen=True)
class _Exchanged:
    headers: Mapping[str, str] = field(repr=False)
    expires: float


class ExchangedToken:
    """One principal's credentials for one server.

    They are valid only as long as the token that the client sent last: when that expires, so do they, whatever lifetime
    the exchanged token has.
    """

    def __init__(
        self,
        settings: TokenExchange,
        *,
        server: str,
        url: str,
        fetch: Fetch = default_fetch,
        wall: Callable[[], float] = time.time,
    ) -> None:
        """
        Args:
            settings: The authorization server, and the audience and scopes to ask for.
            server: The server's name.
            url: Its address.
            fetch: Sends the request.
            wall: Seconds since 1970.
        """
        self._settings = settings
        self._server = server
        self._url = url
        self._fetch = fetch
        self._wall = wall
        self._inbound: Inbound | None = None
        self._failed: str | None = None
        """The digest of the last unusable inbound token."""
        self._known: OrderedDict[str, _Exchanged] = OrderedDict()
        self._refused: OrderedDict[str, str] = OrderedDict()
        self._flights: OrderedDict[str, SingleFlight[_Exchanged]] = OrderedDict()

    def offer(self, inbound: Inbound) -> bool:
        """Note the token of a request. Returns whether it differs from the previous one."""
        present = self._inbound
        if present is not None and (present.digest == inbound.digest or present.expires > inbound.expires):
            return False
        self._inbound = inbound
        return True

    @property
    def untried(self) -> bool:
        """Whether a new token has arrived since the last unusable one."""
        return self._inbound is not None and self._inbound.digest != self._failed

    async def headers(self) -> Mapping[str, str]:
        """The headers with the exchanged token.

        Raises:
            CredentialsRefused: the client's own token has expired, or was refused.
            CredentialsUnavailable: the authorization server does not answer.
        """
        inbound = self._valid()
        known = self._known.get(inbound.digest)
        if known is None or known.expires - LEEWAY <= self._wall():
            known = await self._exchange(inbound)
        return known.headers

    async def refresh(self, challenge: str | None) -> bool:
        """Exchange the client's token again, after the server has refused the previous result.

        Raises:
            CredentialsRefused, CredentialsUnavailable: as `headers`.
        """
        inbound = self._valid()
        before = self._known.pop(inbound.digest, None)
        after = await self._exchange(inbound)
        if before is None or after.headers != before.headers:
            return True
        self._failed = inbound.digest
        return False

    def _valid(self) -> Inbound:
        inbound = self._inbound
        if inbound is None or inbound.expires <= self._wall():
            self._failed = inbound.digest if inbound is not None else None
            raise CredentialsRefused("the client's own token has expired; its next request has to bring another")
        if (why := self._refused.get(inbound.digest)) is not None:
            self._failed = inbound.digest
            raise CredentialsRefused(why)
        return inbound

    async def _exchange(self, inbound: Inbound) -> _Exchanged:
        """Exchange a token. Concurrent requests for the same token share one exchange."""
        flight = self._flights.setdefault(inbound.digest, SingleFlight())
        _trim(self._flights)
        return await flight.run(lambda: self._ask(inbound))

    async def _ask(self, inbound: Inbound) -> _Exchanged:
        outcome = await request_tokens(self._request(inbound), self._fetch)
        if isinstance(outcome, Refused):
            name = redact_url(self._settings.token_endpoint)
            why = f"{name} does not exchange this client's token for one of {self._server!r}: {outcome.said}"
            if not outcome.registration:
                # A refused token would be refused again, so the refusal is remembered. A fault of the client's
                # registration can be corrected, so it is not.
                self._refused[inbound.digest] = why
                _trim(self._refused)
            self._failed = inbound.digest
            raise CredentialsRefused(why)
        life = outcome.expires_in
        end = inbound.expires if life is None else min(inbound.expires, self._wall() + life)
        made = _Exchanged({"Authorization": f"Bearer {outcome.access_token}"}, end)
        self._known[inbound.digest] = made
        _trim(self._known)
        return made

    def _request(self, inbound: Inbound) -> httpx2.Request:
        """The token request (RFC 8693, 2.1)."""
        settings = self._settings
        form = {
            "grant_type": GRANT,
            "subject_token": inbound.token,
            "subject_token_type": ACCESS_TOKEN,
            "requested_token_type": ACCESS_TOKEN,
            "audience": settings.audience,
            # RFC 8707: where the token will be used. Some authorization servers want only an audience instead.
            "resource": settings.resource or (self._url if settings.audience is None else None),
            "scope": " ".join(settings.scopes) or None,
        }
        headers = {}
        if settings.client_secret is not None:
            # RFC 6749, 2.3.1: both are percent-encoded before they are joined.
            pair = [quote(each or "", safe="") for each in (settings.client_id, settings.client_secret)]
            headers["authorization"] = basic(*pair)
        else:
            form["client_id"] = settings.client_id
        given = {key: value for key, value in form.items() if value is not None}
        return httpx2.Request("POST", settings.token_endpoint, data=given, headers=headers)

    def __repr__(self) -> str:
        return f"<ExchangedToken for {self._server}>"


def _trim(entries: OrderedDict[str, Any]) -> None:
    while len(entries) > KEPT:
        entries.popitem(last=False)
