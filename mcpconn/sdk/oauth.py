"""What is private in the SDK's OAuth providers, and the beginnings of its errors' texts.

`missing` is asked once, when a provider is given. A provider that lacks a name runs as the plain `httpx2.Auth` that it
is: a renamed method is a warning at the start, never an AttributeError in the middle of a 401.
"""

from __future__ import annotations

from importlib.metadata import version

import httpx2
from mcp.client.auth import OAuthClientProvider, OAuthFlowError, OAuthRegistrationError, OAuthTokenError
from mcp.shared.auth import ProtectedResourceMetadata

REVIEWED = "2.3.0"
"""The release of `mcp` whose flow `login` and `discovery` were written after."""

NEEDED = (
    "_initialize",
    "_perform_authorization",
    "_validate_resource_match",
    "_select_authorization_server",
)
"""Methods of a provider that are called."""
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
"""Methods whose work is done here instead. A subclass that overrides one means its own flow to run."""

SAID: tuple[tuple[str, str], ...] = (
    ("No redirect URIs", "nobody can log in: the provider has no redirect URI"),
    ("No redirect handler", "nobody can log in: the provider has no redirect handler"),
    ("No callback handler", "nobody can log in: the provider has no callback handler"),
    ("State parameter mismatch", "the browser came back from another login than the one that was begun (state)"),
    ("Authorization response iss mismatch", "another authorization server answered the login (issuer mismatch)"),
    ("Authorization response missing iss", "the answer to the login does not name its issuer, as it has to"),
    ("No authorization code", "the login was refused or broken off: no code came back"),
    ("No authorization server metadata", "nothing is published about the authorization server"),
    ("Authorization server metadata issuer mismatch", "another authorization server was found (issuer mismatch)"),
    ("Protected resource", "the MCP server's metadata describe another resource"),
    ("Registered client uses unsupported", "the client is registered for a way to authenticate that is not supported"),
    ("Authorization server registered the client", "the authorization server registered a client that cannot be used"),
    ("Missing OAuth metadata", "nothing is published about the authorization server"),
)
"""How the SDK's texts begin, and what is said instead: most of them go on with what a server or a browser sent."""


def missing(provider: OAuthClientProvider) -> list[str]:
    """Names that `provider` should have and has not, in an `mcp` newer than this module."""
    return [name for name in NEEDED if not callable(getattr(provider, name, None))]


def has_own_flow(kind: type[OAuthClientProvider]) -> bool:
    """Whether a subclass of the SDK's provider replaces parts of its flow."""
    return any(getattr(kind, name, None) is not getattr(OAuthClientProvider, name, None) for name in REPLACED)


def installed() -> str:
    """The release of `mcp` in use."""
    return version("mcp")


def brings_client(provider: OAuthClientProvider) -> bool:
    """Whether a provider has a client of its own (client credentials), in place of one that is stored."""
    return type(provider)._initialize is not OAuthClientProvider._initialize


async def initialize(provider: OAuthClientProvider) -> None:
    """Load tokens and client into the provider's context."""
    await provider._initialize()


async def authorize(provider: OAuthClientProvider) -> httpx2.Request:
    """Get a grant, which may take a person's login. Returns the request that turns it into tokens.

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
    """The one of the advertised authorization servers that the provider wants."""
    return provider._select_authorization_server(servers)


def fixed_issuer(provider: OAuthClientProvider) -> str | None:
    """The issuer that the host gave the provider for its credentials."""
    issuer = getattr(provider, "_issuer", None)
    return issuer if isinstance(issuer, str) else None


def needs_person(provider: OAuthClientProvider) -> bool:
    """Whether a grant takes a person with a browser: it does unless a subclass has another way to get one."""
    return type(provider)._perform_authorization is OAuthClientProvider._perform_authorization


def explained(error: OAuthFlowError) -> str:
    """What an error of the SDK's flow means, without its text: that may hold what a server sent."""
    text = str(error)
    for beginning, words in SAID:
        if text.startswith(beginning):
            return words
    return f"the provider's flow failed ({type(error).__name__})"


def same_kind(error: BaseException | None, text: str) -> OAuthFlowError:
    """An error of the SDK's with `text`, for callers who look for its type in `__cause__`."""
    for kind in (OAuthTokenError, OAuthRegistrationError):
        if isinstance(error, kind):
            return kind(text)
    return OAuthFlowError(text)
