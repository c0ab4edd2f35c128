"""The login at one of the servers, which all replicas share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import anyio
import httpx2
from mcp.client.auth import OAuthClientProvider
from mcp.shared.auth import OAuthClientInformationFull, OAuthClientMetadata, OAuthToken
from pydantic import AnyUrl

from mcpconn.gateway.principals import Principal
from mcpconn.gateway.store import Store
from mcpconn.gateway.upstream_auth.tokens import PrincipalTokens
from mcpconn.seal import KeyRing
from tests.auth.servers import ORIGIN, Answer, AuthServer, Guarded

TOKENS_TAKE = 0.4
"""Seconds from the use of a refresh token to the arrival of what it returns."""
METADATA = OAuthClientMetadata(redirect_uris=[AnyUrl("http://localhost:1/callback")])


def storage(store: Store, ring: KeyRing) -> PrincipalTokens:
    """Where the tokens are."""
    sealer = ring.sealer("login")
    return PrincipalTokens(store, sealer, principal=Principal("all"), server="safe", url=f"{ORIGIN}/mcp")


def provider(store: Store, ring: KeyRing) -> OAuthClientProvider:
    """A replica's provider."""
    return OAuthClientProvider(f"{ORIGIN}/mcp", METADATA, storage(store, ring))


async def log_in(store: Store, ring: KeyRing, server: AuthServer) -> None:
    """Store the tokens of a login."""
    tokens = storage(store, ring)
    await tokens.set_client_info(OAuthClientInformationFull(client_id="c", issuer=ORIGIN))
    await tokens.set_tokens(OAuthToken.model_validate(server.issue()))


class Logins(AuthServer):
    """An authorization server that knows of refresh tokens that were sent twice."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.used: set[str] = set()
        """Access tokens that a replica has sent."""
        self._reused: list[tuple[str, str]] = []

    def guard(self, headers: Mapping[str, str], metadata: str) -> Answer | None:
        self.used.add(headers.get("authorization", "").removeprefix("Bearer "))
        return super().guard(headers, metadata)

    def _refreshed(self, token: str) -> Answer:
        self._reused += [(token, access) for access in self._spent.get(token, ())[::2]]
        return super()._refreshed(token)

    @property
    def ended(self) -> list[str]:
        """Logins that a second use of a refresh token ended, although a replica had what the first use returned."""
        return [f"{token}, which returned {access}" for token, access in self._reused if access in self.used]


class SlowToAnswer(Guarded):
    """New tokens take a while to arrive: their holder can be paused or killed meanwhile, and others want them, too."""

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        response = await super().handle_async_request(request)
        if request.url.path == "/as/token":
            await anyio.sleep(TOKENS_TAKE)
        return response
