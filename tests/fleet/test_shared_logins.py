"""A login for everybody, at a server behind replicas on several machines: it is in the store, and in no file."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from mcpconn import ServerConfig
from mcpconn.cli.failures import CliError
from mcpconn.cli.login import log_in
from mcpconn.cli.login_places import GatewayStore
from mcpconn.core.states import State
from mcpconn.errors import CallFailed
from mcpconn.gateway import App
from mcpconn.gateway.store import RedisStore
from mcpconn.seal import given_ring
from mcpconn.testing import Script
from tests.auth.servers import AuthServer, ServedAuth
from tests.cli.test_login import opened
from tests.redis_server import RedisServer, needs_redis
from tests.support import text_of

pytestmark = [pytest.mark.anyio, needs_redis]

SAFETY = 60.0
TOGETHER = 20
"""Calls at once on each replica, when the token has ended."""


@pytest.fixture
def auth(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[AuthServer]:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    server = AuthServer()
    with ServedAuth(server, Script(get_stream="405")):
        yield server


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    path = tmp_path / "keys"
    path.write_text("5e" * 32 + "\n", encoding="ascii")
    path.chmod(0o600)
    return path


def entry(auth: AuthServer, **more: Any) -> dict[str, Any]:
    return {"url": f"{auth.origin}/mcp", "auth": "oauth", **more}


@asynccontextmanager
async def replicas(auth: AuthServer, redis: RedisServer, keys: Path, **more: Any) -> AsyncIterator[list[App]]:
    """Two, each with connections of its own to the store and to the server."""
    servers = {"srv": entry(auth, **more)}
    made = [App(servers, store=RedisStore(redis.url), ring=given_ring(keys)) for _ in range(2)]
    with anyio.fail_after(SAFETY):
        async with made[0], made[1]:
            yield made


async def log_in_for(redis: RedisServer, keys: Path, auth: AuthServer, **options: Any) -> int:
    """`mcpconn login srv --store URL --sealing-keys FILE`."""
    config = ServerConfig.parse("srv", entry(auth))
    given: Any = {"timeout": 20.0, "browser": True, "forget": False, **options}
    return await log_in("srv", config, store=GatewayStore(redis.url, keys), **given)


async def add(app: App) -> str:
    return text_of(await app.manager.call_tool("srv", "add", {"a": 1, "b": 2}))


async def settled(app: App, state: State) -> None:
    while app.manager["srv"].state is not state:
        await anyio.lowlevel.checkpoint()


async def test_one_login_serves_all_replicas_and_is_refreshed_once(redis, auth, keys, tmp_path, monkeypatch):
    opened(monkeypatch)
    async with replicas(auth, redis, keys) as made:
        for each in made:
            await settled(each, State.FAILED)
            with pytest.raises(CallFailed, match="mcpconn login NAME --store URL"):
                await add(each)
        assert await log_in_for(redis, keys, auth) == 0
        # Nobody tells the replicas: they see it.
        for each in made:
            await settled(each, State.READY)
            assert await add(each) == "3"
        assert auth.counts["authorization_code"] == 1
        auth.revoke_access()
        async with anyio.create_task_group() as group:
            for each in made * TOGETHER:
                group.start_soon(add, each)
        assert (auth.counts["refresh_token"], auth.counts["reused"]) == (1, 0)
    assert not list((tmp_path / "state").rglob("*.json")), "no token is in a file of this machine"
    stored = b"".join(path.read_bytes() for path in redis.folder.rglob("*") if path.is_file())
    assert not [token for token in auth.valid if token.encode() in stored]


async def test_no_replica_uses_a_forgotten_login(redis, auth, keys, monkeypatch):
    opened(monkeypatch)
    assert await log_in_for(redis, keys, auth) == 0
    assert await log_in_for(redis, keys, auth, forget=True) == 0
    async with replicas(auth, redis, keys) as made:
        await settled(made[0], State.FAILED)
    assert auth.counts["authorization_code"] == 1


async def test_a_login_needs_the_gateways_keys_and_store(redis, auth, keys, tmp_path, monkeypatch):
    browser = opened(monkeypatch)
    with pytest.raises(CliError, match="there are no sealing keys"):
        await log_in_for(redis, tmp_path / "none", auth)
    redis.kill()
    with pytest.raises(CliError, match="does not answer"):
        await log_in_for(redis, keys, auth)
    assert not browser.addresses
