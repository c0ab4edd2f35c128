"""What the present session knows of its server: `mcp.Client`'s properties, as they are now."""

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
    """The server at the other end of the present session. It may be another one after the next reconnect."""

    name: str
    """What logs and errors call the connection."""
    _home: Home | None
    """The event loop it runs in; None before it was started."""
    _lifecycle: Lifecycle

    def present(self) -> Session | None:
        """The session that calls are issued on now."""
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
            # The events of one loop, waited for in another, wake nobody.
            raise NotRunning(f"{self.name}: the connection cannot be used here: {where}")

    def _not_entered(self) -> NotRunning:
        # In parentheses the SDK's words, which people look for.
        return NotRunning(
            f"{self.name}: enter the connection first: async with Connection(...) as connection "
            f"(Client must be used within an async context manager)"
        )

    @property
    def session(self) -> ClientSession:
        """The present session's `ClientSession`, for what has no method here. It is gone with its epoch.

        Raises:
            NotReady: there is none.
        """
        return self._client.session

    @property
    def protocol_version(self) -> str:
        """The protocol version of the present session."""
        return self._client.protocol_version

    @property
    def server_info(self) -> types.Implementation | None:
        """What the server calls itself."""
        return self._client.server_info

    @property
    def server_capabilities(self) -> types.ServerCapabilities:
        """What the server can do."""
        return self._client.server_capabilities

    @property
    def instructions(self) -> str | None:
        """How the server wants to be used."""
        return self._client.instructions
