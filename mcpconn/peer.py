"""What the present session knows of its server: `mcp.Client`'s properties, as they are now."""

from __future__ import annotations

from abc import ABC, abstractmethod

import mcp_types as types
from mcp import Client
from mcp.client import ClientSession


class Peer(ABC):
    """The server at the other end of the present session. It may be another one after the next reconnect."""

    @property
    @abstractmethod
    def _client(self) -> Client:
        """The present session's client."""

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
