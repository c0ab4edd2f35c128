"""Refresh tokens and client secrets go to the issuer that they came from, and nowhere else."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio
import httpx2
import pytest
from mcp.client.auth.extensions.client_credentials import ClientCredentialsOAuthProvider
from mcp.shared.auth import OAuthClientInformationFull, OAuthMetadata, OAuthToken
from mcp.shared.exceptions import MCPDeprecationWarning

from mcpconn import Connection, FailureKind, Policy, State
from mcpconn.auth import CredentialsRefused, FileTokenStorage, OAuth, TokenRecord
from mcpconn.auth.discovery import AuthorizationServer, less_secure, origin, same_issuer
from mcpconn.core.backoff import Backoff
from mcpconn.errors import ConnectionFailed, McpConnError
from tests.auth.hosts import METADATA, RESOURCE, Host, World, raw
from tests.auth.servers import Answer, as_json
from tests.auth.test_oauth import Memory, Person, provider
from tests.support import SAFETY, text_of

pytestmark = pytest.mark.anyio

QUICK = Policy(backoff=Backoff(initial=0.01, maximum=0.02), patience=0.05, cool_down=0.02, cool_down_maximum=0.02)
CLIENT_SECRET = "a-client-secret-0123"


@pytest.fixture
def world() -> Iterator[World]:
    with World().running() as world:
        yield world


@pytest.fixture
def storage(tmp_path: Path) -> FileTokenStorage:
    return FileTokenStorage(tmp_path / "tokens.json")


def logged_in(world: World, *, secret: bool = True, issuer: str | None = None) -> TokenRecord:
    """What a login that was made before has stored."""
    issuer = issuer or world.issuer.origin
    return TokenRecord(
        generation=1,
        tokens=OAuthToken.model_validate(world.auth.issue()),
        issuer=issuer,
        client=OAuthClientInformationFull(
            client_id="client-1",
            client_secret=CLIENT_SECRET if secret else None,
            token_endpoint_auth_method="client_secret_post" if secret else "none",
            issuer=issuer,
        ),
    )


async def add(connection: Connection, **options: Any) -> str:
    return text_of(await connection.call_tool("add", {"a": 1, "b": 1}, timeout=SAFETY, **options))


def stored_secrets(record: TokenRecord) -> tuple[str, ...]:
    assert record.tokens is not None
    assert record.tokens.refresh_token is not None
    return record.tokens.refresh_token, CLIENT_SECRET


GONE: list[Answer] = [
    raw(404, "text/plain", "not found"),
    raw(410, "text/plain", ""),
    raw(200, "text/html", "<html>welcome"),
    raw(200, "application/json", "{"),
    raw(200, "application/json", '{"issuer": NaN}'),
    raw(302, "text/plain", "", location="/login"),
    raw(503, "text/plain", ""),
    raw(429, "text/plain", ""),
    (0, {}, b""),
]


@pytest.mark.parametrize("engine", ["direct", "httpx"])
@pytest.mark.parametrize("answer", GONE)
async def test_without_metadata_of_the_issuer_nothing_is_guessed(
    world: World, storage: FileTokenStorage, engine: str, answer: Answer
) -> None:
    record = logged_in(world)
    assert await storage.replace(record)
    entry = {"url": world.url, "auth": world.provider(storage, person=False), "engine": engine}
    with anyio.fail_after(SAFETY):
        async with Connection(entry, name="srv", policy=QUICK) as connection:
            assert await add(connection) == "2"
            world.answers["/.well-known/"] = lambda: answer
            world.auth.revoke_access()
            with pytest.raises(McpConnError):
                await add(connection)
            assert world.server.saw(*stored_secrets(record)) == []
            assert world.issuer.saw(*stored_secrets(record)) == []
            # It comes back by itself when the metadata do: the refresh token was kept.
            world.answers.clear()
            while connection.state is not State.READY:
                await connection._lifecycle.changed()
            assert await add(connection) == "2"
    assert world.issuer.saw(*stored_secrets(record)) == list(stored_secrets(record))
    assert world.server.saw(*stored_secrets(record)) == []


async def test_one_404_for_metadata_costs_one_try(world: World, storage: FileTokenStorage) -> None:
    record = logged_in(world)
    assert await storage.replace(record)
    world.auth.revoke_access()
    answers = [raw(404, "text/plain", "")] * 2
    world.answers["/.well-known/"] = lambda: answers.pop() if answers else None
    entry = {"url": world.url, "auth": world.provider(storage, person=False)}
    with anyio.fail_after(SAFETY):
        async with Connection(entry, name="srv", policy=QUICK) as connection:
            assert await add(connection) == "2"
    assert world.auth.counts["refresh_token"] == 1
    assert world.server.saw(*stored_secrets(record)) == []


@pytest.mark.parametrize("answer", GONE)
async def test_without_resource_metadata_the_recorded_issuer_is_used(
    world: World, storage: FileTokenStorage, answer: Answer
) -> None:
    record = logged_in(world)
    assert await storage.replace(record)
    world.auth.revoke_access()
    world.server.instead = lambda sent: answer if sent.path.startswith(RESOURCE) else None
    entry = {"url": world.url, "auth": world.provider(storage, person=False)}
    with anyio.fail_after(SAFETY):
        async with Connection(entry, name="srv", policy=QUICK) as connection:
            assert await add(connection) == "2"
    assert world.auth.counts["refresh_token"] == 1
    assert world.server.saw(*stored_secrets(record)) == []


async def test_of_two_servers_the_recorded_one_gets_the_refresh_token(world: World, storage: FileTokenStorage) -> None:
    other = Host(lambda sent: raw(500, "text/plain", ""))
    world.advertised = [other.origin, world.issuer.origin]
    record = logged_in(world)
    assert await storage.replace(record)
    world.auth.revoke_access()
    other.start()
    try:
        with anyio.fail_after(SAFETY):
            async with Connection({"url": world.url, "auth": world.provider(storage)}, policy=QUICK) as connection:
                assert await add(connection) == "2"
    finally:
        other.close()
    assert (other.sent, world.auth.counts["refresh_token"], world.person.logins) == ([], 1, 0)


async def test_of_two_servers_the_first_that_can_be_used_is_logged_in_at(
    world: World, storage: FileTokenStorage
) -> None:
    other = Host(lambda sent: raw(404, "text/plain", ""))
    world.advertised = [other.origin, world.issuer.origin]
    other.start()
    try:
        with anyio.fail_after(SAFETY):
            async with Connection({"url": world.url, "auth": world.provider(storage)}, policy=QUICK) as connection:
                assert await add(connection) == "2"
    finally:
        other.close()
    assert {sent.path for sent in other.sent} <= {METADATA, "/.well-known/openid-configuration"}
    record = await storage.load()
    assert (record.issuer, record.server) == (world.issuer.origin, origin(world.url))
    assert record.client is not None
    assert record.client.issuer == world.issuer.origin


async def test_another_issuer_gets_nothing_stored(world: World, storage: FileTokenStorage) -> None:
    """The MCP server names another authorization server than the tokens came from: a login there starts again."""
    record = logged_in(world, issuer="http://127.0.0.1:9/former")
    assert await storage.replace(record)
    world.auth.revoke_access()
    with pytest.raises(ConnectionFailed, match=r"is of http://127\.0\.0\.1:9/former, and the MCP") as caught:
        await connect(world, world.provider(storage, person=False))
    assert caught.value.failure.kind is FailureKind.AUTH
    assert world.issuer.saw(*stored_secrets(record)) == world.server.saw(*stored_secrets(record)) == []
    # With a person there is a login at the new one, with a registration of its own.
    await connect(world, world.provider(storage))
    assert (world.person.logins, world.auth.counts["register"]) == (1, 1)
    assert world.issuer.saw(*stored_secrets(record)) == []
    assert (await storage.load()).issuer == world.issuer.origin


async def test_a_configured_client_is_not_taken_to_another_issuer(world: World, storage: FileTokenStorage) -> None:
    record = logged_in(world, issuer="http://127.0.0.1:9/former")
    assert record.client is not None
    record.client.issuer = None
    assert await storage.replace(record)
    world.auth.revoke_access()
    with pytest.raises(ConnectionFailed, match=r"the client 'client-1' belongs to http://127\.0\.0\.1:9/former"):
        await connect(world, world.provider(storage))
    assert world.person.logins == 0
    assert world.issuer.saw(*stored_secrets(record)) == world.server.saw(*stored_secrets(record)) == []


@pytest.mark.parametrize("person", [True, False])
async def test_the_secret_of_a_client_without_issuer_goes_to_no_guessed_address(world: World, person: bool) -> None:
    storage = Memory()
    storage.client = OAuthClientInformationFull(
        client_id="client-1", client_secret=CLIENT_SECRET, token_endpoint_auth_method="client_secret_post"
    )
    tokens = storage.tokens = OAuthToken.model_validate(world.auth.issue())
    world.auth.revoke_access()
    world.server.instead = lambda sent: raw(404, "text/plain", "") if sent.path != "/mcp" else None
    with pytest.raises(ConnectionFailed, match=r"no authorization server is published"):
        await connect(world, world.provider(storage, person=person))
    assert world.server.saw(CLIENT_SECRET, str(tokens.refresh_token)) == []
    assert world.issuer.sent == []


@pytest.mark.parametrize("answer", GONE[:6])
async def test_client_credentials_without_issuer_go_to_no_guessed_address(world: World, answer: Answer) -> None:
    with pytest.warns(MCPDeprecationWarning, match=r"issuer"):
        auth = ClientCredentialsOAuthProvider(world.url, Memory(), "client", CLIENT_SECRET)
    world.answers["/.well-known/"] = lambda: answer
    with pytest.raises(ConnectionFailed):
        await connect(world, auth)
    assert world.server.saw(CLIENT_SECRET) == world.issuer.saw(CLIENT_SECRET) == []


async def test_a_server_that_is_its_own_issuer_may_publish_nothing(storage: FileTokenStorage) -> None:
    """The rule of 2025-03-26: /authorize, /token and /register of the MCP server's origin."""
    with World(apart=False).running() as world:
        both = world.issuer.handle

        def legacy(sent: Any) -> Answer:
            if sent.path.startswith("/.well-known/"):
                return raw(404, "text/plain", "")
            if sent.path in ("/token", "/register"):
                answer = world.auth.answer(sent.method, f"/as{sent.path}", sent.headers, sent.body)
                assert answer is not None
                return answer
            return both(sent)

        world.issuer.handle = legacy
        await connect(world, world.provider(storage))
        assert (await storage.load()).issuer == world.issuer.origin
        world.auth.revoke_access()
        # Another program: it knows from the file that this server issued the refresh token itself.
        await connect(world, world.provider(storage, person=False))
        assert (world.person.logins, world.auth.counts["refresh_token"]) == (1, 1)


async def test_another_issuers_metadata_are_unused(world: World, storage: FileTokenStorage) -> None:
    record = logged_in(world)
    assert await storage.replace(record)
    world.auth.revoke_access()
    metadata = {
        "issuer": "http://evil.example",
        "authorization_endpoint": f"{world.server.origin}/authorize",
        "token_endpoint": f"{world.server.origin}/token",
    }
    world.answers["/.well-known/"] = lambda: as_json(200, metadata)
    with pytest.raises(ConnectionFailed, match=r"names another issuer, http://evil\.example") as caught:
        await connect(world, world.provider(storage))
    assert caught.value.failure.kind is FailureKind.AUTH
    assert world.person.logins == 0
    assert world.server.saw(*stored_secrets(record)) == world.issuer.saw(*stored_secrets(record)) == []


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_token_endpoint_that_redirects_elsewhere_is_not_followed(
    world: World, storage: FileTokenStorage, status: int
) -> None:
    record = logged_in(world)
    assert await storage.replace(record)
    world.auth.revoke_access()
    world.answers["/as/token"] = lambda: raw(status, "text/plain", "", location=f"{world.server.origin}/token")
    expected = f"a redirect to {world.server.origin}, which is not followed"
    with pytest.raises(ConnectionFailed, match=expected) as caught:
        await connect(world, world.provider(storage))
    assert caught.value.failure.kind is FailureKind.UNAVAILABLE
    assert world.person.logins == 0
    assert world.server.saw(*stored_secrets(record)) == []
    # It was a bad deployment: the refresh token is as good as before.
    world.answers.clear()
    await connect(world, world.provider(storage, person=False))
    assert world.auth.counts["refresh_token"] == 1


async def test_another_servers_file_is_not_used(world: World, storage: FileTokenStorage) -> None:
    record = replace(logged_in(world), server="https://other.example:443")
    assert await storage.replace(record)
    with pytest.raises(ConnectionFailed, match=r"holds the tokens of https://other\.example:443") as caught:
        await connect(world, world.provider(storage))
    assert str(storage.path) in str(caught.value)
    assert record.tokens is not None
    assert world.server.saw(record.tokens.access_token, *stored_secrets(record)) == []
    assert await storage.load() == record


async def test_a_login_records_who_issued_the_tokens_and_for_whom(world: World, storage: FileTokenStorage) -> None:
    await connect(world, world.provider(storage))
    data = json.loads(storage.path.read_text())
    assert (data["issuer"], data["server"]) == (world.issuer.origin, world.server.origin)
    assert data["client"]["issuer"] == world.issuer.origin
    assert "mark" not in data


# -- without TLS, and other addresses: no sockets needed


def publishing(issuer: str, **changes: Any) -> Any:
    """Answers discovery for an MCP server at https://mcp.example/mcp, and fails at anything else."""
    metadata = {
        "issuer": issuer,
        "authorization_endpoint": f"{issuer}/authorize",
        "token_endpoint": f"{issuer}/token",
        "registration_endpoint": f"{issuer}/register",
        **changes,
    }
    asked: list[str] = []

    async def fetch(request: httpx2.Request) -> httpx2.Response:
        asked.append(f"{request.method} {request.url}")
        if request.url.path.startswith(RESOURCE):
            body: dict[str, Any] = {"resource": "https://mcp.example/mcp", "authorization_servers": [issuer]}
        elif request.url.path.startswith(METADATA):
            body = metadata
        else:
            return httpx2.Response(404, request=request)
        return httpx2.Response(200, json=body, request=request)

    return fetch, asked


@pytest.mark.parametrize(
    ("issuer", "changes", "says"),
    [
        ("http://as.example", {}, "http://as.example is not reached over TLS"),
        ("https://as.example", {"token_endpoint": "http://as.example/token"}, "its token endpoint without TLS"),
        (
            "https://as.example",
            {"authorization_endpoint": "http://as.example/a"},
            "its authorization endpoint without TLS",
        ),
        (
            "https://as.example",
            {"registration_endpoint": "http://as.example/r"},
            "its registration endpoint without TLS",
        ),
    ],
)
async def test_tls_secrets_are_not_sent_without(issuer: str, changes: Any, says: str) -> None:
    fetch, asked = publishing(issuer, **changes)
    auth = OAuth(provider(Memory(), Person(), "https://mcp.example/mcp"))
    with pytest.raises(CredentialsRefused, match=says):
        await auth.renew(None, fetch=fetch)
    assert all(line.startswith("GET ") for line in asked)


async def test_a_challenge_that_points_to_metadata_without_tls_is_not_followed() -> None:
    fetch, asked = publishing("https://as.example")
    auth = OAuth(provider(Memory(), Person(), "https://mcp.example/mcp"))
    with pytest.raises(CredentialsRefused):
        await auth.renew('Bearer resource_metadata="http://evil.example/meta"', fetch=fetch)
    assert asked[0] == f"GET https://mcp.example{RESOURCE}/mcp"
    assert not any("evil" in line for line in asked)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("https://as.example", "https://as.example/", True),
        ("https://as.example", "https://AS.example:443", True),
        ("https://as.example/tenant", "https://as.example/tenant", True),
        ("https://as.example/tenant", "https://as.example/tenant/", False),
        ("https://as.example/tenant", "https://as.example/", False),
        ("https://as.example", "http://as.example", False),
        ("https://as.example", "https://as.example:8443", False),
        ("https://as.example", "https://as.example.evil", False),
    ],
)
def test_issuers_are_one_by_their_identifier(one: str, other: str, same: bool) -> None:
    assert same_issuer(one, other) is same
    assert same_issuer(other, one) is same


def test_only_published_endpoints_are_used() -> None:
    metadata = OAuthMetadata.model_validate(
        {
            "issuer": "https://as.example",
            "authorization_endpoint": "https://as.example/authorize",
            "token_endpoint": "https://as.example/token",
        }
    )
    server = AuthorizationServer("https://as.example", "https://mcp.example/mcp", metadata)
    assert server.accepts(httpx2.URL("https://as.example/token"))
    assert not server.accepts(httpx2.URL("https://as.example/token2"))
    assert not server.accepts(httpx2.URL("https://mcp.example/token"))
    guessed = AuthorizationServer("https://mcp.example", "https://mcp.example/mcp", None)
    assert guessed.accepts(httpx2.URL("https://mcp.example/token"))
    assert not guessed.accepts(httpx2.URL("https://mcp.example:8443/token"))
    assert not less_secure("https://as.example", "http://mcp.example")


async def connect(world: World, auth: Any) -> None:
    """Open a connection and make a call."""
    with anyio.fail_after(SAFETY):
        async with Connection({"url": world.url, "auth": auth}, name="srv", policy=QUICK) as connection:
            assert await add(connection) == "2"
