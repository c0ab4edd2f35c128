"""The lists of a view: the tools, prompts and resources of its servers, under public names.

For an unreachable server, the last known entries are listed, also those that another process has seen. A server of
which nothing is known is omitted. The result's `_meta` says which and why, because an empty or partial list must not
look like a complete one. Lists never open a connection per client.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any
from weakref import WeakKeyDictionary

import anyio
from mcp import MCPError
from mcp.shared.inbound import x_mcp_header_map
from pydantic import BaseModel

from mcpconn.connection import Connection
from mcpconn.core.states import State
from mcpconn.gateway.clients.downstream import Downstream
from mcpconn.gateway.rewrite import Json, from_server
from mcpconn.gateway.servers.listings import Listings
from mcpconn.gateway.upstream_auth.offering import LOGIN_TOOL, login_tool
from mcpconn.gateway.upstream_auth.users import NoCredentials, lacks_credentials
from mcpconn.names import Table
from mcpconn.seal import NotSealedHere, Sealer

PAGE = 200
"""Entries of one page."""
FIRST_LOOK = 1.0
"""Seconds that a list waits for unknown entries; one wait for all servers."""
SERVERS_META = "mcpconn/servers"
"""Key in a list's `_meta` that names the servers whose entries are missing or may be out of date."""

KINDS = {
    "tools/list": ("tools", "tools"),
    "prompts/list": ("prompts", "prompts"),
    "resources/list": ("resources", "resources"),
    "resources/templates/list": ("templates", "resourceTemplates"),
}
"""By method: the catalogue's name for the kind, and the result's."""


class BadCursor(Exception):
    """A cursor that this gateway did not hand out to this client."""


async def _nothing(client: Downstream) -> None:
    """All clients see the same."""


class Lists:
    """The lists of one view."""

    def __init__(
        self,
        servers: Callable[[Downstream | None], Mapping[str, Connection | NoCredentials]],
        table: Table,
        *,
        sealer: Sealer,
        allowed: Callable[[str, str], bool] = lambda server, name: True,
        trusted: Callable[[str], bool] = lambda server: False,
        look: Callable[[Downstream], Awaitable[None]] = _nothing,
        logs_in: Callable[[str], bool] = lambda server: False,
        listings: Listings | None = None,
        page: int = PAGE,
    ) -> None:
        """
        Args:
            servers: The connections whose lists a client sees, by server name, in the order of the configuration; for
                None: those that all clients see.
            table: Public names.
            sealer: Seals cursors.
            allowed: Whether the view shows a tool of a server.
            trusted: Whether a server is a gateway of our own.
            look: Finds out which servers list something else for clients of this kind.
            logs_in: Whether a server's users log in there themselves.
            listings: The lists of servers that were never reached here.
            page: Entries of one page.
        """
        self._servers = servers
        self._table = table
        self._sealer = sealer
        self._allowed = allowed
        self._trusted = trusted
        self._look = look
        self._logs_in = logs_in
        self._listings = listings
        self._page = page
        # What was made from a listing is kept until the next: 300 tools need not be rendered for each client.
        self._rendered: WeakKeyDictionary[Connection, dict[str, tuple[Mapping[str, Any], list[Json]]]]
        self._rendered = WeakKeyDictionary()
        self._schemas: dict[str, Mapping[str, Any]] = {}
        # The time until which a list may wait for its first connection.
        self._patience: WeakKeyDictionary[Connection, float] = WeakKeyDictionary()

    def _keep_schema(self, public: str, schema: Any) -> None:
        # The SDK's server walks a schema at each call of its tool, and few name a header.
        if isinstance(schema, Mapping) and x_mcp_header_map(schema):
            self._schemas[public] = schema
        else:
            self._schemas.pop(public, None)

    def schema(self, public: str) -> Mapping[str, Any] | None:
        """A listed tool's input schema, by public name, if it names headers: the SDK's server compares them."""
        return self._schemas.get(public)

    async def page(self, method: str, cursor: str | None, client: Downstream) -> Json:
        """One page of a list, as a result of `method`.

        Raises:
            BadCursor: `cursor` was not made here for this client.
        """
        kind, member = KINDS[method]
        after = self._opened(cursor, method, client) if cursor is not None else 0
        await self.first_look((kind,), client=client)
        await self._look(client)
        servers = self._servers(client)
        if self._listings is not None:
            await self._listings.recall(each for each in servers.values() if isinstance(each, Connection))
        entries: list[Json] = []
        missing: Json = {}
        for server, connection in servers.items():
            if not client.rights.server(server):
                continue
            if isinstance(connection, NoCredentials):
                missing[server] = {
                    "state": State.FAILED.value,
                    "reason": str(connection),
                    "note": "its entries are missing",
                }
                continue
            rendered = self._entries(server, connection, kind)
            entries += self._usable(rendered, client) if kind == "tools" else rendered
            if kind == "tools" and self.offers_login(server, connection):
                entries.append(login_tool(server, self._table.name(server, LOGIN_TOOL)))
            if (state := _condition(connection, kind, known=bool(self._known(connection, kind)))) is not None:
                missing[server] = state
        shown = entries[after : after + self._page]
        result: Json = {member: shown}
        if after + self._page < len(entries):
            result["nextCursor"] = self._sealed(after + self._page, method, client)
        if missing:
            result["_meta"] = {SERVERS_META: missing}
        return result

    def offers_login(self, server: str, connection: Connection) -> bool:
        """Whether a server lists a tool to log in, because its user has not, and its own tools were never seen."""
        return self._logs_in(server) and connection.catalog.epoch == 0 and lacks_credentials(connection)

    async def first_look(
        self, kinds: Iterable[str] = (), *, server: str | None = None, client: Downstream | None = None
    ) -> None:
        """Wait a moment for what is not known yet.

        Only one list waits for a server that was never connected, so that a server that hangs does not delay every
        list. A list of a connected server that its present session has not read yet is waited for each time.

        Args:
            kinds: The catalogue's names of the lists that are needed; none: that the servers are connected is enough.
            server: The only server that is needed.
            client: Whose lists they are; None: only servers that all clients see are waited for.
        """
        now = anyio.current_time()
        unknown = []
        for name, connection in self._servers(client).items():
            if server not in (None, name) or isinstance(connection, NoCredentials):
                continue
            if connection.state is State.READY:
                if not connection.catalog.listed.issuperset(kinds):
                    unknown.append(connection)
            elif (
                connection.catalog.epoch == 0
                and connection.state is not State.FAILED
                and now < self._patience.setdefault(connection, now + FIRST_LOOK)
            ):
                unknown.append(connection)
        if not unknown:
            return
        with anyio.move_on_after(FIRST_LOOK):
            async with anyio.create_task_group() as group:
                for connection in unknown:
                    group.start_soon(_known, connection, tuple(kinds))

    def _known(self, connection: Connection, kind: str) -> Mapping[str, BaseModel]:
        if self._listings is not None:
            return self._listings.entries(connection, kind)
        known: Mapping[str, BaseModel] = getattr(connection.catalog, kind)
        return known

    def _entries(self, server: str, connection: Connection, kind: str) -> list[Json]:
        known = self._known(connection, kind)
        kept = self._rendered.setdefault(connection, {})
        made_from, rendered = kept.get(kind, (None, []))
        if made_from is not None and made_from == known:
            return rendered
        rendered = self._render(server, kind, known)
        kept[kind] = (dict(known), rendered)
        return rendered

    def _usable(self, tools: list[Json], client: Downstream) -> list[Json]:
        """The tools that a client may and can call."""
        if client.sid is None and any("execution" in tool for tool in tools):
            # Tasks of the older era: a modern client cannot ask about them.
            tools = [tool for tool in tools if (tool.get("execution") or {}).get("taskSupport") != "required"]
            tools = [{key: value for key, value in tool.items() if key != "execution"} for tool in tools]
        if client.rights.every_tool:
            return tools
        named = ((tool, self._table.resolve(tool["name"])) for tool in tools)
        return [tool for tool, found in named if found is not None and client.rights.tool(*found)]

    def _render(self, server: str, kind: str, known: Mapping[str, BaseModel]) -> list[Json]:
        if kind in ("tools", "prompts"):
            names = self._table.publish(server, (name for name in known if self._allowed(server, name)))
        rendered: list[Json] = []
        for key, entry in known.items():
            shown = entry.model_dump(by_alias=True, mode="json", exclude_none=True)
            shown = from_server(shown, trusted=self._trusted(server))
            if kind in ("tools", "prompts"):
                if key not in names:
                    continue
                shown["name"] = names[key]
                # A title is for people; without one they would read the public name.
                shown.setdefault("title", (shown.get("annotations") or {}).get("title") or key)
                if kind == "tools":
                    self._keep_schema(names[key], shown.get("inputSchema"))
            elif kind == "resources":
                shown["uri"] = self._table.uri(server, key)
            else:
                shown["uriTemplate"] = self._table.uri(server, key)
            rendered.append(shown)
        return rendered

    def _sealed(self, position: int, method: str, client: Downstream) -> str:
        return self._sealer.seal(json.dumps(position).encode(), f"{method}\n{client.principal.digest}")

    def _opened(self, cursor: str, method: str, client: Downstream) -> int:
        try:
            return int(json.loads(self._sealer.open(cursor, f"{method}\n{client.principal.digest}")))
        except NotSealedHere:
            raise BadCursor("the cursor does not belong to this list") from None


async def _known(connection: Connection, kinds: tuple[str, ...]) -> None:
    try:
        await connection.wait_ready()
        if kinds:
            await connection.catalog.ensure(kinds)
    except MCPError:
        # It is away, or cannot list; the list's `_meta` says so.
        return


def _condition(connection: Connection, kind: str, *, known: bool) -> Json | None:
    """What is wrong with a server's entries of one kind; None if nothing is."""
    if kind in connection.catalog.listed:
        return None
    if connection.state is State.READY:
        what = "its last known entries are listed" if known else "its entries are missing"
        return {"state": connection.state.value, "reason": f"its {kind} could not be listed", "note": what}
    failure = connection.last_failure
    listed = "its last known entries are listed" if known or connection.catalog.epoch else "its entries are missing"
    reason = failure.summary if failure is not None else f"it is {connection.state}"
    return {"state": connection.state.value, "reason": reason, "note": listed}
