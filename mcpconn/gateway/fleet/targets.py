"""What a request is about: a server that keeps state or not, a tool that can be called twice or not."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress

from mcp.shared.inbound import decode_header_value
from starlette.types import Scope

from mcpconn.errors import McpConnError
from mcpconn.gateway.http.asgi import header
from mcpconn.gateway.servers.upstreams import Upstreams
from mcpconn.names import Table

NAMING = ("tools/call", "prompts/get", "resources/read")
"""Methods of the modern era whose header names what they are about."""


class Targets:
    """The servers and tools of all views."""

    def __init__(self, tables: Mapping[str, Table], upstreams: Upstreams) -> None:
        """
        Args:
            tables: Public names, by view.
            upstreams: The connections.
        """
        self._tables = tables
        self._upstreams = upstreams

    def keeps_state(self, view: str, scope: Scope) -> bool:
        """Whether a modern request goes to a server that keeps state for each session of this principal's."""
        table = self._tables.get(view)
        method, name = header(scope, b"mcp-method"), decode_header_value(header(scope, b"mcp-name"))
        if table is None or name is None or method not in NAMING:
            return False
        found = table.resolve_uri(name) if method == "resources/read" else table.resolve(name)
        return found is not None and self._upstreams.keeps_state(found[0])

    def _safe(self, view: str, name: str) -> bool:
        """Whether a tool can be called twice without harm, as far as its annotations say."""
        found = self._tables[view].resolve(name) if view in self._tables else None
        return found is not None and self._upstreams.harmless(*found)

    async def end(self, server: str, session: str, version: str) -> bool:
        """End an upstream session of another replica's. Whether it has ended."""
        try:
            return await self._upstreams.common(server).end_session(session, version)
        except McpConnError:
            # Its entry is gone from the file.
            return False

    def repeatable(self, view: str, body: bytes) -> bool:
        """Whether a request is harmless if it is made twice. One with a key is run once by the ledger."""
        with suppress(ValueError, RecursionError, AttributeError, TypeError):
            message = json.loads(body)
            if message.get("method") != "tools/call":
                return "method" in message and message.get("id") is not None
            return self._safe(view, str(message["params"]["name"]))
        return False
