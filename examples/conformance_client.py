"""The client that the official conformance suite drives: `mcpconn.Connection`, or the bare SDK with `--bare`.

The suite starts it with the URL of a server that watches what a client does, the scenario's name in
MCP_CONFORMANCE_SCENARIO, and what a client may know beforehand in MCP_CONFORMANCE_CONTEXT:

    conformance client --command "python examples/conformance_client.py" --scenario auth/scope-step-up

Nothing here depends on which of the two clients it is: a `Connection` is used as an `mcp.Client` is.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import parse_qs, urlsplit

import anyio
import httpx2
import mcp_types as types
from mcp import Client, MCPError
from mcp.client.auth import OAuthClientProvider
from mcp.client.auth.extensions.client_credentials import (
    ClientCredentialsOAuthProvider,
    PrivateKeyJWTOAuthProvider,
    SignedJWTParameters,
)
from mcp.client.auth.extensions.identity_assertion import IdentityAssertionOAuthProvider
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.auth import AuthorizationCodeResult, OAuthClientInformationFull, OAuthClientMetadata, OAuthToken
from pydantic import AnyUrl

from mcpconn import Connection

CALLBACK = AnyUrl("http://localhost:3000/callback")
CLIENT_METADATA_URL = "https://conformance-test.local/client-metadata.json"
TOOLS: dict[str, tuple[str, dict[str, Any]]] = {
    "tools_call": ("add_numbers", {"a": 5, "b": 3}),
    "sse-retry": ("test_reconnection", {}),
    "elicitation-sep1034-client-defaults": ("test_client_elicitation_defaults", {}),
}


class Memory:
    """Tokens for as long as the program runs."""

    def __init__(self) -> None:
        self._tokens: OAuthToken | None = None
        self._client: OAuthClientInformationFull | None = None

    async def get_tokens(self) -> OAuthToken | None:
        """The tokens."""
        return self._tokens

    async def set_tokens(self, tokens: OAuthToken) -> None:
        """Replace the tokens."""
        self._tokens = tokens

    async def get_client_info(self) -> OAuthClientInformationFull | None:
        """The client's registration."""
        return self._client

    async def set_client_info(self, client_info: OAuthClientInformationFull) -> None:
        """Replace the registration."""
        self._client = client_info


class Browser:
    """Stands in for a person at a browser: the suite's login page redirects at once."""

    def __init__(self) -> None:
        self._answer: dict[str, list[str]] = {}

    async def open(self, url: str) -> None:
        """Visit the login page."""
        async with httpx2.AsyncClient() as client:
            response = await client.get(url, follow_redirects=False)
        self._answer = parse_qs(urlsplit(response.headers["location"]).query)

    async def answer(self) -> AuthorizationCodeResult:
        """What the redirect said."""
        said = {key: values[0] for key, values in self._answer.items()}
        return AuthorizationCodeResult(code=said["code"], state=said.get("state"), iss=said.get("iss"))


async def accept_defaults(context: Any, params: Any) -> types.ElicitResult:
    """Answer an elicitation with the defaults of its schema."""
    properties = params.requested_schema.get("properties", {}) if hasattr(params, "requested_schema") else {}
    content = {name: schema["default"] for name, schema in properties.items() if "default" in schema}
    return types.ElicitResult(action="accept", content=content)


async def with_login(url: str, known: dict[str, Any]) -> httpx2.Auth:
    """Authorization code with PKCE; the client is registered already where the suite says so."""
    browser, storage = Browser(), Memory()
    if "client_id" in known:
        secret = known.get("client_secret")
        await storage.set_client_info(
            OAuthClientInformationFull(
                client_id=known["client_id"],
                client_secret=secret,
                redirect_uris=[CALLBACK],
                token_endpoint_auth_method="client_secret_basic" if secret else "none",
            )
        )
    metadata = OAuthClientMetadata(client_name="mcpconn-conformance", redirect_uris=[CALLBACK])
    return OAuthClientProvider(
        url,
        metadata,
        storage,
        redirect_handler=browser.open,
        callback_handler=browser.answer,
        client_metadata_url=CLIENT_METADATA_URL,
    )


async def issuer_of(url: str) -> str:
    """The authorization server of the suite's server. Clients with credentials of their own are told it beforehand."""
    parts = urlsplit(url)
    async with httpx2.AsyncClient() as client:
        about = await client.get(f"{parts.scheme}://{parts.netloc}/.well-known/oauth-protected-resource{parts.path}")
    return str(about.json()["authorization_servers"][0])


async def identity_assertion(known: dict[str, Any], audience: str, resource: str) -> str:
    """SEP-990: the identity provider's assertion for the ID token of a person who is logged in there (RFC 8693)."""
    form = {
        "grant_type": "urn:ietf:params:oauth:grant-type:token-exchange",
        "requested_token_type": "urn:ietf:params:oauth:token-type:id-jag",
        "subject_token": known["idp_id_token"],
        "subject_token_type": "urn:ietf:params:oauth:token-type:id_token",
        "audience": audience,
        "resource": resource,
        "client_id": known["idp_client_id"],
    }
    async with httpx2.AsyncClient() as client:
        response = await client.post(known["idp_token_endpoint"], data=form)
    return str(response.raise_for_status().json()["access_token"])


async def credentials(scenario: str, url: str, known: dict[str, Any]) -> httpx2.Auth | None:
    """What the scenario's server wants to see."""
    if not scenario.startswith("auth/"):
        return None
    if scenario == "auth/client-credentials-basic":
        return ClientCredentialsOAuthProvider(
            url, Memory(), known["client_id"], known["client_secret"], issuer=await issuer_of(url)
        )
    if scenario == "auth/client-credentials-jwt":
        key = SignedJWTParameters(
            issuer=known["client_id"],
            subject=known["client_id"],
            signing_key=known["private_key_pem"],
            signing_algorithm=known.get("signing_algorithm", "ES256"),
        )
        return PrivateKeyJWTOAuthProvider(
            url, Memory(), known["client_id"], key.create_assertion_provider(), issuer=await issuer_of(url)
        )
    if "idp_id_token" in known:
        return IdentityAssertionOAuthProvider(
            url,
            Memory(),
            known["client_id"],
            known["client_secret"],
            issuer=await issuer_of(url),
            assertion_provider=lambda audience, resource: identity_assertion(known, audience, resource),
            token_endpoint_auth_method="client_secret_basic",
        )
    return await with_login(url, known)


@asynccontextmanager
async def opened(url: str, auth: httpx2.Auth | None, *, bare: bool) -> AsyncIterator[Connection | Client]:
    """A client for the server."""
    if not bare:
        async with Connection({"url": url, "auth": auth}, elicitation_callback=accept_defaults) as connection:
            yield connection
        return
    async with (
        httpx2.AsyncClient(auth=auth, timeout=30) as http,
        Client(streamable_http_client(url, http_client=http), elicitation_callback=accept_defaults) as client,
    ):
        yield client


async def main(url: str, *, bare: bool) -> None:
    """Do what the scenario asks for."""
    scenario = os.environ["MCP_CONFORMANCE_SCENARIO"]
    known = json.loads(os.environ.get("MCP_CONFORMANCE_CONTEXT") or "{}")
    auth = await credentials(scenario, url, known)
    async with opened(url, auth, bare=bare) as client:
        tools = (await client.list_tools()).tools
        if scenario == "sse-retry":
            # The suite tells the session's own event stream from a resumed one by its coming before the call.
            for _ in range(15):
                await client.list_tools(cache_mode="refresh")
        if scenario in TOOLS:
            name, arguments = TOOLS[scenario]
            print(await client.call_tool(name, arguments))
        elif scenario.startswith("auth/") and tools:
            try:
                print(await client.call_tool(tools[0].name, {}))
            except MCPError as error:
                # Whether the call is to succeed is the suite's to judge.
                print(error)


def run(arguments: list[str]) -> None:
    """Run the client with the arguments of a command line."""
    anyio.run(lambda: main(arguments[-1], bare="--bare" in arguments))


if __name__ == "__main__":
    run(sys.argv[1:])
