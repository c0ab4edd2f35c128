"""What is used of the SDK's OAuth providers beyond their public names: a canary for each."""

from __future__ import annotations

import hashlib
import inspect
import logging
from typing import Any

import pytest
from mcp.client.auth import OAuthClientProvider, OAuthFlowError, OAuthRegistrationError, OAuthTokenError, oauth2, utils
from mcp.client.auth.extensions import client_credentials
from mcp.client.auth.extensions.client_credentials import ClientCredentialsOAuthProvider

from mcpconn import Connection
from mcpconn.auth import OAuth
from mcpconn.auth.request_auth import as_credentials
from mcpconn.sdk import oauth as sdk
from mcpconn.testing.clock import virtual_backend
from tests.auth.servers import ORIGIN
from tests.auth.test_oauth import Memory, World, add, provider

FLOW = "ccc70a3ddf3c70fd"
"""Beginning of the SHA-256 of the SDK's flow, as it was when ours was written after it."""


@pytest.fixture(scope="module", params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    """Both event loops, with a clock that jumps."""
    return virtual_backend(request.param)


@pytest.mark.parametrize(
    ("name", "parameters", "is_async"),
    [
        ("_initialize", ["self"], True),
        ("_perform_authorization", ["self"], True),
        ("_validate_resource_match", ["self", "prm"], True),
        ("_select_authorization_server", ["self", "advertised"], False),
    ],
)
def test_a_method_that_is_called_is_there(name: str, parameters: list[str], is_async: bool) -> None:
    method = getattr(OAuthClientProvider, name)
    assert list(inspect.signature(method).parameters) == parameters
    assert inspect.iscoroutinefunction(method) is is_async
    assert name in sdk.NEEDED


def test_every_replaced_method_exists() -> None:
    assert [name for name in sdk.REPLACED if not hasattr(OAuthClientProvider, name)] == []


def test_a_fixed_issuer_keeps_its_name() -> None:
    auth = ClientCredentialsOAuthProvider(f"{ORIGIN}/mcp", Memory(), "client", "secret", issuer=ORIGIN)
    assert sdk.fixed_issuer(auth) == ORIGIN
    assert sdk.fixed_issuer(provider(Memory())) is None
    assert sdk.brings_client(auth)
    assert not sdk.brings_client(provider(Memory()))
    assert not sdk.needs_person(auth)
    assert sdk.needs_person(provider(Memory()))


def test_the_sdks_flow_has_not_changed() -> None:
    """If this fails, read the SDK's flow again: `grants`, `discovery` and `registration` do the same steps."""
    source = inspect.getsource(OAuthClientProvider._auth_flow) + inspect.getsource(oauth2.OAuthContext)
    digest = hashlib.sha256("".join(source.split()).encode()).hexdigest()
    assert digest.startswith(FLOW), f"mcp {sdk.installed()} has another flow than mcp {sdk.REVIEWED}: {digest}"


@pytest.mark.parametrize(("beginning", "words"), sdk.SAID)
def test_the_sdk_still_says_it_so(beginning: str, words: str) -> None:
    sources = "".join(inspect.getsource(module) for module in (oauth2, utils, client_credentials))
    assert f'"{beginning}' in sources
    assert sdk.explained(OAuthFlowError(f"{beginning}: a-secret")) == words


@pytest.mark.parametrize("kind", [OAuthFlowError, OAuthTokenError, OAuthRegistrationError])
def test_an_error_of_the_sdk_keeps_its_type_and_loses_its_text(kind: type[OAuthFlowError]) -> None:
    error = kind("a-secret came back")
    assert "a-secret" not in sdk.explained(error)
    assert type(sdk.same_kind(error, "words")) is kind
    assert type(sdk.same_kind(None, "words")) is OAuthFlowError


@pytest.mark.anyio
@pytest.mark.parametrize("name", sdk.NEEDED)
async def test_a_method_that_is_gone_is_a_warning_and_not_an_error_in_a_401(
    name: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    world = World()
    given = provider(world.storage, world.person)
    monkeypatch.setattr(given, name, None)
    with caplog.at_level(logging.WARNING, logger="mcpconn"):
        assert as_credentials(given) is given
    assert f"oauth.unknown_sdk version={sdk.installed()} missing={name}" in caplog.text


@pytest.mark.anyio
async def test_a_provider_of_an_unknown_sdk_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sdk, "NEEDED", (*sdk.NEEDED, "_a_method_of_a_later_release"))
    world = World()
    auth = provider(world.storage, world.person)
    entry = {"url": f"{ORIGIN}/mcp", "http_transport": world.transport, "auth": auth}
    async with Connection(entry, name="srv") as connection:
        assert await add(connection) == "2"
        assert not isinstance(connection._request_auth.credentials, OAuth)  # type: ignore[union-attr]
    assert world.person is not None
    assert world.person.logins == 1


@pytest.mark.parametrize("name", sdk.REPLACED)
def test_a_subclass_that_overrides_a_step_has_its_own_flow(name: str) -> None:
    kind = type("Own", (OAuthClientProvider,), {name: lambda self, *args: None})
    assert sdk.has_own_flow(kind)
    assert not sdk.has_own_flow(OAuthClientProvider)
    assert not sdk.has_own_flow(ClientCredentialsOAuthProvider)
