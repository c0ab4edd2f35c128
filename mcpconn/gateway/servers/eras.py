"""Which era a server's session speaks."""

from __future__ import annotations

from mcp_types.version import MODERN_PROTOCOL_VERSIONS

from mcpconn.connection import Connection
from mcpconn.errors import NotReady


def speaks_modern(connection: Connection) -> bool:
    """Whether its present session speaks the modern protocol. Without a session it is not known, which means no."""
    try:
        return connection.protocol_version in MODERN_PROTOCOL_VERSIONS
    except NotReady:
        return False
