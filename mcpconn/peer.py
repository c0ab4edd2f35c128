"""Information about the current session's server: the current values of the properties of `mcp.Client`."""

from __future__ import annotations

import mcp_types as types
from mcp import Client
from mcp.client import ClientSession

from mcpconn.core.states import State
from mcpconn.errors import NotRunning
from mcpconn.runtime import refusals
from mcpconn.runtime.lifecycle import Lifecycle
from mcpconn.runtime.native import Home
from mcpconn.runtime.session import Session


class Peer:
    """The server of the current session. After a reconnect it may be a different one."""

    name: str
    """The connection's name in logs and errors."""
    _home: Home | None
    """The event loop that the connection runs in; None before it was started."""
    _lifecycle: Lifecycle

    def present(self) -> Session | None:
        """The session on which calls are currently issued."""
        return self._lifecycle.session

    @property
    def _client(self) -> Client:
        if self._home is None:
            raise self._not_entered()
        if self._lifecycle.state is State.CLOSED:
            raise refusals.closed(self._lifecycle)
        session = self._lifecycle.session
        if session is None or session.link is None:
            raise refusals.not_ready(self._lifecycle)
        client: Client = session.link.client
        return client

    def _check_here(self) -> None:
        if self._home is None:
            raise self._not_entered()
        if (where := self._home.wrong_loop()) is not None:
            # Setting an event in one loop does not wake a task that waits for it in another.
            raise NotRunning(f"{self.name}: the connection cannot be used here: {where}")

    def _not_entered(self) -> NotRunning:
        # The parentheses contain the SDK's text, so that people can search for it.
        return NotRunning(
            f"{self.name}: enter the connection first: async with Connection(...) as connection "
            f"(Client must be used within an async context manager)"
        )

    @property
    def session(self) -> ClientSession:
        """The current session's `ClientSession`, for requests that have no method here. It ends with its epoch.

        Raises:
            NotReady: there is none.
        """
        return self._client.session

    @property
    def protocol_version(self) -> str:
        """The protocol version of the current session."""
        return self._client.protocol_version

    @property
    def server_info(self) -> types.Implementation | None:
        """The server's name and version."""
        return self._client.server_info

    @property
    def server_capabilities(self) -> types.ServerCapabilities:
        """The server's capabilities."""
        return self._client.server_capabilities

    @property
    def instructions(self) -> str | None:
        """The server's instructions."""
        return self._client.instructions
