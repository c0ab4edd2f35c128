"""Which server a request is for, as far as its client may know of it."""

from __future__ import annotations

from mcp import MCPError
from mcp_types import INVALID_PARAMS

from mcpconn.gateway.clients.downstream import Call
from mcpconn.gateway.rewrite import Json
from mcpconn.gateway.views import View
from mcpconn.names import Table

QUOTED = 1000
"""Characters of an unknown name or URI that are quoted: an answer as long as a request of 4 MiB could not be read."""


class Located:
    """Public names and URIs of one view. For a client, anything that it may not use does not exist."""

    def __init__(self, view: View, table: Table) -> None:
        self._view = view
        self._table = table

    def named(self, call: Call, params: Json, what: str) -> tuple[str, str]:
        """The server and the own name of a tool or a prompt.

        Args:
            call: Whose request it is.
            params: Has the public name under `name`.
            what: `tool` or `prompt`.

        Raises:
            MCPError: there is none of this name.
        """
        name = str(params.get("name", ""))
        found = self._table.resolve(name)
        if found is not None and what == "tool":
            seen = self._view.shows(*found) and call.client.rights.tool(*found)
        else:
            seen = found is not None and call.client.rights.server(found[0])
        if found is None or not seen:
            raise MCPError(INVALID_PARAMS, f"Unknown {what}: {name[:QUOTED]}")
        return found

    def resource(self, call: Call, uri: str) -> tuple[str, str]:
        """The server and the own URI of a resource.

        Raises:
            MCPError: no server has it.
        """
        found = self._table.resolve_uri(uri)
        if found is None or not call.client.rights.server(found[0]):
            said = uri[:QUOTED]
            raise MCPError(INVALID_PARAMS, f"Unknown resource: {said}", {"uri": said})
        return found
