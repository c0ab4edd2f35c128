"""Whatever an authorization server answers, a token in it is shown nowhere, and the connection knows what to do."""

from __future__ import annotations

import json
import logging
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlencode

import anyio
import h11
import httpx2
import pytest
from mcp.client.auth import OAuthFlowError
from mcp.client.auth.extensions.identity_assertion import IdentityAssertionOAuthProvider
from mcp.shared.auth import AuthorizationCodeResult, OAuthToken

from mcpconn import Connection, FailureKind, Policy
from mcpconn.auth import CredentialsRefused, FileTokenStorage, OAuth
from mcpconn.core.backoff import Backoff
from mcpconn.errors import CallFailed, ConnectionFailed, McpConnError
from tests.auth.hosts import World, raw
from tests.auth.servers import Answer, as_json
from tests.auth.test_oauth import Memory
from tests.support import SAFETY, text_of

pytestmark = pytest.mark.anyio

QUICK = Policy(backoff=Backoff(initial=0.01, maximum=0.02), patience=0.1)
Tokens = dict[str, object]
Dress = Callable[[Tokens], Answer]


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    monkeypatch.setattr("mcpconn.auth.grants.PAUSES", (0.0, 0.0))
    with World().running() as world:
        yield world


def form(tokens: Tokens) -> Answer:
    return raw(200, "application/x-www-form-urlencoded", urlencode(tokens))


def cut(tokens: Tokens) -> Answer:
    return raw(200, "application/json", json.dumps(tokens)[:-9])


def nested(tokens: Tokens) -> Answer:
    return as_json(200, {"data": tokens})


def deep(tokens: Tokens) -> Answer:
    return raw(200, "application/json", '{"a":' * 50_000 + json.dumps(tokens))


def page(tokens: Tokens) -> Answer:
    return raw(200, "text/html", f"<html><script>var t = {json.dumps(tokens)}</script>")


def typed(tokens: Tokens) -> Answer:
    return as_json(200, {**tokens, "token_type": "mac"})


def listed(tokens: Tokens) -> Answer:
    return raw(200, "application/json", json.dumps([tokens]))


def wrong_fields(tokens: Tokens) -> Answer:
    return as_json(200, {**tokens, "access_token": [tokens["access_token"]], "scope": 5})


def broken_header(tokens: Tokens) -> Answer:
    return as_json(200, {**tokens, "access_token": f"{tokens['access_token']}\r\nx: y"})


def refused_with_it(tokens: Tokens) -> Answer:
    return as_json(200, {"error": "invalid_grant", "error_description": "no", "tokens": tokens})


def failed_with_it(tokens: Tokens) -> Answer:
    return raw(500, "text/plain", f"Traceback: {tokens}")


def elsewhere(tokens: Tokens) -> Answer:
    return raw(307, "text/plain", "", location=f"http://127.0.0.1:1/t?{urlencode(tokens)}")


def compressed(tokens: Tokens) -> Answer:
    return raw(200, "application/json", json.dumps(tokens), content_encoding="gzip")


def longer(tokens: Tokens) -> Answer:
    """Cut off by the connection's end."""
    return raw(200, "application/json", json.dumps(tokens), content_length="5000")


def odd_type(tokens: Tokens) -> Answer:
    return raw(200, f"application/{tokens['access_token']}", "nothing")


ODD = [
    cut,
    nested,
    deep,
    page,
    typed,
    listed,
    wrong_fields,
    broken_header,
    refused_with_it,
    failed_with_it,
    elsewhere,
    compressed,
    longer,
    odd_type,
]


class Shown:
    """Everything that was shown, to be searched for secrets."""

    def __init__(self, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.DEBUG)
        self._caplog = caplog
        self.texts: list[str] = []

    def error(self, error: BaseException) -> None:
        """An exception, with its whole chain: causes, contexts, also the suppressed ones."""
        seen: set[int] = set()
        pending: list[BaseException | None] = [error]
        while pending:
            each = pending.pop()
            if each is None or id(each) in seen:
                continue
            seen.add(id(each))
            self.texts += [str(each), repr(each), "".join(traceback.format_exception(each))]
            pending += [each.__cause__, each.__context__]
            if isinstance(each, CallFailed):
                pending.append(each.failure.evidence.exception)

    def connection(self, connection: Connection) -> None:
        self.texts += [repr(connection), json.dumps(connection.status()), repr(connection.last_failure)]

    def __contains__(self, secret: str) -> bool:
        logged = [
            f"{record.getMessage()} {record.exc_text or ''} {record.__dict__!r}"
            for record in self._caplog.records
            # At its debug level this one writes the headers of all answers, on purpose.
            if not record.name.startswith("httpcore2")
        ]
        return any(secret in text for text in [*self.texts, *logged])


@pytest.fixture
def shown(caplog: pytest.LogCaptureFixture) -> Shown:
    return Shown(caplog)


async def add(connection: Connection) -> str:
    return text_of(await connection.call_tool("add", {"a": 1, "b": 1}, timeout=SAFETY))


def secrets(world: World) -> list[str]:
    """All tokens that were ever issued."""
    return [
        f"{kind}-{number:04}-secret" for kind in ("access", "refresh") for number in range(1, world.auth.serial + 1)
    ]


@pytest.mark.parametrize("engine", ["direct", "httpx"])
async def test_a_server_that_answers_form_encoded_is_understood(world: World, engine: str, tmp_path: Path) -> None:
    world.auth.dress = form
    auth = world.provider(FileTokenStorage(tmp_path / "tokens.json"))
    with anyio.fail_after(SAFETY):
        async with Connection({"url": world.url, "auth": auth, "engine": engine}, name="srv") as connection:
            world.auth.revoke_access()
            assert await add(connection) == "2"
    assert (world.person.logins, world.auth.counts["refresh_token"]) == (1, 1)
    asked = [sent.headers["accept"] for sent in world.issuer.sent if sent.path == "/as/token"]
    assert asked == ["application/json"] * 2


@pytest.mark.parametrize("engine", ["direct", "httpx"])
@pytest.mark.parametrize("dress", ODD)
async def test_odd_refresh_answers_show_no_token(
    world: World, engine: str, dress: Dress, shown: Shown, tmp_path: Path
) -> None:
    auth = world.provider(FileTokenStorage(tmp_path / "tokens.json"))
    with anyio.fail_after(SAFETY):
        async with Connection(
            {"url": world.url, "auth": auth, "engine": engine}, name="srv", policy=QUICK
        ) as connection:
            await add(connection)
            world.auth.dress = dress
            world.auth.revoke_access()
            with pytest.raises(McpConnError) as caught:
                await add(connection)
            shown.error(caught.value)
            shown.connection(connection)
    found = [secret for secret in secrets(world) if secret in shown]
    assert found == []
    assert world.auth.serial > 1


@pytest.mark.parametrize("engine", ["direct", "httpx"])
@pytest.mark.parametrize("dress", ODD)
async def test_odd_login_answers_show_no_token(world: World, engine: str, dress: Dress, shown: Shown) -> None:
    world.auth.dress = dress
    auth = world.provider(Memory())
    with anyio.fail_after(SAFETY):
        with pytest.raises(ConnectionFailed) as caught:
            async with Connection({"url": world.url, "auth": auth, "engine": engine}, name="srv", policy=QUICK):
                pass
    shown.error(caught.value)
    assert caught.value.failure.kind in (FailureKind.AUTH, FailureKind.UNAVAILABLE)
    assert [secret for secret in secrets(world) if secret in shown] == []


@pytest.mark.parametrize("engine", ["direct", "httpx"])
@pytest.mark.parametrize("dress", ODD)
async def test_odd_answers_to_a_custom_auth_show_no_token(
    world: World, engine: str, dress: Dress, shown: Shown
) -> None:
    async def assertion(issuer: str, resource: str) -> str:
        return "an-identity-assertion"

    world.auth.dress = dress
    auth = IdentityAssertionOAuthProvider(
        world.url, Memory(), "client", "a-client-secret", world.issuer.origin, assertion
    )
    with anyio.fail_after(SAFETY):
        with pytest.raises(ConnectionFailed) as caught:
            async with Connection({"url": world.url, "auth": auth, "engine": engine}, name="srv", policy=QUICK):
                pass
    shown.error(caught.value)
    found = [secret for secret in [*secrets(world), "a-client-secret", "an-identity-assertion"] if secret in shown]
    assert found == []


async def test_an_auth_of_its_own_understands_form_encoded_tokens_too(world: World) -> None:
    async def assertion(issuer: str, resource: str) -> str:
        return "an-identity-assertion"

    world.auth.dress = form
    auth = IdentityAssertionOAuthProvider(
        world.url, Memory(), "client", "a-client-secret", world.issuer.origin, assertion
    )
    with anyio.fail_after(SAFETY):
        async with Connection({"url": world.url, "auth": auth}, name="srv") as connection:
            assert await add(connection) == "2"


def quoting(secret: str) -> list[Exception]:
    """What host code might raise, with a secret in its text."""
    found: list[Exception] = [KeyError(secret), OAuthFlowError(f"State parameter mismatch: {secret} != x")]
    for attempt in (
        lambda: int(secret),
        lambda: OAuthToken.model_validate({"access_token": [secret]}),
        lambda: httpx2.Response(
            401, request=httpx2.Request("POST", f"http://as.example/token?secret={secret}")
        ).raise_for_status(),
        lambda: h11.Request(method="GET", target="/", headers=[("host", "a"), ("x", f"{secret}\n")]),
    ):
        try:
            attempt()
        except Exception as error:
            found.append(error)
    assert all(secret in str(error) for error in found)
    return found


@pytest.mark.parametrize("number", range(6))
@pytest.mark.parametrize("where", ["redirect", "callback", "storage", "callable"])
async def test_quoting_errors_show_no_secret(world: World, shown: Shown, number: int, where: str) -> None:
    secret = "tok-1234567890-abcdef"
    error = quoting(secret)[number]

    async def fail(*_: Any) -> Any:
        raise error

    storage, auth = Memory(), cast(Any, fail)
    if where != "callable":
        auth = world.provider(storage)
        if where == "storage":
            storage.get_tokens = fail  # type: ignore[method-assign]
        elif where == "redirect":
            auth.context.redirect_handler = fail
        else:
            auth.context.callback_handler = fail
    with anyio.fail_after(SAFETY):
        with pytest.raises(ConnectionFailed) as caught:
            async with Connection({"url": world.url, "auth": auth}, name="srv", policy=QUICK):
                pass
    shown.error(caught.value)
    assert secret not in shown
    # What is left says where to look.
    assert type(error).__name__ in str(caught.value) or "state" in str(caught.value)


async def test_errors_that_quote_nothing_are_shown(world: World) -> None:
    async def fail() -> AuthorizationCodeResult:
        raise RuntimeError("the browser was closed")

    auth = world.provider(Memory())
    auth.context.callback_handler = fail
    with pytest.raises(ConnectionFailed, match="the login failed: the browser was closed"):
        async with Connection({"url": world.url, "auth": auth}, name="srv"):
            pass


async def test_a_failed_login_keeps_the_sdks_type(world: World) -> None:
    world.auth.error = {"error": "access_denied"}
    auth = OAuth(world.provider(Memory()))
    with pytest.raises(CredentialsRefused, match="refused: access_denied") as caught:
        await auth.refresh(f'Bearer resource_metadata="{world.server.origin}/.well-known/oauth-protected-resource"')
    assert isinstance(caught.value.__cause__, OAuthFlowError)
    assert str(caught.value.__cause__) == str(caught.value)
