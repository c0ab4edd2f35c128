"""A user's token is exchanged for one of the upstream's, and goes nowhere else."""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import httpx2
import jwt
import pytest

from mcpconn.auth.credentials import CredentialsRefused
from mcpconn.gateway import Settings
from mcpconn.gateway.access.config import AccessSettings
from mcpconn.gateway.access.credentials import Inbound
from mcpconn.gateway.access.keys import KeyFile
from mcpconn.gateway.access.tokens import Issuer
from mcpconn.gateway.upstream_auth.config import TokenExchange
from mcpconn.gateway.upstream_auth.exchange import ExchangedToken
from tests.gateway.access.issuer import AUDIENCE, ISSUER, JWKS, Authority
from tests.gateway.access.test_gate import client
from tests.gateway.conftest import Gateway, gateway
from tests.gateway.upstream_auth.cloud import EXCHANGE, Cloud, serving
from tests.gateway.upstream_auth.test_login import tools
from tests.support import text_of

pytestmark = pytest.mark.anyio

MODES = pytest.mark.parametrize("mode", ["legacy", "auto"], ids=["legacy client", "modern client"])


@pytest.fixture(scope="module")
def authority():
    """RSA keys take a moment to make."""
    return Authority()


@asynccontextmanager
async def exchanging(
    authority: Authority, keys: KeyFile | None = None, **options: Any
) -> AsyncIterator[tuple[Gateway, Cloud]]:
    """A gateway before an upstream whose tokens are exchanged for those of the gateway's issuer."""
    issuer = Issuer(ISSUER, audience=AUDIENCE, jwks=JWKS, fetch=authority.fetch)
    async with serving(Cloud(**options)) as cloud:
        exchange = TokenExchange(
            f"{cloud.origin}/as/token", client_id="gateway", client_secret="exchange-secret-canary"
        )
        settings = Settings(access=AccessSettings(keys, (issuer,)), credentials={"cloud": exchange})
        more = {"cloud": {"url": f"{cloud.origin}/mcp", "lazy": True}}
        async with gateway(more=more, settings=settings) as made:
            yield made, cloud


@MODES
async def test_each_user_has_the_token_exchanged_for_its_own(authority, mode):
    async with exchanging(authority) as (made, cloud):
        for user in ("alice", "bob", "alice"):
            async with client(made, authority.token(user, jti=user), mode) as connected:
                assert await tools(connected) == {"cloud__whoami", "cloud__charge"}
                assert text_of(await connected.call_tool("cloud__whoami", {})) == user
        assert cloud.calls == {"alice": 2, "bob": 1}
        assert cloud.counts[EXCHANGE] <= 3


async def test_the_clients_token_goes_to_the_exchange_alone(authority, caplog):
    caplog.set_level(logging.DEBUG)
    token = authority.token("alice")
    async with exchanging(authority) as (made, cloud), client(made, token, "auto") as alice:
        assert text_of(await alice.call_tool("cloud__whoami", {})) == "alice"
        status = str(made.app.manager.status())
    secrets = [token, "exchange-secret-canary", *cloud.users]
    assert not any(token in each for each in cloud.seen)
    assert any(token in each for each in cloud.asked)
    for secret in secrets:
        assert secret not in caplog.text
        assert secret not in status


async def test_a_token_that_was_revoked_is_exchanged_again(authority):
    async with exchanging(authority) as (made, cloud), client(made, authority.token("alice"), "legacy") as alice:
        assert text_of(await alice.call_tool("cloud__whoami", {})) == "alice"
        before = cloud.counts[EXCHANGE]
        cloud.revoke_access("alice")
        said: list[str] = []

        async def ask() -> None:
            said.append(text_of(await alice.call_tool("cloud__whoami", {})))

        async with anyio.create_task_group() as group:
            for _ in range(4):
                group.start_soon(ask)
        assert said == ["alice"] * 4
        assert cloud.counts[EXCHANGE] == before + 1


async def test_a_refused_exchange_is_said_and_not_tried_again(authority):
    token = authority.token("alice")
    async with exchanging(authority) as (made, cloud), client(made, token, "auto") as alice:
        cloud.subjects = set()
        for _ in range(3):
            said = await alice.call_tool("cloud__charge", {})
            assert said.is_error
            assert said.meta is not None
            assert said.meta["mcpconn/outcome"] == "not_run"
            assert "does not exchange this client's token" in text_of(said)
            # The authorization server says the token back.
            assert token not in text_of(said)
        assert cloud.counts[EXCHANGE] == 1
        # Another token of the same user's is another matter.
        cloud.subjects = None
        async with client(made, authority.token("alice", jti="other", exp=time.time() + 900), "auto") as again:
            assert text_of(await again.call_tool("cloud__charge", {})) == "charged"


async def test_a_key_cannot_be_exchanged(authority, tmp_path):
    keys = KeyFile(tmp_path / "clients.json")
    key = keys.add("ann")
    async with exchanging(authority, keys) as (made, cloud), client(made, key, "auto") as ann:
        listed = await ann.list_tools()
        assert listed.tools == []
        assert listed.meta is not None
        assert "cannot be exchanged" in str(listed.meta["mcpconn/servers"]["cloud"])
        with pytest.raises(Exception, match="cannot be exchanged"):
            await ann.call_tool("cloud__whoami", {})
        assert cloud.seen == []


# -- the life of an exchanged token


class Exchange:
    """A token endpoint that counts, and gives tokens of a certain life."""

    def __init__(self, expires_in: int | None) -> None:
        self.expires_in = expires_in
        self.subjects: list[str] = []

    async def __call__(self, request: httpx2.Request) -> httpx2.Response:
        self.subjects.append(dict(httpx2.QueryParams(request.content.decode()))["subject_token"])
        token: dict[str, Any] = {"access_token": f"exchanged-{len(self.subjects)}", "token_type": "Bearer"}
        if self.expires_in is not None:
            token["expires_in"] = self.expires_in
        return httpx2.Response(200, json=token, request=request)


class Wall:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def credentials(exchange: Exchange, wall: Wall) -> ExchangedToken:
    settings = TokenExchange("https://login.example.com/token", audience="cloud")
    return ExchangedToken(settings, server="cloud", url="https://cloud.example.com", fetch=exchange, wall=wall)


async def bearer(of: ExchangedToken) -> str:
    return (await of.headers())["Authorization"].removeprefix("Bearer ")


@pytest.mark.parametrize("life", [100_000, None])
async def test_an_exchanged_token_never_outlives_the_clients(life):
    exchange, wall = Exchange(life), Wall()
    found = credentials(exchange, wall)
    found.offer(Inbound("one", 1600.0))
    assert await bearer(found) == "exchanged-1"
    wall.now = 1601.0
    with pytest.raises(CredentialsRefused, match="expired"):
        await found.headers()
    assert not found.untried
    found.offer(Inbound("two", 2200.0))
    assert found.untried
    assert await bearer(found) == "exchanged-2"
    assert exchange.subjects == ["one", "two"]


async def test_an_expired_exchange_is_repeated():
    exchange, wall = Exchange(300), Wall()
    found = credentials(exchange, wall)
    found.offer(Inbound("one", 5000.0))
    assert [await bearer(found) for _ in range(3)] == ["exchanged-1"] * 3
    wall.now += 295
    assert await bearer(found) == "exchanged-2"
    assert exchange.subjects == ["one", "one"]


async def test_many_requests_at_once_exchange_once():
    exchange, wall = Exchange(300), Wall()
    found = credentials(exchange, wall)
    found.offer(Inbound("one", 5000.0))
    async with anyio.create_task_group() as group:
        for _ in range(20):
            group.start_soon(bearer, found)
    assert exchange.subjects == ["one"]


async def test_an_older_token_does_not_replace_a_newer_one():
    found = credentials(Exchange(300), Wall())
    assert found.offer(Inbound("new", 5000.0))
    assert not found.offer(Inbound("old", 4000.0))
    assert await bearer(found) == "exchanged-1"


def test_nothing_of_a_token_is_in_its_repr(authority):
    token = authority.token("alice")
    assert jwt.get_unverified_header(token)
    inbound = Inbound(token, 1.0)
    assert token not in repr(inbound)
    assert "secret" not in repr(TokenExchange("https://a.example", client_id="a", client_secret="secret"))
