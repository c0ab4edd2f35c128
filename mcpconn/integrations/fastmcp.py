"""fastmcp: a transport whose other end is a `Manager` or a `Connection`.

    async with fastmcp.Client(ManagedTransport(manager)) as client:
        await client.call_tool("shop__add", {"a": 1, "b": 2}, raise_on_error=False)

The client's session never ends because of a server. For a failed call, `fastmcp.Client.call_tool` raises a `ToolError`
with mcpconn's text; with `raise_on_error=False` it returns the result.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
from fastmcp.client.transports import ClientTransport, SessionKwargs
from fastmcp.client.transports.base import TransportOptions
from mcp import ClientSession
from mcp.shared.memory import create_client_server_memory_streams
from typing_extensions import Unpack

from mcpconn.connection import Connection
from mcpconn.integrations.server import as_server
from mcpconn.manager import Manager


class ManagedTransport(ClientTransport):
    """Connects a `fastmcp.Client` to the host's existing connections."""

    def __init__(self, target: Manager | Connection, *, name: str = "mcpconn", prefix: bool | None = None) -> None:
        """
        Args:
            target: Must run for as long as the client is used.
            name: The server's name in the handshake.
            prefix: Whether tools are called `SERVER__TOOL`, as for `as_server`.
        """
        self._server = as_server(target, name=name, prefix=prefix)

    @asynccontextmanager
    async def connect_session(
        self,
        *,
        transport_options: TransportOptions | None = None,
        **session: Unpack[SessionKwargs],  # type: ignore[misc]  # fastmcp is not installed where this is checked
    ) -> AsyncIterator[ClientSession]:
        """A session with the in-process server."""
        make = getattr(transport_options, "session_class", None) or ClientSession
        async with create_client_server_memory_streams() as (client, server), anyio.create_task_group() as group:
            group.start_soon(self._server.run, *server, self._server.create_initialization_options())
            try:
                async with make(*client, **session) as opened:
                    yield opened
            finally:
                group.cancel_scope.cancel()
