"""The level from which on a legacy server sends log messages on a connection."""

from __future__ import annotations

from weakref import WeakKeyDictionary

from mcp import MCPError
from mcp_types.version import MODERN_PROTOCOL_VERSIONS

from mcpconn.connection import Connection
from mcpconn.errors import CallFailed

PATIENCE = 5.0
"""Seconds that a call waits for the log level to be set."""
LEVELS = ("debug", "info", "notice", "warning", "error", "critical", "alert", "emergency")
"""Of log messages, the least severe first (RFC 5424)."""


class LogLevels:
    """The levels that connections were set to."""

    def __init__(self) -> None:
        self._set: WeakKeyDictionary[Connection, str] = WeakKeyDictionary()

    async def set(self, connection: Connection, level: str, *, owned: bool) -> None:
        """Have a legacy server send log messages from this level on, if it sends any.

        A connection that several clients share is set to the least level that one of them asked for; `Relay` holds back
        from each what is below its own.

        Args:
            connection: A client's.
            level: One of `LEVELS`.
            owned: No other client uses the connection.
        """
        before = self._set.get(connection)
        if before is not None and (before == level or (not owned and LEVELS.index(before) <= LEVELS.index(level))):
            return
        self._set[connection] = level
        try:
            await connection.wait_ready(PATIENCE)
            modern = connection.protocol_version in MODERN_PROTOCOL_VERSIONS
            if connection.server_capabilities.logging is not None and not modern:
                await connection.set_level(level, timeout=PATIENCE)  # type: ignore[arg-type]
        except CallFailed:
            # It is away: it is told at the next call.
            self._set.pop(connection, None)
        except MCPError:
            # A server that refuses its own capability sends what it likes; `Relay` holds back what is below the level.
            return
