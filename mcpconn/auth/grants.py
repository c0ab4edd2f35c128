"""The two ways to tokens: a refresh token for the next ones, and a grant (a person's login, a client's credentials).

The SDK does both inside one generator that an HTTP client drives while it sends a request. Here the same steps are
taken apart from any request, so that an answer is read by our own parser, a refresh token goes to no guessed address,
and a registration that the server has forgotten is replaced. `tests/sdk/test_oauth.py` fails if the SDK changes.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import anyio
import httpx2
from mcp.client.auth import OAuthClientProvider, OAuthFlowError
from mcp.client.auth.utils import extract_scope_from_www_auth, get_client_metadata_scopes, union_scopes
from mcp.shared.auth import OAuthToken

from mcpconn.auth.credentials import CredentialsRefused, CredentialsUnavailable
from mcpconn.auth.discovery import AuthorizationServer, discover
from mcpconn.auth.record import TokenRecord
from mcpconn.auth.registration import Client, belongs_to, by_metadata_url, is_dynamic, is_expired, register
from mcpconn.auth.single_flight import finished
from mcpconn.auth.token_requests import GRACE, Fetch, NoAnswer, ask, request_tokens
from mcpconn.auth.token_response import Refused
from mcpconn.redact.places import redact_url
from mcpconn.sdk import oauth as sdk

Commit = Callable[[OAuthToken, AuthorizationServer], Awaitable[None]]
"""Stores the tokens that an authorization server gave for a grant."""

PAUSES = (1.0, 3.0, 9.0)
"""Seconds between attempts to trade a grant for tokens while the server says "not now". A person would have to log
in again otherwise; authorization codes are good for up to ten minutes (RFC 6749, 4.1.2)."""
LONGEST_PAUSE = 60.0
"""Seconds of a Retry-After that are waited for then."""


@dataclass(frozen=True)
class Request:
    """What a renewal is for."""

    provider: OAuthClientProvider
    refusal: httpx2.Response
    """The refusal that a request met, 401 or 403."""
    version: str | None
    """The protocol version that the refused request named; it decides what is asked for."""
    fetch: Fetch
    note: Callable[[str], None]
    """Called with every secret as soon as it is known."""

    async def ask(self, request: httpx2.Request) -> httpx2.Response:
        """Send a request that is no token request."""
        return await ask(request, self.fetch)

    async def find(self, record: TokenRecord) -> AuthorizationServer:
        """The authorization server: the one that issued what is recorded, where it may still be used."""
        client = self.provider.context.client_info
        self.provider.context.protocol_version = self.version or self.provider.context.protocol_version
        recorded = record.issuer or (client.issuer if client is not None else None)
        return await discover(self.provider, self.refusal, self.ask, recorded=recorded)

    async def tokens(self, request: httpx2.Request, server: AuthorizationServer) -> OAuthToken | Refused:
        """Send a token request, if it goes where it may."""
        if not server.accepts(request.url):
            raise CredentialsRefused(
                f"nothing is sent to {redact_url(str(request.url))}: it is not the token endpoint of "
                f"{redact_url(server.issuer)}"
            )
        outcome = await request_tokens(request, self.fetch)
        if isinstance(outcome, OAuthToken):
            self.note(outcome.access_token)
            self.note(outcome.refresh_token or "")
        return outcome


# -- the refresh token


def refresh_request(provider: OAuthClientProvider, refresh_token: str, server: AuthorizationServer) -> httpx2.Request:
    """The request that turns a refresh token into tokens (RFC 6749, 6).

    Raises:
        OAuthFlowError: the client's registration names a way to authenticate that the SDK has not.
    """
    context = provider.context
    assert context.client_info is not None
    form = {
        "grant_type": "refresh_token",
        "refresh_token": refresh_token,
        "client_id": context.client_info.client_id,
    }
    if context.should_include_resource_param(context.protocol_version):
        form["resource"] = context.get_resource_url()
    headers = {"content-type": "application/x-www-form-urlencoded"}
    form, headers = context.prepare_token_auth(form, headers)
    return httpx2.Request("POST", token_endpoint(server), data=form, headers=headers)


def token_endpoint(server: AuthorizationServer) -> str:
    """Where token requests go."""
    if server.metadata is not None:
        return str(server.metadata.token_endpoint)
    return f"{server.issuer.rstrip('/')}/token"


def merged(tokens: OAuthToken, prior: OAuthToken) -> OAuthToken:
    """The tokens of a refresh. What it leaves out is as before (RFC 6749, 6)."""
    return tokens.model_copy(
        update={
            "scope": tokens.scope if tokens.scope is not None else prior.scope,
            "refresh_token": tokens.refresh_token or prior.refresh_token,
        }
    )


# -- a grant


async def log_in(
    request: Request,
    record: TokenRecord,
    *,
    forgotten: str | None,
    keep: Callable[[Client], Awaitable[None]],
    commit: Commit,
) -> None:
    """Get tokens by the provider's own grant: a person's login, client credentials, a signed assertion.

    The client that was used is the provider's `context.client_info` afterwards.

    Args:
        request: What it is for.
        record: What is stored.
        forgotten: Id of a client that the authorization server does not know any more.
        keep: Called with a client that was registered, before the person is asked to log in.
        commit: Stores the tokens, before anything can break this off.

    Raises:
        CredentialsRefused: no tokens came of it, and this says why.
        CredentialsUnavailable: the authorization server cannot be asked now.
        Exception: of the host's login handlers.
    """
    provider = request.provider
    context = provider.context
    if sdk.needs_person(provider) and (context.redirect_handler is None or context.callback_handler is None):
        # Checked first, so that no client is registered for a login that is impossible.
        missing = "redirect" if context.redirect_handler is None else "callback"
        otherwise = f"login is not possible: the provider has no {missing} handler"
        raise CredentialsRefused(getattr(provider, "no_login", otherwise))
    server = await find_server(request, record)
    for _ in range(2):
        client, registered = await choose_client(request, server, record, forgotten=forgotten, keep=keep)
        outcome = await _grant(request, server, commit)
        if outcome is None:
            return
        if not outcome.registration or registered or not is_dynamic(client, provider):
            raise CredentialsRefused(_in_words(outcome, server, client, registered))
        forgotten = client.client_id
    raise AssertionError("a registration is replaced once")


async def find_server(request: Request, record: TokenRecord) -> AuthorizationServer:
    """Where the grant comes from; the scope to ask for is set in the provider's context.

    Raises:
        CredentialsRefused, CredentialsUnavailable: as `Request.find`.
    """
    context = request.provider.context
    granted = context.current_tokens.scope if context.current_tokens is not None else None
    server = await request.find(record)
    _choose_scope(request, server, granted)
    return server


async def choose_client(
    request: Request,
    server: AuthorizationServer,
    record: TokenRecord,
    *,
    forgotten: str | None,
    keep: Callable[[Client], Awaitable[None]],
) -> tuple[Client, bool]:
    """The client to log in with, set in the provider's context; it is registered if there is none yet.

    Args:
        request: What it is for.
        server: Where the grant comes from.
        record: What is stored.
        forgotten: Id of a client that the authorization server does not know any more.
        keep: Called with a client that was registered, before it is used.

    Returns:
        The client, and whether it was registered now.

    Raises:
        CredentialsRefused: there is none that may be used with this server.
        CredentialsUnavailable: the authorization server cannot be asked now.
    """
    provider, registered = request.provider, False
    client = _known_client(provider, server, record, forgotten)
    if client is None:
        client = by_metadata_url(provider, server)
    if client is None:
        client, registered = await register(provider, server, request.ask, request.note), True
        await keep(client)
    provider.context.client_info = client
    _check_guess(provider, server, record, client)
    return client, registered


def _known_client(
    provider: OAuthClientProvider, server: AuthorizationServer, record: TokenRecord, forgotten: str | None
) -> Client | None:
    """The client that is known already, if it may be used with this server; None: another is to be registered."""
    client = provider.context.client_info
    if client is None:
        return None
    dynamic = is_dynamic(client, provider)
    if dynamic and (client.client_id == forgotten or is_expired(client)):
        return None
    portable = client.client_id == provider.context.client_metadata_url
    if portable or belongs_to(client, server, used_with=record.issuer):
        return client
    if dynamic or client.issuer is not None:
        return None
    # A host configured it, and did not say for whom: it was used with another server until now.
    raise CredentialsRefused(
        f"the client {client.client_id!r} belongs to {redact_url(str(record.issuer))}, and the MCP "
        f"server now asks for tokens of {redact_url(server.issuer)}: configure a client for that one"
    )


def _choose_scope(request: Request, server: AuthorizationServer, granted: str | None) -> None:
    """What to ask for: what the challenge names, else what the metadata offer (the specification's order)."""
    context = request.provider.context
    asked = context.client_metadata
    wanted = get_client_metadata_scopes(
        extract_scope_from_www_auth(request.refusal),
        context.protected_resource_metadata,
        server.metadata,
        asked.grant_types,
    )
    if request.refusal.status_code == 403:
        # A step-up asks for what was granted before as well: one right more must not cost another.
        wanted = union_scopes(union_scopes(asked.scope, granted), wanted)
    else:
        # A configured scope overrides what the server offers, which may be more than the person wants to grant.
        wanted = getattr(request.provider, "configured_scope", None) or wanted
    asked.scope = wanted


def _check_guess(
    provider: OAuthClientProvider, server: AuthorizationServer, record: TokenRecord, client: Client
) -> None:
    """A secret that existed before goes to no guessed address, unless it is known to be the issuer's own."""
    known = client.issuer or record.issuer or sdk.fixed_issuer(provider)
    if server.metadata is None and client.client_secret and known is None:
        raise CredentialsRefused(
            "no authorization server is published, and a client secret is not sent to a guessed address: "
            "name its issuer (issuer=...)"
        )


async def _grant(request: Request, server: AuthorizationServer, commit: Commit) -> Refused | None:
    """Get a grant and trade it for tokens. None: they are stored; otherwise how that was refused."""
    failed: tuple[str, OAuthFlowError] | None = None
    try:
        outgoing = await sdk.authorize(request.provider)
    except OAuthFlowError as error:
        failed = sdk.explained(error), sdk.same_kind(error, sdk.explained(error))
    if failed is not None:
        raise CredentialsRefused(failed[0]) from failed[1]

    return await trade(request, outgoing, server, request.provider.context.client_metadata.scope, commit)


async def trade(
    request: Request, outgoing: httpx2.Request, server: AuthorizationServer, scope: str | None, commit: Commit
) -> Refused | None:
    """Trade a grant for tokens, and retry while the authorization server says "not now".

    Args:
        request: What it is for.
        outgoing: The token request.
        server: Where it goes.
        scope: What was asked for.
        commit: Stores the tokens.

    Returns:
        None: they are stored; otherwise how that was refused.

    Raises:
        CredentialsRefused: the token request goes to another address than the server's token endpoint.
        CredentialsUnavailable: the server went on saying so, or did not answer.
    """

    async def once() -> Refused | None:
        outcome = await request.tokens(outgoing, server)
        if isinstance(outcome, Refused):
            return outcome
        if outcome.scope is None:
            # RFC 6749, 5.1: a scope that is left out is the one that was asked for.
            outcome.scope = scope
        await commit(outcome, server)
        return None

    for pause in PAUSES:
        try:
            return await finished(once, GRACE)
        except NoAnswer:
            # A code is good for one request, and this one may have been it.
            raise
        except CredentialsUnavailable as error:
            wait = min(error.retry_after or pause, LONGEST_PAUSE)
        await anyio.sleep(wait)
    return await finished(once, GRACE)


def _in_words(refused: Refused, server: AuthorizationServer, client: Client, registered: bool) -> str:
    name = redact_url(server.issuer)
    if not refused.registration:
        return f"{name} refused: {refused.said}"
    if registered:
        return f"{name} does not know the client that it has just registered: {refused.said}"
    return f"{name} does not accept the client {client.client_id!r} that is configured: {refused.said}"
