"""Replicas whose Redis fails for longer than a lease, or comes back as another one: each client is answered again."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import anyio
import pytest
from mcp import MCPError

from mcpconn.gateway.store import RedisStore
from mcpconn.keys import OUTCOME
from mcpconn.seal import KeyRing
from tests.fleet.conftest import Replicas, replica
from tests.fleet.stateful import Stateful
from tests.fleet.test_forwarding import MODES
from tests.gateway.questions import serving
from tests.redis_server import RedisServer, needs_redis
from tests.support import text_of

pytestmark = [pytest.mark.anyio, needs_redis]

OUTAGE = 5.0
"""Seconds; a lease ends after 3."""
CONVERGED = 25.0
"""Seconds after which all is well again: leases are renewed each second, and an owner is looked for during 8."""
STREAK = 6
"""Answers in a row, from all replicas in turn, in one session with the server."""


@asynccontextmanager
async def sharing(redis: RedisServer) -> AsyncIterator[tuple[Replicas, Stateful]]:
    """Two replicas, each with a connection of its own to Redis, before a legacy server that keeps state."""
    stateful, ring = Stateful(), KeyRing.ephemeral()
    async with serving(stateful) as url, anyio.create_task_group() as group, AsyncExitStack() as stack:
        servers = {"s": {"url": url, "mode": "legacy"}}
        made = [await stack.enter_async_context(replica(servers, RedisStore(redis.url), ring, group)) for _ in range(2)]
        yield Replicas(made), stateful


class Calls:
    """The calls of one client, and what it was told of each."""

    def __init__(self, client: Any, name: str) -> None:
        self._client, self._name = client, name
        self.told: list[str] = []
        self.sessions: list[str] = []

    async def one(self) -> bool:
        """Make one. Whether it was answered."""
        session = ""
        try:
            result = await self._client.call_tool("s__remember", {"id": f"{self._name} {len(self.told)}"})
        except MCPError as error:
            data = error.error.data
            told = str(data.get(OUTCOME)) if isinstance(data, dict) else f"{error.error.code} {error.error.message}"
        else:
            told = str((result.meta or {}).get(OUTCOME)) if result.is_error else "answered"
            session = "" if result.is_error else json.loads(text_of(result))["session"]
        self.told.append(told)
        self.sessions.append(session)
        return told == "answered"

    async def until_well(self) -> None:
        """Return when the last ones were answered in one session."""
        with anyio.fail_after(CONVERGED):
            while len(set(self.sessions[-STREAK:])) > 1 or "" in self.sessions[-STREAK:]:
                await self.one()
                await anyio.sleep(0.05)

    def check(self, ran: Counter[str]) -> None:
        """Nothing was said that is not so."""
        for number, told in enumerate(self.told):
            times = ran[f"{self._name} {number}"]
            assert told in ("answered", "not_run", "unknown"), told
            assert times <= 1
            assert told != "answered" or times == 1
            assert told != "not_run" or not times


def is_down(redis: RedisServer) -> Callable[[], None]:
    redis.kill()
    return lambda: void(redis.start())


def void(_: object) -> None: ...


def is_emptied(redis: RedisServer) -> Callable[[], None]:
    redis.kill()
    shutil.rmtree(redis.folder / "appendonlydir")
    return lambda: void(redis.start())


def is_flushed(redis: RedisServer) -> Callable[[], None]:
    redis.ask("FLUSHALL")
    return lambda: None


def has_another_password(redis: RedisServer) -> Callable[[], None]:
    redis.ask("CONFIG", "SET", "requirepass", "another")
    redis.ask("-a", "another", "CLIENT", "KILL", "TYPE", "normal")
    return lambda: void(redis.ask("-a", "another", "CONFIG", "SET", "requirepass", ""))


def is_full(redis: RedisServer) -> Callable[[], None]:
    redis.ask("CONFIG", "SET", "maxmemory", "1")
    return lambda: void(redis.ask("CONFIG", "SET", "maxmemory", "0"))


FAULTS = {
    "down": is_down,
    "emptied": is_emptied,
    "flushed": is_flushed,
    "password": has_another_password,
    "full": is_full,
}


@MODES
@pytest.mark.parametrize("fault", FAULTS)
async def test_clients_are_answered_again_after_an_outage_of_redis(fault, mode, redis):
    async with sharing(redis) as (made, stateful), made.client(mode=mode) as client:
        calls = Calls(client, "a")
        for _ in range(STREAK):
            assert await calls.one()
        end = FAULTS[fault](redis)
        # This one has no session yet.
        async with made.client(mode=mode) as other:
            late = Calls(other, "b")
            over = anyio.current_time() + OUTAGE
            while anyio.current_time() < over:
                await calls.one()
                await late.one()
                await anyio.sleep(0.1)
            end()
            await calls.until_well()
            await late.until_well()
    calls.check(stateful.ran)
    late.check(stateful.ran)
