"""fastmcp: a transport whose other end is a `Manager` or a `Connection`.

    async with fastmcp.Client(ManagedTransport(manager)) as client:
        await client.call_tool("shop__add", {"a": 1, "b": 2}, raise_on_error=False)

The client's session never ends because of a server. For a failed call, `fastmcp.Client.call_tool` raises a `ToolError`
with mcpconn's text; with `raise_on_error=False` it returns the result.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
from fastmcp.client.transports import ClientTransport
from mcp import ClientSession
from mcp.shared.memory import create_client_server_memory_streams

from mcpconn.connection import Connection
from mcpconn.integrations.server import as_server
from mcpconn.manager import Manager


class ManagedTransport(ClientTransport):
    """Connects a `fastmcp.Client` to the host's existing connections."""

    def __init__(self, target: Manager | Connection, **options: Any) -> None:
        """
        Args:
            target: Must run for as long as the client is used.
            options: Arguments of `as_server`.
        """
        self._server = as_server(target, **options)

    @asynccontextmanager
    async def connect_session(self, *, transport_options: Any = None, **session: Any) -> AsyncIterator[ClientSession]:
        """A session with the in-process server."""
        make = getattr(transport_options, "session_class", None) or ClientSession
        async with create_client_server_memory_streams() as (client, server), anyio.create_task_group() as group:
            group.start_soon(self._server.run, *server, self._server.create_initialization_options())
            try:
                async with make(*client, **session) as opened:
                    yield opened
            finally:
                group.cancel_scope.cancel()
