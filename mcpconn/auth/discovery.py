"""Finds the authorization server of an MCP server (RFC 9728, then RFC 8414) and determines what may be sent to it.

An MCP server's metadata decide where people log in, but not where existing secrets are sent: those are sent only to the
issuer that they came from, which is recorded with them. So if the resource metadata are unavailable, the recorded
issuer is used; if they name several servers, the recorded one; if they name only others, no stored secret is sent to
those. Endpoints are taken only from metadata that the issuer itself publishes. An endpoint is guessed
(`<server>/token`, the rule of 2025-03-26) only for servers that are their own authorization server.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from urllib.parse import urlsplit

import httpx2
from mcp.client.auth import OAuthClientProvider, OAuthFlowError
from mcp.client.auth.utils import (
    build_oauth_authorization_server_metadata_discovery_urls,
    build_protected_resource_metadata_discovery_urls,
    create_oauth_metadata_request,
    extract_resource_metadata_from_www_auth,
    issuers_match,
)
from mcp.shared.auth import OAuthMetadata, ProtectedResourceMetadata
from pydantic import ValidationError

from mcpconn.auth.credentials import CredentialsRefused, CredentialsUnavailable
from mcpconn.auth.record import Model
from mcpconn.auth.token_requests import NoAnswer, is_busy
from mcpconn.redact.places import redact_url
from mcpconn.sdk import oauth as sdk

Ask = Callable[[httpx2.Request], Awaitable[httpx2.Response]]
"""Sends a request. Raises `CredentialsUnavailable` if there is no answer."""

MOST_SERVERS = 5
"""Authorization servers of one list that are tried."""
DEFAULT_PORTS = {"https": 443, "http": 80}


@dataclass(frozen=True)
class AuthorizationServer:
    """Where tokens come from, and the addresses that may be sent secrets."""

    issuer: str
    server_url: str
    """The MCP server's URL."""
    metadata: OAuthMetadata | None
    """What the issuer publishes. None only where it is the MCP server's own origin."""

    def accepts(self, url: httpx2.URL) -> bool:
        """Whether a token request may be sent to `url`: the last look before secrets leave."""
        if self.metadata is not None:
            return url == httpx2.URL(str(self.metadata.token_endpoint))
        return origin(str(url)) == origin(self.issuer) == origin(self.server_url)

    @property
    def registers(self) -> bool:
        """Whether clients can be registered: at a published address, or at the MCP server's own /register."""
        published = self.metadata is not None and self.metadata.registration_endpoint is not None
        return published or origin(self.issuer) == origin(self.server_url)


def origin(url: str) -> str:
    """Scheme, host and port of a URL, the same for all ways to write them."""
    parts = urlsplit(url)
    try:
        port = parts.port or DEFAULT_PORTS.get(parts.scheme.lower(), 0)
    except ValueError:
        port = -1
    return f"{parts.scheme.lower()}://{(parts.hostname or '').lower()}:{port}"


def same_issuer(one: str, other: str) -> bool:
    """Whether two issuer identifiers name one server (RFC 8414, 3.3). A root's trailing slash makes no difference."""
    return issuers_match(one, other) or (
        origin(one) == origin(other) and urlsplit(one).path.rstrip("/") == urlsplit(other).path.rstrip("/") == ""
    )


def less_secure(url: str, than: str) -> bool:
    """Whether `url` would be sent in the clear what `than` is sent over TLS."""
    return urlsplit(than).scheme.lower() == "https" != urlsplit(url).scheme.lower()


async def discover(
    provider: OAuthClientProvider, refusal: httpx2.Response, ask: Ask, *, recorded: str | None
) -> AuthorizationServer:
    """Find the authorization server, and note what it publishes in the provider's context.

    Args:
        provider: The SDK's provider.
        refusal: The answer that asked for credentials; it may say where to look.
        ask: Sends a request.
        recorded: The issuer that the stored tokens or registration came from.

    Returns:
        The recorded server where it may still be used, otherwise another one.

    Raises:
        CredentialsRefused: what was found does not belong to the MCP server, or may not be used.
        CredentialsUnavailable: it cannot be found now.
    """
    context = provider.context
    wanted = sdk.fixed_issuer(provider) or recorded
    resource = await _find_resource(provider, refusal, ask, optional=wanted is not None)
    context.protected_resource_metadata = resource
    if resource is not None:
        candidates = _candidates(provider, [str(server) for server in resource.authorization_servers], wanted)
        context.auth_server_url = candidates[0]
    elif wanted is not None and not same_issuer(wanted, origin_of(context.server_url)):
        candidates = [wanted]
        context.auth_server_url = wanted
    else:
        # The rule of 2025-03-26: the MCP server is its own authorization server.
        candidates = [origin_of(context.server_url)]
        context.auth_server_url = None
    failed: Exception | None = None
    for issuer in candidates:
        try:
            found = await _find_metadata(issuer, context.server_url, ask)
        except (CredentialsRefused, CredentialsUnavailable) as error:
            failed = failed or error
            continue
        context.oauth_metadata = found.metadata
        if context.auth_server_url is not None:
            context.auth_server_url = found.issuer
        return found
    context.oauth_metadata = None
    assert failed is not None
    raise failed


def _candidates(provider: OAuthClientProvider, advertised: list[str], wanted: str | None) -> list[str]:
    """The advertised servers to try. The wanted one alone where it is among them: secrets of ours are with it."""
    for server in advertised:
        if wanted is not None and same_issuer(server, wanted):
            return [server]
    if sdk.fixed_issuer(provider) is not None:
        names = ", ".join(redact_url(server) for server in advertised[:MOST_SERVERS])
        raise CredentialsRefused(
            f"issuer mismatch: the credentials are for {redact_url(str(wanted))}, and the MCP server asks for a token "
            f"of {names}"
        )
    first = sdk.select(provider, advertised)
    if provider.context.client_info is not None:
        # The host gave it without naming its issuer, so it is not sent to other servers.
        return [first]
    return [first, *(server for server in advertised[:MOST_SERVERS] if server != first)]


async def _find_resource(
    provider: OAuthClientProvider, refusal: httpx2.Response, ask: Ask, *, optional: bool
) -> ProtectedResourceMetadata | None:
    """RFC 9728: the MCP server's own metadata, which name its authorization servers. None if there are none.

    `optional`: it is known without them where to go, so that an outage is no reason to wait.
    """
    context = provider.context
    named = extract_resource_metadata_from_www_auth(refusal)
    away: CredentialsUnavailable | None = None
    for url in build_protected_resource_metadata_discovery_urls(named, context.server_url):
        if not _usable(url) or less_secure(url, context.server_url):
            continue
        try:
            response = await ask(create_oauth_metadata_request(url))
        except NoAnswer as error:
            away = away or error
            continue
        if is_busy(response):
            away = away or CredentialsUnavailable(
                f"{origin_of(url)}: the resource metadata are unavailable (HTTP {response.status_code})"
            )
        resource = _parsed(ProtectedResourceMetadata, response)
        if resource is None:
            continue
        wrong: str | None = None
        try:
            await sdk.check_resource(provider, resource)
        except OAuthFlowError as error:
            wrong = sdk.explained(error)
        if wrong is not None:
            here, there = redact_url(context.server_url), redact_url(str(resource.resource))
            raise CredentialsRefused(f"{wrong}: {there} does not match expected {here}")
        return resource
    if away is not None and not optional:
        raise away
    return None


async def _find_metadata(issuer: str, server_url: str, ask: Ask) -> AuthorizationServer:
    """RFC 8414 and OpenID Connect Discovery: what the issuer publishes about itself."""
    name = redact_url(issuer)
    if less_secure(issuer, server_url):
        raise CredentialsRefused(f"the authorization server {name} is not reached over TLS, although the MCP server is")
    own = origin(issuer) == origin(server_url)
    away: CredentialsUnavailable | None = None
    wrong: str | None = None
    for url in build_oauth_authorization_server_metadata_discovery_urls(issuer, server_url):
        try:
            response = await ask(create_oauth_metadata_request(url))
        except NoAnswer as error:
            away = away or error
            continue
        if is_busy(response):
            away = away or CredentialsUnavailable(f"{name}: no metadata are available (HTTP {response.status_code})")
            continue
        metadata = _parsed(OAuthMetadata, response)
        if metadata is None:
            continue
        if not same_issuer(str(metadata.issuer), issuer):
            wrong = f"{redact_url(url)} names another issuer, {redact_url(str(metadata.issuer))} (issuer mismatch)"
            continue
        _check_endpoints(metadata, issuer)
        return AuthorizationServer(str(metadata.issuer), server_url, metadata)
    if wrong is not None:
        raise CredentialsRefused(f"the authorization server {name} cannot be trusted: {wrong}")
    if away is not None:
        raise away
    if not own:
        # Another path on another host would be a guess, and what is sent there are secrets.
        raise CredentialsUnavailable(f"{name} publishes no metadata now: it is not known where token requests go")
    return AuthorizationServer(issuer, server_url, None)


def _check_endpoints(metadata: OAuthMetadata, issuer: str) -> None:
    endpoints = {
        "token": metadata.token_endpoint,
        "authorization": metadata.authorization_endpoint,
        "registration": metadata.registration_endpoint,
    }
    for what, url in endpoints.items():
        if url is not None and less_secure(str(url), issuer):
            raise CredentialsRefused(
                f"{redact_url(issuer)} names its {what} endpoint without TLS, {redact_url(str(url))}: it is not used"
            )


def origin_of(url: str) -> str:
    """Scheme and authority of a URL as it is written, the issuer of a server that is its own."""
    parts = urlsplit(url)
    return f"{parts.scheme.lower()}://{parts.netloc.rpartition('@')[2].lower()}"


def _usable(url: str) -> bool:
    return urlsplit(url).scheme.lower() in DEFAULT_PORTS and bool(urlsplit(url).netloc)


def _parsed(model: type[Model], response: httpx2.Response) -> Model | None:
    """Metadata; None if the answer is something else. What the validation says quotes it, and is dropped."""
    if response.status_code != 200:
        return None
    try:
        return model.model_validate_json(response.content)
    except (ValidationError, RecursionError):
        return None
