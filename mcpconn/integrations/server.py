"""A low-level MCP server in this process that forwards everything to connections of the host: `as_server`.

It uses the gateway's forwarding. The difference is that the host owns the connections, so a call uses the host's
session, and no second copy of a stdio server is started.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, cast

import anyio
import mcp_types as types
from mcp.server.context import CallNext, HandlerResult, ServerRequestContext
from mcp.server.lowlevel import Server

from mcpconn.connection import Connection
from mcpconn.core.states import State
from mcpconn.errors import UnknownServer
from mcpconn.gateway.app import App
from mcpconn.gateway.config import Settings
from mcpconn.gateway.endpoint import ViewServer
from mcpconn.gateway.servers.upstreams import MARK
from mcpconn.gateway.views import View
from mcpconn.manager import Manager
from mcpconn.version import __version__

FIRST_LISTING = 10.0
"""Seconds that a client's handshake waits for servers that were never listed. Frameworks list tools once, at the start:
a child that needs a few seconds to start would permanently have no tools. The handshake does not wait for a server that
has failed."""


class _Hosts:
    """The host's connections in place of a gateway's manager: none is opened or closed here."""

    def __init__(self, target: Manager | Connection) -> None:
        self._all = {target.name: target} if isinstance(target, Connection) else target

    def __getitem__(self, name: str) -> Connection:
        return self._all[name]

    def __contains__(self, name: object) -> bool:
        return name in self._all

    def __iter__(self) -> Iterator[str]:
        return iter(self._all)

    def __len__(self) -> int:
        return len(self._all)

    def values(self) -> list[Connection]:
        """Each connection."""
        return [self._all[name] for name in self._all]

    def get_or_add(self, name: str, entry: Any, *, ttl: float | None = None) -> Connection:
        """The host's own connection; the part of the name that identifies the gateway's client is ignored."""
        del entry, ttl
        server = name.partition(MARK)[0]
        if server not in self._all:
            raise UnknownServer(server, tuple(self._all))
        return self._all[server]

    def remove(self, name: str) -> None:
        """The host closes its connections itself."""


def as_server(target: Manager | Connection, *, name: str = "mcpconn", prefix: bool | None = None) -> Server[Any]:
    """An MCP server in this process, in front of the servers of `target`.

        async with mcp.Client(mcpconn.as_server(manager)) as client:
            await client.call_tool("shop__add", {"a": 1, "b": 2})

    A failed tool call is a result with `is_error`, whose text a model can act on and whose `_meta` says
    `mcpconn/outcome`. Questions from a server (sampling, elicitation, roots) go to the callbacks of `target`, because
    its sessions belong to the host and were opened before any client connected.

    Args:
        target: A manager or a connection that runs for at least as long as the server is used.
        name: The server's name in the handshake.
        prefix: Whether tools are called `SERVER__TOOL`. None: yes for a manager, no for a connection. False is allowed
            only for one server.

    Raises:
        ValueError: `prefix` is False, and there is not exactly one server.
    """
    hosts = cast(Manager, _Hosts(target))
    names = tuple(server for server in hosts if MARK not in server)
    if prefix is None:
        prefix = isinstance(target, Manager)
    view = View(prefix=prefix)

    def gateway() -> App:
        app = App(
            Manager({}),
            settings=Settings(views={"": view}, scopes=dict.fromkeys(hosts, "shared"), name=name),
            owns_manager=False,
        )
        app.manager = hosts
        return app

    @asynccontextmanager
    async def lifespan(_: Server[Any]) -> AsyncIterator[App]:
        # One for each client, because its subscriptions and log level are its own, and end with it.
        await _listed(list(hosts.values()))
        async with gateway() as app:
            yield app

    if not prefix and len(names) != 1:
        raise ValueError("prefix=False needs exactly one server")
    server = ViewServer(
        name,
        __version__,
        instructions=partial(_instructions, list(hosts.values())),
        # Not advertised, because it ends with this process, as its clients do.
        ledger=lambda: None,
        lifespan=lifespan,
        on_subscriptions_listen=_listen,
    )
    server.middleware[:] = [_forward]
    return server


def _instructions(connections: list[Connection]) -> str | None:
    """The instructions of the connected servers; if there are several, under the name of each."""
    said = {each.name: each.instructions for each in connections if each.state is State.READY}
    texts = {name: text for name, text in said.items() if text}
    if len(connections) == 1:
        return next(iter(texts.values()), None)
    return "\n\n".join(f"# {name}\n\n{text}" for name, text in texts.items()) or None


async def _listed(connections: list[Connection]) -> None:
    async def ensure(connection: Connection) -> None:
        await connection.settled()
        await connection.catalog.ensure()

    with anyio.move_on_after(FIRST_LISTING):
        async with anyio.create_task_group() as group:
            for connection in connections:
                if not connection.catalog.listed and not connection.config.lazy:
                    group.start_soon(ensure, connection)


async def _forward(ctx: ServerRequestContext[Any, Any], call_next: CallNext) -> HandlerResult:
    """Pass a request through the gateway's middleware."""
    app: App = ctx.lifespan_context
    for middleware in reversed(app.endpoint("").server.middleware):
        call_next = partial(_through, middleware, call_next)
    return await call_next(ctx)


async def _through(middleware: Any, call_next: CallNext, ctx: ServerRequestContext[Any, Any]) -> HandlerResult:
    answer: HandlerResult = await middleware(ctx, call_next)
    return answer


async def _listen(
    ctx: ServerRequestContext[Any, Any], params: types.SubscriptionsListenRequestParams
) -> types.SubscriptionsListenResult:
    app: App = ctx.lifespan_context
    return await app.endpoint("").listen(ctx, params)
