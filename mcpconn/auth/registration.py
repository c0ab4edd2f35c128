"""The client's registration: which one is used with an authorization server, and when another is made.

A registration is the authorization server's record of this program. One that was made dynamically (RFC 7591) may be
forgotten by a server that is set up again; it is replaced then. One that a host configured is never replaced.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import httpx2
from mcp.client.auth import OAuthClientProvider, OAuthFlowError
from mcp.client.auth.oauth2 import check_registration_usable
from mcp.client.auth.utils import (
    create_client_info_from_metadata_url,
    create_client_registration_request,
    should_use_client_metadata_url,
)
from mcp.shared.auth import OAuthClientInformationFull
from pydantic import ValidationError

from mcpconn.auth.credentials import CredentialsRefused, CredentialsUnavailable
from mcpconn.auth.discovery import Ask, AuthorizationServer, same_issuer
from mcpconn.auth.record import NotARecord, parse_json
from mcpconn.auth.token_requests import is_busy, retry_after
from mcpconn.auth.token_response import described, refused_words
from mcpconn.redact.places import redact_url
from mcpconn.sdk import oauth as sdk

Client = OAuthClientInformationFull


def is_dynamic(client: Client, provider: OAuthClientProvider) -> bool:
    """Whether a stored registration was made by this program, and may be replaced by another.

    Only an answer to a registration has a time of issue; where the server left it out, `register` puts it in.
    Registrations that the SDK made are known by the issuer and the redirect URIs that they carry.
    """
    if client.client_id == provider.context.client_metadata_url:
        return False
    if client.client_id_issued_at is not None:
        return True
    return client.issuer is not None and bool(client.redirect_uris)


def is_expired(client: Client) -> bool:
    """Whether the server said that the client's secret ends, and it has (RFC 7591, 3.2.1; 0 means never)."""
    end = client.client_secret_expires_at
    return bool(client.client_secret and end and end <= time.time())


def belongs_to(client: Client, server: AuthorizationServer, *, used_with: str | None) -> bool:
    """Whether a registration may be shown to an authorization server.

    `used_with` is the issuer that it was used with before, for registrations that name none themselves.
    """
    issuer = client.issuer or used_with
    return issuer is None or same_issuer(issuer, server.issuer)


def by_metadata_url(provider: OAuthClientProvider, server: AuthorizationServer) -> Client | None:
    """The client whose id is the URL of its own description, where host and server both can do that."""
    context = provider.context
    if not should_use_client_metadata_url(server.metadata, context.client_metadata_url):
        return None
    assert context.client_metadata_url is not None
    client = create_client_info_from_metadata_url(
        context.client_metadata_url, redirect_uris=context.client_metadata.redirect_uris
    )
    client.issuer = server.issuer
    return client


async def register(
    provider: OAuthClientProvider, server: AuthorizationServer, ask: Ask, note: Callable[[str], None]
) -> Client:
    """Register this program with an authorization server (RFC 7591).

    Args:
        provider: The SDK's provider, the scope to ask for set.
        server: Where.
        ask: Sends a request.
        note: Called with the new client's secret before anything else is done with it.

    Raises:
        CredentialsRefused: the server refused, or registered something that cannot be used.
        CredentialsUnavailable: it cannot be asked now.
    """
    context, name = provider.context, redact_url(server.issuer)
    if not server.registers:
        raise CredentialsRefused(
            f"{name} does not register clients dynamically: register one there, and give its id to the provider"
        )
    base = context.get_authorization_base_url(context.server_url)
    request = create_client_registration_request(server.metadata, context.client_metadata, base)
    response = await ask(request)
    if is_busy(response):
        raise CredentialsUnavailable(
            f"{name}: clients cannot be registered now (HTTP {response.status_code})", retry_after=retry_after(response)
        )
    if response.status_code not in (200, 201):
        raise CredentialsRefused(f"{name} refused to register this client: {refused_words(response)}")
    client = _parsed(response)
    if client is None:
        raise CredentialsRefused(f"{name} registered a client, but its answer cannot be read ({described(response)})")
    note(client.client_secret or "")
    wrong: str | None = None
    try:
        check_registration_usable(client)
    except OAuthFlowError as error:
        wrong = sdk.explained(error)
    if wrong is not None:
        raise CredentialsRefused(f"{name}: {wrong}")
    client.issuer = server.issuer
    if client.client_id_issued_at is None:
        client.client_id_issued_at = int(time.time())
    return client


def _parsed(response: httpx2.Response) -> Client | None:
    """The client that an answer describes. The SDK's parser would quote it, secret included, where it cannot."""
    try:
        body = parse_json(response.content)
        # The issuer is ours to set: it binds the registration to the server that was asked.
        return Client.model_validate({key: value for key, value in body.items() if key != "issuer"})
    except (NotARecord, ValidationError, RecursionError):
        return None
