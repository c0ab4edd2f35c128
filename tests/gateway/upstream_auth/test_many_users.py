"""Hundreds of users with their own tokens come and go: nobody has another's, each is renewed once, nothing is left."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from mcp.shared.auth import OAuthClientInformationFull, OAuthToken

from mcpconn.auth.discovery import origin
from mcpconn.auth.record import TokenRecord
from mcpconn.auth.store import expiry
from mcpconn.gateway import Settings
from mcpconn.gateway.access.config import AccessSettings
from mcpconn.gateway.access.tokens import Issuer
from mcpconn.gateway.principals import Principal
from mcpconn.gateway.serve import allow_files
from mcpconn.gateway.upstream_auth.config import TokenExchange, UserLogin
from tests.gateway.access.issuer import AUDIENCE, ISSUER, JWKS, Authority
from tests.gateway.access.test_gate import client
from tests.gateway.conftest import Gateway, gateway
from tests.gateway.upstream_auth.cloud import EXCHANGE, Cloud, serving
from tests.support import text_of

pytestmark = pytest.mark.anyio

AT_ONCE = 20


@asynccontextmanager
async def office(authority: Authority) -> AsyncIterator[tuple[Gateway, Cloud, Cloud]]:
    """A gateway before two upstreams: users log in at one, and have their tokens exchanged for the other."""
    issuer = Issuer(ISSUER, audience=AUDIENCE, jwks=JWKS, fetch=authority.fetch)
    async with serving(Cloud()) as cloud, serving(Cloud()) as pool:
        settings = Settings(
            access=AccessSettings(None, (issuer,)),
            credentials={"cloud": UserLogin(), "pool": TokenExchange(f"{pool.origin}/as/token", client_id="gateway")},
        )
        more = {
            "cloud": {"url": f"{cloud.origin}/mcp", "lazy": True},
            "pool": {"url": f"{pool.origin}/mcp", "lazy": True},
        }
        async with gateway(more=more, settings=settings, safety=1800) as made:
            yield made, cloud, pool


async def logged_in(made: Gateway, cloud: Cloud, user: str) -> None:
    """As if the user had logged in before."""
    cloud.clients.add("client-0")
    tokens = OAuthToken.model_validate(cloud.issue(user))
    record = TokenRecord().successor(
        tokens=tokens,
        expires_at=expiry(tokens),
        issuer=cloud.origin,
        server=origin(cloud.origin),
        client=OAuthClientInformationFull(
            client_id="client-0", token_endpoint_auth_method="none", issuer=cloud.origin, redirect_uris=None
        ),
    )
    principal = Principal("", ISSUER, user)
    assert await made.app.auth.users.logins.storage(principal, "cloud").replace(record)


async def visit(made: Gateway, cloud: Cloud, pool: Cloud, authority: Authority, number: int) -> list[str]:
    """One user comes, calls, meets what happens to tokens, and goes. Returns what was said of whose they are."""
    user = f"user{number}"
    said: list[str] = []
    mode = ("legacy", "auto")[number % 2]

    async def ask(connected: Any, server: str) -> None:
        said.append(text_of(await connected.call_tool(f"{server}__whoami", {})))

    async with client(made, authority.token(user), mode) as connected:
        await ask(connected, "cloud")
        await ask(connected, "pool")
        if number % 3 == 0:
            cloud.revoke_access(user)
        elif number % 3 == 1:
            pool.revoke_access(user)
        async with anyio.create_task_group() as group:
            for server in ("cloud", "pool", "cloud", "pool"):
                group.start_soon(ask, connected, server)
    return said


async def test_users_with_own_tokens_come_and_go():
    # `make test-users` has 600 of them; each is some 20 requests.
    count = int(os.environ.get("MCPCONN_USERS", "20"))
    authority = Authority()
    allow_files()
    async with office(authority) as (made, cloud, pool):
        # Far fewer than there are users: what those who have gone left open is closed for those who come.
        made.app.upstreams._at_most = 5 * AT_ONCE
        # Whoever comes first opens what stays open: listening sockets, the loop's own.
        await logged_in(made, cloud, "user100000")
        await visit(made, cloud, pool, authority, 100_000)
        await gone(made, cloud, pool)
        files = len(os.listdir("/proc/self/fd"))
        limiter = anyio.CapacityLimiter(AT_ONCE)

        async def come(number: int) -> None:
            async with limiter:
                await logged_in(made, cloud, f"user{number}")
                said = await visit(made, cloud, pool, authority, number)
                assert said == [f"user{number}"] * 6

        async with anyio.create_task_group() as group:
            for number in range(count):
                group.start_soon(come, number)
        assert cloud.counts["reused"] == 0
        for number in range(count):
            assert cloud.counts[f"refreshed user{number}"] == (number % 3 == 0)
            assert pool.counts[f"exchanged user{number}"] == 1 + (number % 3 == 1)
        await gone(made, cloud, pool)
        with anyio.fail_after(60):
            # Sockets of clients that have gone are closed by the servers when these notice it.
            while len(os.listdir("/proc/self/fd")) > files + 5:
                await anyio.lowlevel.checkpoint()
        assert pool.counts[EXCHANGE] >= count


async def gone(made: Gateway, *clouds: Cloud) -> None:
    """Close what the clients' connections keep for a while after them, and wait for that."""
    for server in ("cloud", "pool"):
        made.app.upstreams.forget(server)

    def left() -> tuple[list[str], list[str]]:
        connections = [f"{name} {made.app.manager[name].state}" for name in made.app.manager if "#" in name]
        return connections, [user for cloud in clouds for user in cloud.sessions.values()]

    with anyio.move_on_after(60):
        while any(left()):
            await anyio.lowlevel.checkpoint()
    connections, sessions = left()
    assert not connections, connections
    assert not sessions, f"sessions of {sessions} were not ended"
