"""Private parts of the SDK's OAuth providers, and how its error texts begin.

`missing` is called once for each provider. A provider that lacks a name is used as a plain `httpx2.Auth`, so a renamed
method causes a warning at the start, and not an AttributeError while a 401 is handled.
"""

from __future__ import annotations

from importlib.metadata import version

import httpx2
from mcp.client.auth import OAuthClientProvider, OAuthFlowError, OAuthRegistrationError, OAuthTokenError
from mcp.shared.auth import ProtectedResourceMetadata

REVIEWED = "2.3.0"
"""The release of `mcp` whose flow `login` and `discovery` follow."""

NEEDED = (
    "_initialize",
    "_perform_authorization",
    "_validate_resource_match",
    "_select_authorization_server",
)
"""Methods of a provider that mcpconn calls."""
REPLACED = (
    "async_auth_flow",
    "_auth_flow",
    "_refresh_token",
    "_handle_token_response",
    "_handle_refresh_response",
    "_handle_oauth_metadata_response",
    "_handle_protected_resource_response",
    "_add_auth_header",
    "_get_token_endpoint",
)
"""Methods that mcpconn replaces. If a subclass overrides one, its own flow is used instead."""

SAID: tuple[tuple[str, str], ...] = (
    ("No redirect URIs", "login is not possible: the provider has no redirect URI"),
    ("No redirect handler", "login is not possible: the provider has no redirect handler"),
    ("No callback handler", "login is not possible: the provider has no callback handler"),
    (
        "State parameter mismatch",
        "the response belongs to another login than the one that was started (state mismatch)",
    ),
    ("Authorization response iss mismatch", "another authorization server answered the login (issuer mismatch)"),
    ("Authorization response missing iss", "the authorization response does not name its issuer, which is required"),
    ("No authorization code", "the login was refused or abandoned: no authorization code was returned"),
    ("No authorization server metadata", "no metadata of the authorization server are published"),
    ("Authorization server metadata issuer mismatch", "another authorization server was found (issuer mismatch)"),
    ("Protected resource", "the MCP server's metadata describe another resource"),
    ("Registered client uses unsupported", "the client is registered for a way to authenticate that is not supported"),
    ("Authorization server registered the client", "the authorization server registered a client that cannot be used"),
    ("Missing OAuth metadata", "no metadata of the authorization server are published"),
)
"""How the SDK's texts begin, and the texts used instead, because most of the SDK's quote what a server or a browser
sent."""


def missing(provider: OAuthClientProvider) -> list[str]:
    """Required names that `provider` lacks, in an `mcp` newer than this module."""
    return [name for name in NEEDED if not callable(getattr(provider, name, None))]


def has_own_flow(kind: type[OAuthClientProvider]) -> bool:
    """Whether a subclass of the SDK's provider replaces parts of its flow."""
    return any(getattr(kind, name, None) is not getattr(OAuthClientProvider, name, None) for name in REPLACED)


def installed() -> str:
    """The release of `mcp` in use."""
    return version("mcp")


def brings_client(provider: OAuthClientProvider) -> bool:
    """Whether a provider has a fixed client (client credentials) instead of a stored one."""
    return type(provider)._initialize is not OAuthClientProvider._initialize


async def initialize(provider: OAuthClientProvider) -> None:
    """Load tokens and client into the provider's context."""
    await provider._initialize()


async def authorize(provider: OAuthClientProvider) -> httpx2.Request:
    """Obtain a grant, which may require a person to log in. Returns the request that turns it into tokens.

    Raises:
        OAuthFlowError: it cannot be obtained; `explained` says why.
        Exception: of the host's login handlers or assertion provider.
    """
    return await provider._perform_authorization()


async def check_resource(provider: OAuthClientProvider, found: ProtectedResourceMetadata) -> None:
    """Check that metadata belong to the provider's MCP server (RFC 9728, 3.3).

    Raises:
        OAuthFlowError: they do not.
    """
    await provider._validate_resource_match(found)


def select(provider: OAuthClientProvider, servers: list[str]) -> str:
    """The advertised authorization server that the provider selects."""
    return provider._select_authorization_server(servers)


def fixed_issuer(provider: OAuthClientProvider) -> str | None:
    """The issuer that the host gave the provider for its credentials."""
    issuer = getattr(provider, "_issuer", None)
    return issuer if isinstance(issuer, str) else None


def needs_person(provider: OAuthClientProvider) -> bool:
    """Whether obtaining a grant requires a person with a browser: true unless a subclass does it in another way."""
    return type(provider)._perform_authorization is OAuthClientProvider._perform_authorization


def explained(error: OAuthFlowError) -> str:
    """What an error of the SDK's flow means, without its text, which may quote what a server sent."""
    text = str(error)
    for beginning, words in SAID:
        if text.startswith(beginning):
            return words
    return f"the provider's flow failed ({type(error).__name__})"


def same_kind(error: BaseException | None, text: str) -> OAuthFlowError:
    """An SDK error with `text`, for callers that look for its type in `__cause__`."""
    for kind in (OAuthTokenError, OAuthRegistrationError):
        if isinstance(error, kind):
            return kind(text)
    return OAuthFlowError(text)
