"""Replicas in one process, each with sockets of its own, before servers; and a client whose requests go round."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import httpx2
import pytest
from anyio.abc import TaskGroup
from mcp import Client
from mcp.client.streamable_http import streamable_http_client

from mcpconn import Policy
from mcpconn.gateway import MemoryStore, Settings
from mcpconn.gateway.fleet.config import FleetSettings
from mcpconn.gateway.store import Store
from mcpconn.seal import KeyRing
from tests.gateway.conftest import Gateway
from tests.redis_server import RedisServer, redis_server

SAFETY = 60.0


@pytest.fixture
def anyio_backend():
    """uvicorn serves on asyncio alone."""
    return "asyncio"


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    """A server of the test's own, which it may kill, pause and empty."""
    with redis_server(tmp_path / "redis") as server:
        yield server


class Replicas:
    """Gateways that are one."""

    def __init__(self, gateways: list[Gateway]) -> None:
        self.gateways = gateways

    def __getitem__(self, index: int) -> Gateway:
        return self.gateways[index]

    def owner_of(self, what: str = "session/") -> int:
        """The index of the replica that owns the one thing whose key begins with `what`."""
        (found,) = [
            index
            for index, each in enumerate(self.gateways)
            if each.app.fleet is not None and any(key.startswith(what) for key in each.app.fleet.ownership.keys)
        ]
        return found

    @asynccontextmanager
    async def client(
        self, *only: int, mode: Any = "legacy", balancer: Balancer | None = None, **options: Any
    ) -> AsyncIterator[Client]:
        """A bare client; each of its requests goes to the next replica.

        Args:
            only: The replicas that its requests go to.
            mode: The client's era.
            balancer: Distributes them; made here if there is none.
            options: Of `mcp.Client`.
        """
        chosen = list(only or range(len(self.gateways)))
        urls = [self.gateways[index].url for index in chosen]
        http = httpx2.AsyncClient(transport=balancer or Balancer(urls), timeout=httpx2.Timeout(10, read=60))
        async with http, Client(streamable_http_client(urls[0], http_client=http), mode=mode, **options) as client:
            yield client


class Balancer(httpx2.AsyncBaseTransport):
    """Sends each request to the next replica."""

    def __init__(self, urls: list[str]) -> None:
        self.urls = urls
        self._next = itertools.count()
        self._inner = httpx2.AsyncHTTPTransport()

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        url = httpx2.URL(self.urls[next(self._next) % len(self.urls)])
        request.url = request.url.copy_with(host=url.host, port=url.port)
        request.headers["host"] = f"{url.host}:{url.port}"
        return await self._inner.handle_async_request(request)

    async def aclose(self) -> None:
        await self._inner.aclose()


@asynccontextmanager
async def replicas(
    servers: dict[str, Any],
    *,
    count: int = 3,
    store: Store | None = None,
    settings: Settings | None = None,
    policy: Policy | None = None,
) -> AsyncIterator[Replicas]:
    """Replicas with one store and one ring."""
    ring, store = KeyRing.ephemeral(), store or MemoryStore()
    with anyio.fail_after(SAFETY):
        async with anyio.create_task_group() as group, AsyncExitStack() as stack:
            made = [
                await stack.enter_async_context(replica(servers, store, ring, group, settings, policy))
                for _ in range(count)
            ]
            yield Replicas(made)


@asynccontextmanager
async def replica(
    servers: dict[str, Any],
    store: Store,
    ring: KeyRing,
    group: TaskGroup,
    settings: Settings | None = None,
    policy: Policy | None = None,
) -> AsyncIterator[Gateway]:
    """One replica."""
    fleet = FleetSettings.parse("127.0.0.1:0")
    made = Gateway(servers, settings, group, store=store, ring=ring, fleet=fleet, policy=policy)
    async with made.running():
        yield made
