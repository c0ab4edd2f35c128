"""The SDK's OAuth flows, run apart from any request: a refresh token for tokens, and the whole way to a login."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial

import httpx2
from mcp.client.auth import OAuthClientProvider
from mcp.shared.auth import OAuthToken
from pydantic import ValidationError

from mcpconn.auth.credentials import CredentialsRefused, CredentialsUnavailable
from mcpconn.auth.discovery import discover
from mcpconn.auth.exchange import (
    GRACE,
    VERSION_HEADER,
    Fetch,
    follow,
    is_busy,
    is_token_request,
    reason,
    unreachable,
)
from mcpconn.auth.flight import finished


async def spend(
    provider: OAuthClientProvider,
    refused: httpx2.Response,
    version: str | None,
    fetch: Fetch,
    *,
    save: Callable[[OAuthToken], Awaitable[None]],
) -> str | None:
    """Get tokens for the refresh token that `provider` holds.

    Args:
        provider: The SDK's provider, its storage loaded.
        refused: The refusal that made it necessary; it may say where the authorization server is.
        version: The protocol version that the refused request named.
        fetch: Sends the requests.
        save: Stores the tokens.

    Returns:
        None, or why the refresh token is worth nothing any more.

    Raises:
        CredentialsUnavailable: the authorization server does not answer, or says: not now.
        OAuthFlowError: it does not belong to the MCP server.
    """
    context = provider.context
    context.protocol_version = version or context.protocol_version
    # A token endpoint that is only guessed may be somebody else's.
    if context.oauth_metadata is None and not await discover(provider, refused, partial(follow, fetch=fetch)):
        return "the client is registered with another authorization server"
    request = await provider._refresh_token()

    async def exchange() -> str | None:
        response = await follow(request, fetch)
        if is_busy(response):
            raise CredentialsUnavailable(f"the authorization server answered: {reason(request, response)}")
        if response.status_code != 200:
            return f"the refresh token was refused: {reason(request, response)}"
        try:
            tokens = _merged(response, context.current_tokens)
        except ValidationError:
            return "the answer to the refresh token could not be read"
        context.current_tokens = tokens
        context.update_token_expiry(tokens)
        await save(tokens)
        return None

    return await finished(exchange, GRACE)


def _merged(response: httpx2.Response, prior: OAuthToken | None) -> OAuthToken:
    """The tokens of a refresh. What it leaves out is as before (RFC 6749, 6)."""
    tokens = OAuthToken.model_validate_json(response.content)
    if prior is not None:
        tokens.scope = tokens.scope if tokens.scope is not None else prior.scope
        tokens.refresh_token = tokens.refresh_token or prior.refresh_token
    return tokens


async def drive(provider: OAuthClientProvider, refused: httpx2.Response, version: str | None, fetch: Fetch) -> None:
    """Have `provider` get a token, as if it had sent a request that was refused so.

    Args:
        provider: The SDK's provider, its storage loaded.
        refused: The refusal, 401 or 403.
        version: The protocol version that the refused request named.
        fetch: Sends the flow's requests.

    Raises:
        CredentialsRefused: the authorization server refused.
        CredentialsUnavailable: it does not answer, or says: not now.
        Exception: of the provider, or of the host's login handlers.
    """
    provider._initialized = True
    request = httpx2.Request("POST", provider.context.server_url, headers={VERSION_HEADER: version} if version else {})
    flow = provider.async_auth_flow(request)
    busy: list[int] = []

    async def turn(outgoing: httpx2.Request) -> httpx2.Request:
        """Send what the flow wants sent, and tell it the answer. Returns what it wants next."""
        try:
            response = await fetch(outgoing)
        except httpx2.TransportError as error:
            raise unreachable(outgoing, error) from error
        if is_busy(response):
            busy.append(response.status_code)
        if outgoing.method == "POST" and response.status_code >= 400:
            # Before the provider sees it: it would log what the server says, secrets included.
            raise CredentialsRefused(f"the authorization server refused: {reason(outgoing, response)}")
        return await flow.asend(response)

    try:
        outgoing = await flow.__anext__()
        while outgoing is not request:
            outgoing = await turn(outgoing)
        outgoing = await flow.asend(refused)
        while outgoing is not request:
            step = partial(turn, outgoing)
            outgoing = await (finished(step, GRACE) if is_token_request(outgoing) else step())
        # The provider would send the request again now, with the new token.
    except Exception:
        if busy:
            raise CredentialsUnavailable(f"the authorization server answered HTTP {busy[-1]}") from None
        raise
    finally:
        await flow.aclose()
