"""The catalogue of a connection of a `SyncManager`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial

import mcp_types as types

from mcpconn.catalog.catalog import Catalog
from mcpconn.catalog.entries import CatalogChange
from mcpconn.catalog.listing import KINDS
from mcpconn.sync.background import Background


class SyncCatalog:
    """`Catalog` for any thread. Its properties are read without waiting for the loop."""

    def __init__(self, catalog: Catalog, background: Background) -> None:
        """Created by `SyncConnection.catalog`."""
        self._catalog = catalog
        self._background = background

    @property
    def tools(self) -> Mapping[str, types.Tool]:
        """Tools by name."""
        return self._catalog.tools

    @property
    def resources(self) -> Mapping[str, types.Resource]:
        """Resources by URI."""
        return self._catalog.resources

    @property
    def templates(self) -> Mapping[str, types.ResourceTemplate]:
        """Resource templates by URI template."""
        return self._catalog.templates

    @property
    def prompts(self) -> Mapping[str, types.Prompt]:
        """Prompts by name."""
        return self._catalog.prompts

    @property
    def epoch(self) -> int:
        """As `Catalog.epoch`."""
        return self._catalog.epoch

    @property
    def listed(self) -> frozenset[str]:
        """As `Catalog.listed`."""
        return self._catalog.listed

    @property
    def stale(self) -> bool:
        """As `Catalog.stale`."""
        return self._catalog.stale

    def lacks(self, tool: str) -> bool:
        """As `Catalog.lacks`."""
        return self._catalog.lacks(tool)

    def hint(self, tool: str) -> bool | None:
        """As `Catalog.hint`."""
        return self._catalog.hint(tool)

    def look_up(self, tool: str, *, timeout: float | None = None) -> bool | None:
        """As `Catalog.look_up`."""
        return self._background.run(partial(self._catalog.look_up, tool, timeout=timeout))

    def subscribe(self, listener: Callable[[CatalogChange], None]) -> Callable[[], None]:
        """As `Catalog.subscribe`: the listener is called in the loop's thread, and must not block."""
        # In the loop, because a task there lists what is not listed yet.
        return self._background.look(partial(self._catalog.subscribe, listener))

    def refresh(self, kinds: Iterable[str] = KINDS) -> bool:
        """As `Catalog.refresh`."""
        return self._background.run(partial(self._catalog.refresh, tuple(kinds)))

    def ensure(self, kinds: Iterable[str] = KINDS) -> bool:
        """As `Catalog.ensure`."""
        return self._background.run(partial(self._catalog.ensure, tuple(kinds)))
