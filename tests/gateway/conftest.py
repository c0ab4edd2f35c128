"""A gateway on a real socket before scripted servers, and a bare client of either era in front."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import pytest
import uvicorn
from anyio.abc import TaskGroup, TaskStatus

from mcpconn import Manager, Policy
from mcpconn.gateway import App, MemoryStore, Settings
from mcpconn.gateway.access.keys import KeyFile
from mcpconn.gateway.serve import KEEP_ALIVE
from mcpconn.seal import KeyRing
from mcpconn.testing import HttpServer, Script

SAFETY = 60.0


@pytest.fixture
def anyio_backend():
    """uvicorn serves on asyncio alone."""
    return "asyncio"


@pytest.fixture
def keys(tmp_path: Path) -> KeyFile:
    """A file of clients' keys, without any."""
    return KeyFile(tmp_path / "clients.json")


@asynccontextmanager
async def served(app: Any, accepting: socket.socket, **options: Any) -> AsyncIterator[None]:
    """An application, served on a socket for as long as the block runs; its streams are cut at the end."""
    serving = uvicorn.Server(uvicorn.Config(app, log_config=None, lifespan="off", **options))
    with accepting:
        async with anyio.create_task_group() as group:
            group.start_soon(serving._serve, [accepting])
            while not serving.started:
                await anyio.lowlevel.checkpoint()
            try:
                yield
            finally:
                serving.should_exit = serving.force_exit = True


class Gateway:
    """A gateway that can be replaced by another with the same key, store and port, as after SIGKILL."""

    def __init__(self, servers: dict[str, Any], settings: Settings | None, group: TaskGroup, **options: Any) -> None:
        self._servers, self._settings, self._group, self._options = servers, settings, group, options
        self._ring: KeyRing = options.pop("ring", None) or KeyRing.ephemeral()
        self.store = options.pop("store", None) or MemoryStore()
        self._policy: Policy | None = options.pop("policy", None)
        self._socket = socket.create_server(("127.0.0.1", 0))
        self._stop, self._stopped = anyio.Event(), anyio.Event()
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}/mcp"
        self.app: App

    async def serve(self, *, task_status: TaskStatus[None]) -> None:
        """Serve in a task of its own, as a process would."""
        self._stop, self._stopped = anyio.Event(), anyio.Event()
        async with Manager(self._servers, policy=self._policy) as manager:
            self.app = App(manager, settings=self._settings, store=self.store, ring=self._ring, **self._options)
            # Idle sockets are kept as `mcpconn serve` keeps them: a bare client does not retry on one that was closed.
            config = uvicorn.Config(
                self.app, log_config=None, lifespan="off", timeout_graceful_shutdown=1, timeout_keep_alive=KEEP_ALIVE
            )
            server = uvicorn.Server(config)
            async with self.app, anyio.create_task_group() as group:
                group.start_soon(server._serve, [self._socket.dup()])
                while not server.started:
                    await anyio.lowlevel.checkpoint()
                task_status.started()
                await self._stop.wait()
                self.app.drain()
                server.should_exit = True
        self._stopped.set()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Gateway]:
        """Serve for as long as the block runs, and give up the port."""
        await self._group.start(self.serve)
        try:
            yield self
        finally:
            await self.aclose()
            self.close()

    async def replace(self) -> None:
        """Another process takes over; it knows the store and the key, and nothing else."""
        await self.aclose()
        await self._group.start(self.serve)

    def close(self) -> None:
        """Give up the port."""
        self._socket.close()

    async def aclose(self) -> None:
        self._stop.set()
        await self._stopped.wait()


@asynccontextmanager
async def gateway(
    *scripts: Script,
    settings: Settings | None = None,
    more: dict[str, Any] | None = None,
    safety: float = SAFETY,
    **options: Any,
) -> AsyncIterator[Gateway]:
    """A gateway before scripted servers called a, b, ..."""
    with anyio.fail_after(safety):
        async with AsyncExitStack() as stack:
            servers = {}
            for name, script in zip("abcdef", scripts, strict=False):
                server = await stack.enter_async_context(HttpServer(script))
                servers[name] = {"url": server.url}
            group = await stack.enter_async_context(anyio.create_task_group())
            async with Gateway({**servers, **(more or {})}, settings, group, **options).running() as made:
                yield made
