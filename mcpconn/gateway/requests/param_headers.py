"""Arguments that a tool wants as HTTP headers, too (2026-07-28, `x-mcp-header` in its input schema).

The SDK's client sends them for the tools that its own session has listed. A client's connection lists nothing: the
server's own connection does it for all. So the tools that want such headers are handed on before a call of one.
"""

from __future__ import annotations

from collections.abc import Mapping
from weakref import WeakKeyDictionary

import mcp_types as types
from mcp.shared.inbound import x_mcp_header_map

from mcpconn.connection import Connection


class ParamHeaders:
    """What the sessions of clients' connections were told."""

    def __init__(self) -> None:
        # By connection: the epoch of the session that was told, and the tools. A listing makes new objects, so
        # identity says whether a tool is known.
        self._told: WeakKeyDictionary[Connection, tuple[int, dict[str, types.Tool]]] = WeakKeyDictionary()
        self._plain: dict[tuple[str, str], types.Tool] = {}

    def tell(self, connection: Connection, server: str, tools: Mapping[str, types.Tool], name: str) -> None:
        """Tell a connection's present session what a tool wants, if it wants anything.

        Args:
            connection: Where the tool is called.
            server: The server's name.
            tools: The server's, as they were listed last.
            name: The tool.
        """
        tool = tools.get(name)
        if tool is None or self._plain.get((server, name)) is tool:
            return
        if not x_mcp_header_map(tool.input_schema):
            self._plain[server, name] = tool
            return
        session = connection.present()
        if session is None or session.link is None:
            return
        epoch, told = self._told.get(connection, (0, {}))
        if epoch == session.epoch and told.get(name) is tool:
            return
        # All at once: a session forgets what it was told before.
        wanting = {each: listed for each, listed in tools.items() if x_mcp_header_map(listed.input_schema)}
        session.link.restore_tools(tuple(wanting.values()))
        self._told[connection] = session.epoch, wanting
