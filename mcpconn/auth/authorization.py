"""The authorization code grant in two parts, for a login whose answer may arrive in another process.

The SDK keeps the state and the PKCE verifier in a coroutine that waits for the person. A gateway cannot do that,
because the browser may return after a restart, or to another replica. So the data that the second part needs is a
storable value.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode, urlsplit

import httpx2
from mcp.client.auth import OAuthClientProvider, OAuthFlowError, PKCEParameters
from mcp.client.auth.utils import validate_authorization_response_iss
from mcp.shared.auth import OAuthClientInformationFull, OAuthMetadata

from mcpconn.auth.credentials import CredentialsRefused
from mcpconn.auth.discovery import AuthorizationServer
from mcpconn.auth.grants import token_endpoint
from mcpconn.redact.places import redact_url


@dataclass(frozen=True)
class Authorization:
    """A login in progress. It contains secrets: the state, the verifier, the client's secret."""

    state: str = field(repr=False)
    verifier: str = field(repr=False)
    redirect_uri: str
    scope: str | None
    resource: str | None
    server: AuthorizationServer
    client: OAuthClientInformationFull = field(repr=False)

    @classmethod
    def begin(cls, provider: OAuthClientProvider, server: AuthorizationServer) -> tuple[Authorization, str]:
        """Begin a login (RFC 6749, 4.1.1; RFC 7636; RFC 8707).

        Args:
            provider: Its context has the client, the scope to request and the redirect URI.
            server: The authorization server.

        Returns:
            The login, and the URL that the person's browser has to open.

        Raises:
            CredentialsRefused: the server publishes no authorization endpoint.
        """
        context = provider.context
        assert context.client_info is not None
        assert context.client_metadata.redirect_uris
        name = redact_url(server.issuer)
        if server.metadata is None or not server.metadata.authorization_endpoint:
            raise CredentialsRefused(f"{name} does not publish an address to log in at")
        endpoint = str(server.metadata.authorization_endpoint)
        if urlsplit(endpoint).scheme not in ("https", "http"):
            # `javascript:` and similar URLs must not become a link.
            raise CredentialsRefused(f"{name} publishes an address for logins that is not a web address")
        pkce = PKCEParameters.generate()
        resource = (
            context.get_resource_url() if context.should_include_resource_param(context.protocol_version) else None
        )
        begun = cls(
            state=secrets.token_urlsafe(32),
            verifier=pkce.code_verifier,
            redirect_uri=str(context.client_metadata.redirect_uris[0]),
            scope=context.client_metadata.scope,
            resource=resource,
            server=server,
            client=context.client_info,
        )
        asked = {
            "response_type": "code",
            "client_id": begun.client.client_id,
            "redirect_uri": begun.redirect_uri,
            "state": begun.state,
            "code_challenge": pkce.code_challenge,
            "code_challenge_method": "S256",
            "resource": resource,
            "scope": begun.scope,
            # OpenID Connect Core, section 11: a refresh token is given only to a person who was asked.
            "prompt": "consent" if "offline_access" in (begun.scope or "").split() else None,
        }
        query = urlencode({key: value for key, value in asked.items() if value})
        return begun, f"{endpoint}{'&' if urlsplit(endpoint).query else '?'}{query}"

    def token_request(self, provider: OAuthClientProvider, code: str, iss: str | None) -> httpx2.Request:
        """The request that trades the code for tokens (RFC 6749, 4.1.3).

        Args:
            provider: Its context gets the client of this login.
            code: What the browser brought back.
            iss: The issuer that the browser named (RFC 9207).

        Raises:
            CredentialsRefused: the answer comes from a different issuer.
        """
        try:
            validate_authorization_response_iss(iss, self.server.metadata)
        except OAuthFlowError:
            mixed_up = True
        else:
            mixed_up = False
        if mixed_up:
            # Raised outside the handler, because the SDK's text quotes the browser's request.
            name = redact_url(self.server.issuer)
            raise CredentialsRefused(f"the authorization response does not come from {name}, which was asked")
        context = provider.context
        context.client_info, context.oauth_metadata = self.client, self.server.metadata
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": self.redirect_uri,
            "client_id": self.client.client_id,
            "code_verifier": self.verifier,
        }
        if self.resource is not None:
            form["resource"] = self.resource
        form, headers = context.prepare_token_auth(form, {"content-type": "application/x-www-form-urlencoded"})
        return httpx2.Request("POST", token_endpoint(self.server), data=form, headers=headers)

    def to_json(self) -> dict[str, Any]:
        """For JSON. The result holds secrets."""
        metadata = self.server.metadata
        return {
            "state": self.state,
            "verifier": self.verifier,
            "redirect_uri": self.redirect_uri,
            "scope": self.scope,
            "resource": self.resource,
            "issuer": self.server.issuer,
            "server_url": self.server.server_url,
            "metadata": metadata and metadata.model_dump(mode="json", exclude_none=True),
            "client": self.client.model_dump(mode="json", exclude_none=True),
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Authorization:
        """The login that `to_json` was given."""
        metadata = data["metadata"] and OAuthMetadata.model_validate(data["metadata"])
        return cls(
            state=data["state"],
            verifier=data["verifier"],
            redirect_uri=data["redirect_uri"],
            scope=data["scope"],
            resource=data["resource"],
            server=AuthorizationServer(data["issuer"], data["server_url"], metadata),
            client=OAuthClientInformationFull.model_validate(data["client"]),
        )
