"""Registrations that an authorization server has forgotten: replaced if they were made by us, once, with a login."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest
from mcp.client.auth.extensions.client_credentials import ClientCredentialsOAuthProvider
from mcp.shared.auth import OAuthClientInformationFull, OAuthToken

from mcpconn import Connection, FailureKind, Policy
from mcpconn.auth import FileTokenStorage, OAuth
from mcpconn.core.backoff import Backoff
from mcpconn.errors import ConnectionFailed
from tests.auth.hosts import World, error, raw
from tests.auth.servers import Answer, as_json
from tests.auth.test_oauth import Memory
from tests.support import SAFETY, text_of

pytestmark = pytest.mark.anyio

QUICK = Policy(backoff=Backoff(initial=0.01, maximum=0.02), patience=0.05)
METADATA_URL = "https://host.example/client.json"

FORGOTTEN = [
    error(401, "invalid_client"),
    error(400, "invalid_client", "Client authentication failed"),
    error(200, "invalid_client"),
    error(400, "unauthorized_client"),
    raw(401, "text/plain", ""),
    raw(401, "text/html", "<html>Unauthorized"),
    raw(422, "application/json", '{"detail": "Client not found"}'),
    raw(422, "application/json", '{"detail": [{"loc": ["body", "client_id"], "msg": "unknown"}]}'),
]


@pytest.fixture
def world() -> Iterator[World]:
    with World().running() as world:
        world.auth.clients = set()
        yield world


@pytest.fixture
def storage(tmp_path: Path) -> FileTokenStorage:
    return FileTokenStorage(tmp_path / "tokens.json")


async def connect(world: World, auth: Any) -> None:
    """Open a connection and make a call."""
    with anyio.fail_after(SAFETY):
        async with Connection({"url": world.url, "auth": auth}, name="srv", policy=QUICK) as connection:
            result = await connection.call_tool("add", {"a": 1, "b": 1}, timeout=SAFETY)
            assert text_of(result) == "2"


def forget(world: World, answer: Answer | None = None) -> None:
    """The authorization server is set up again: it knows no client and no token."""
    if answer is not None:
        world.auth.unknown_client = answer
    world.auth.clients = set()
    world.auth.revoke_all()


def client_id(storage: FileTokenStorage) -> str:
    found: str = json.loads(storage.path.read_text())["client"]["client_id"]
    return found


@pytest.mark.parametrize("answer", FORGOTTEN)
async def test_a_forgotten_client_is_renewed_once(world: World, storage: FileTokenStorage, answer: Answer) -> None:
    await connect(world, world.provider(storage))
    assert client_id(storage) == "client-1"
    forget(world, answer)
    provider = world.provider(storage)
    during: list[str] = []

    async def look(url: str) -> None:
        during.append(client_id(storage))
        await world.person.redirect(url)

    provider.context.redirect_handler = look
    await connect(world, provider)
    # The old one stayed until somebody had logged in with the new one.
    assert (during, client_id(storage)) == (["client-1"], "client-2")
    assert "client_id=client-2" in world.person.urls[-1]
    counts = world.auth.counts
    assert (counts["register"], world.person.logins, counts["refresh_token"]) == (2, 2, 1)
    # It is good over a restart, and without a person.
    world.auth.revoke_access()
    await connect(world, world.provider(storage, person=False))
    assert (counts["register"], world.person.logins, counts["refresh_token"]) == (2, 2, 2)


async def test_any_storage_of_the_sdk_will_do(world: World) -> None:
    storage = Memory()
    await connect(world, world.provider(storage))
    forget(world)
    await connect(world, world.provider(storage))
    assert (world.auth.counts["register"], world.person.logins) == (2, 2)
    assert storage.client is not None
    assert storage.client.client_id == "client-2"


async def test_without_a_login_none_is_registered(world: World, storage: FileTokenStorage) -> None:
    await connect(world, world.provider(storage))
    forget(world)
    for restart in (1, 2, 3):
        with pytest.raises(ConnectionFailed, match="does not know this client any more: invalid_client") as caught:
            await connect(world, world.provider(storage, person=False))
        assert caught.value.failure.kind is FailureKind.AUTH
        assert (world.auth.counts["register"], world.auth.counts["refresh_token"]) == (1, restart)
    assert client_id(storage) == "client-1"


async def test_logins_that_fail_keep_the_old_one_and_register_once(world: World, storage: FileTokenStorage) -> None:
    await connect(world, world.provider(storage))
    forget(world)
    provider = world.provider(storage)

    async def leave(url: str) -> None:
        raise RuntimeError("the browser was closed")

    provider.context.redirect_handler = leave
    entry = {"url": world.url, "auth": provider, "lazy": True}
    with anyio.fail_after(SAFETY):
        async with Connection(entry, name="srv", policy=QUICK) as connection:
            for _ in range(3):
                with pytest.raises(ConnectionFailed, match="the browser was closed"):
                    await connection.reconnect()
                assert client_id(storage) == "client-1"
            assert world.auth.counts["register"] == 2
            provider.context.redirect_handler = world.person.redirect
            await connection.reconnect()
    assert (client_id(storage), world.auth.counts["register"]) == ("client-2", 2)


@pytest.mark.parametrize("answer", FORGOTTEN)
async def test_a_refused_configured_client_needs_a_person(
    world: World, storage: FileTokenStorage, answer: Answer
) -> None:
    configured = OAuthClientInformationFull(client_id="configured", client_secret="a-client-secret-0123")
    await storage.set_client_info(configured)
    await storage.set_tokens(OAuthToken.model_validate(world.auth.issue()))
    forget(world, answer)
    with pytest.raises(ConnectionFailed, match="does not accept the client 'configured'") as caught:
        await connect(world, world.provider(storage))
    assert caught.value.failure.kind is FailureKind.AUTH
    assert (world.auth.counts["register"], client_id(storage)) == (0, "configured")


@pytest.mark.parametrize("answer", FORGOTTEN)
async def test_refused_credentials_need_a_person(world: World, answer: Answer) -> None:
    auth = ClientCredentialsOAuthProvider(
        world.url, Memory(), "configured", "a-client-secret-0123", issuer=world.issuer.origin
    )
    forget(world, answer)
    with pytest.raises(ConnectionFailed, match="does not accept the client 'configured' that is configured"):
        await connect(world, auth)
    assert world.auth.counts["register"] == 0
    assert world.auth.counts["client_credentials"] == 1


async def test_a_client_known_by_its_metadata_url_is_a_persons_business(
    world: World, storage: FileTokenStorage
) -> None:
    metadata = world.auth.metadata()
    world.answers["/.well-known/"] = lambda: as_json(200, {**metadata, "client_id_metadata_document_supported": True})
    assert world.auth.clients is not None
    world.auth.clients.add(METADATA_URL)
    await connect(world, world.provider(storage, client_metadata_url=METADATA_URL))
    assert (client_id(storage), world.auth.counts["register"]) == (METADATA_URL, 0)
    forget(world)
    with pytest.raises(ConnectionFailed, match=f"does not accept the client '{METADATA_URL}'"):
        await connect(world, world.provider(storage, client_metadata_url=METADATA_URL))
    assert world.auth.counts["register"] == 0


async def test_a_registration_forgotten_before_the_login_costs_a_second_login(
    world: World, storage: FileTokenStorage
) -> None:
    """There is no refresh token to find it out with: the trade of the code tells."""
    await connect(world, world.provider(storage))
    await storage.clear()
    forget(world)
    await connect(world, world.provider(storage))
    assert (world.auth.counts["register"], world.person.logins, client_id(storage)) == (2, 3, "client-2")


async def test_a_server_that_knows_no_client_at_all_ends_it_after_one(world: World, storage: FileTokenStorage) -> None:
    world.answers["/as/token"] = lambda: error(401, "invalid_client", "no such client")
    expected = "does not know the client that it has just registered: invalid_client .no such client"
    with pytest.raises(ConnectionFailed, match=expected):
        await connect(world, world.provider(storage))
    assert (world.auth.counts["register"], world.person.logins) == (1, 1)


async def test_a_secret_whose_time_is_over_is_replaced_before_the_login(
    world: World, storage: FileTokenStorage
) -> None:
    def with_secret(sent: Any) -> Answer:
        body = {**json.loads(sent.body), "client_secret_expires_at": time.time() - 1}
        body |= {"client_id": "client-9", "client_secret": "a-client-secret-0123"}
        return as_json(201, {key: int(value) if isinstance(value, float) else value for key, value in body.items()})

    world.auth.clients = None
    usual = world.issuer.handle
    world.issuer.handle = lambda sent: with_secret(sent) if sent.path == "/as/register" else usual(sent)
    await connect(world, world.provider(storage))
    assert client_id(storage) == "client-9"
    await storage.clear()
    world.issuer.handle = usual
    await connect(world, world.provider(storage))
    assert (client_id(storage), world.person.logins) == ("client-1", 2)


@pytest.mark.parametrize(
    ("answer", "says", "kind"),
    [
        (error(400, "invalid_redirect_uri", "not allowed"), r"invalid_redirect_uri \(not allowed\)", "auth"),
        (raw(403, "text/html", "<html>"), "HTTP 403, 6 bytes, text/html", "auth"),
        (raw(201, "application/json", '{"client_secret": "a-client-secret-0123"}'), "its answer cannot be", "auth"),
        (raw(201, "application/json", '{"client_id": "c", "x": NaN}'), "its answer cannot be read", "auth"),
        (raw(201, "application/json", '{"a":' * 50_000), "its answer cannot be read", "auth"),
        (
            raw(201, "application/json", '{"client_id": "c", "token_endpoint_auth_method": "tls_client_auth"}'),
            "a client that cannot be used",
            "auth",
        ),
        (raw(503, "text/plain", ""), "clients cannot be registered now .HTTP 503", "unavailable"),
    ],
)
async def test_a_failed_registration_says_why(
    world: World, answer: Answer, says: str, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    world.answers["/as/register"] = lambda: answer
    with pytest.raises(ConnectionFailed, match=says) as caught:
        await connect(world, world.provider(Memory()))
    assert caught.value.failure.kind.value == kind
    assert "a-client-secret-0123" not in str(caught.value) + caplog.text
    assert world.person.logins == 0


async def test_without_registration_it_says_how(world: World) -> None:
    metadata = world.auth.metadata()
    del metadata["registration_endpoint"]
    world.answers["/.well-known/"] = lambda: as_json(200, metadata)
    with pytest.raises(ConnectionFailed, match="does not register clients dynamically: register one there"):
        await connect(world, world.provider(Memory()))
    # The MCP server's own /register was not asked: its client would not be this server's.
    assert world.server.count("/register") == 0


async def test_registrations_are_stored_with_time(world: World) -> None:
    """So that it is told from a configured one, in any storage."""
    storage = Memory()
    await OAuth(world.provider(storage)).refresh(f'Bearer resource_metadata="{world.server.origin}/x"')
    assert storage.client is not None
    assert time.time() - (storage.client.client_id_issued_at or 0) < SAFETY
