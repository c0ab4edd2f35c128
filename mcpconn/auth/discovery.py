"""Where the authorization server of an MCP server is: RFC 9728, then RFC 8414, by the SDK's own rules.

The SDK does this inside its flow for a whole login. To spend a refresh token after a restart it is needed, too.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import httpx2
from mcp.client.auth import OAuthClientProvider
from mcp.client.auth.utils import (
    build_oauth_authorization_server_metadata_discovery_urls,
    build_protected_resource_metadata_discovery_urls,
    create_oauth_metadata_request,
    credentials_match_issuer,
    extract_resource_metadata_from_www_auth,
    handle_auth_metadata_response,
    handle_protected_resource_response,
    issuers_match,
    validate_metadata_issuer,
)

from mcpconn.auth.credentials import CredentialsUnavailable

Ask = Callable[[httpx2.Request], Awaitable[httpx2.Response]]


async def discover(provider: OAuthClientProvider, refusal: httpx2.Response, ask: Ask) -> bool:
    """Note the authorization server's metadata in the provider's context.

    Args:
        provider: The SDK's provider, its client registration loaded.
        refusal: The answer that asked for credentials; it may say where to look.
        ask: Sends a request.

    Returns:
        False where the client is registered with another authorization server: nothing of ours is for this one.

    Raises:
        OAuthFlowError: what was found does not belong to the MCP server.
        CredentialsUnavailable: it cannot be found now.
    """
    context = provider.context
    await _find_resource(provider, refusal, ask)
    expected = provider._expected_issuer()
    if context.client_info is not None and not credentials_match_issuer(
        context.client_info, expected, context.client_metadata_url
    ):
        return False
    for url in build_oauth_authorization_server_metadata_discovery_urls(context.auth_server_url, context.server_url):
        answered, metadata = await handle_auth_metadata_response(await ask(create_oauth_metadata_request(url)))
        if not answered:
            raise CredentialsUnavailable("the authorization server's metadata cannot be had now")
        if metadata is not None:
            if context.auth_server_url is None and issuers_match(str(metadata.issuer), expected):
                expected = str(metadata.issuer)
            validate_metadata_issuer(metadata, expected)
            context.oauth_metadata = metadata
            break
    # The issuer that a provider for client credentials was told to talk to, and to no other.
    fixed = getattr(provider, "_issuer", None)
    return fixed is None or (context.oauth_metadata is not None and issuers_match(expected, fixed))


async def _find_resource(provider: OAuthClientProvider, refusal: httpx2.Response, ask: Ask) -> None:
    """RFC 9728: the MCP server's own metadata, which names its authorization servers."""
    context = provider.context
    named = extract_resource_metadata_from_www_auth(refusal)
    unavailable = False
    for url in build_protected_resource_metadata_discovery_urls(named, context.server_url):
        response = await ask(create_oauth_metadata_request(url))
        unavailable = unavailable or response.status_code >= 500 or response.status_code == 429
        resource = await handle_protected_resource_response(response)
        if resource is not None:
            await provider._validate_resource_match(resource)
            context.protected_resource_metadata = resource
            servers = [str(server) for server in resource.authorization_servers]
            context.auth_server_url = provider._select_authorization_server(servers)
            return
    if unavailable:
        raise CredentialsUnavailable("the server's description of its authorization cannot be had now")
