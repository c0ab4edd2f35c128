"""What a server offers, kept across its sessions."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import anyio
from mcp_types import ListToolsResult, Tool

from mcpconn.runtime.session import Session

PAGES = 100
"""Pages read of one listing. A server whose paging never ends must not hang its client."""


class Catalog:
    """The tools of one server, as its latest session listed them."""

    def __init__(self, list_tools: Callable[[str | None], Awaitable[ListToolsResult]]) -> None:
        """
        Args:
            list_tools: Fetches the page of tools behind a cursor.
        """
        self._list_tools = list_tools
        self._tools: dict[str, Tool] = {}
        self._refreshing: anyio.Event | None = None

    @property
    def tools(self) -> Mapping[str, Tool]:
        """By name. While the connection is away, what the last session listed."""
        return self._tools

    async def refresh(self, session: Session) -> None:
        """List everything anew, beside the first calls of a session."""
        if self._refreshing is not None:
            await self._refreshing.wait()
            return
        self._refreshing = anyio.Event()
        try:
            assert session.link is not None
            client: Any = session.link.client
            if client.server_capabilities.tools is not None:
                self._tools = await self._all_tools()
        except Exception:
            # The connection has classified and reported it already; what was known stays known.
            return
        finally:
            done, self._refreshing = self._refreshing, None
            done.set()

    async def _all_tools(self) -> dict[str, Tool]:
        found: dict[str, Tool] = {}
        cursor: str | None = None
        for _ in range(PAGES):
            page = await self._list_tools(cursor)
            found.update((tool.name, tool) for tool in page.tools)
            cursor = page.next_cursor
            if cursor is None:
                break
        return found

    async def safe(self, name: str) -> bool:
        """Whether the tool's annotations say that running it twice does no harm.

        They are hints (specification, tool annotations); a server that lies about them harms itself.
        """
        if name not in self._tools and self._refreshing is not None:
            await self._refreshing.wait()
        tool = self._tools.get(name)
        if tool is None or tool.annotations is None:
            return False
        return bool(tool.annotations.read_only_hint or tool.annotations.idempotent_hint)
