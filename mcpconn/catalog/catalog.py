"""The tools, resources, templates and prompts that a server offers, kept across its sessions.

A host registers tools once. While the connection is down they stay readable, marked as stale. On a new session, and
when the server announces a change, they are listed again, and subscribers receive the differences.

With `catalog = "lazy"` a list is requested only when it is needed: by a subscriber, by `refresh`, by one of the
connection's `list_*` methods, or by a call with an unknown outcome. From then on that list is kept up to date.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Any

import anyio
import mcp_types as types

from mcpconn.catalog.entries import CatalogChange
from mcpconn.catalog.listing import KINDS
from mcpconn.catalog.lists import Lister, Lists
from mcpconn.catalog.schedule import ListingSchedule
from mcpconn.runtime.listeners import Listeners, Report
from mcpconn.runtime.session import Session

SAFETY_PATIENCE = 10.0
"""Seconds that a call with an unknown outcome waits for a session that lists whether its tool may run again, if no
earlier listing has. It is the time that a working server may need to accept a new session."""


class Catalog:
    """One server's tools, resources, templates and prompts, as its latest session listed them."""

    def __init__(
        self,
        of: Lister,
        *,
        wait_for_dials: Callable[[], Awaitable[None]],
        report: Report,
        mode: str = "lazy",
    ) -> None:
        """
        Args:
            of: The connection, which makes the listings.
            wait_for_dials: Returns when no connection of the manager is dialling.
            report: Called with the exceptions of listeners.
            mode: `eager` lists at every connect; `lazy` when a list is needed; `off` only on request (`refresh`).
        """
        self._of = of
        self._report = report
        self._mode = mode
        self._lists = Lists(
            of,
            wanted=mode == "eager",
            ready=lambda session: self._schedule.wait_for_stream(session),
            announce=self._announce,
            over=lambda news: self._schedule.listed(news),
        )
        self._schedule = ListingSchedule(self._lists, of, wait_for_dials=wait_for_dials)
        self._listeners: Listeners[CatalogChange] = Listeners()

    # -- contents

    @property
    def tools(self) -> Mapping[str, types.Tool]:
        """Tools by name."""
        return MappingProxyType(self._lists["tools"].known)

    @property
    def resources(self) -> Mapping[str, types.Resource]:
        """Resources by URI."""
        return MappingProxyType(self._lists["resources"].known)

    @property
    def templates(self) -> Mapping[str, types.ResourceTemplate]:
        """Resource templates by URI template."""
        return MappingProxyType(self._lists["templates"].known)

    @property
    def prompts(self) -> Mapping[str, types.Prompt]:
        """Prompts by name."""
        return MappingProxyType(self._lists["prompts"].known)

    @property
    def epoch(self) -> int:
        """The session that the latest listing is from; 0 before the first."""
        return self._lists.epoch

    @property
    def listed(self) -> frozenset[str]:
        """The lists that the current session has listed, without a change announced or possibly missed since."""
        return self._lists.fresh

    @property
    def stale(self) -> bool:
        """Whether nothing was listed yet, or the entries may be outdated.

        They may be outdated if an earlier session listed them, if the server has announced a change since, or if its
        event stream was interrupted, so that an announcement may have been missed. Lists that were never needed are not
        considered; `listed` says which are known.
        """
        return self._lists.stale

    def lacks(self, tool: str) -> bool:
        """Whether a complete listing of the current session lacks the tool."""
        tools = self._lists["tools"]
        return "tools" in self.listed and tools.complete and tool not in tools.known

    def subscribe(self, listener: Callable[[CatalogChange], None]) -> Callable[[], None]:
        """Call `listener` with every difference, from now on. Returns an unsubscribe function.

        From then on all lists are kept. The listener must not block; its exceptions are logged.

        Raises:
            NotRunning: this is not the connection's event loop.
        """
        self._want(KINDS)
        self._schedule.soon()
        return self._listeners.subscribe(listener)

    def hint(self, tool: str) -> bool | None:
        """Whether running a tool twice is harmless, according to its last known annotations. None: unknown.

        Annotations are hints (specification, tool annotations); a server with false annotations harms itself.
        """
        known: types.Tool | None = self._lists["tools"].known.get(tool)
        if known is None:
            return None
        hints = known.annotations
        return hints is not None and bool(hints.read_only_hint or hints.idempotent_hint)

    def known_safe(self, tool: str) -> bool:
        """Whether the last known annotations say that running the tool twice is harmless."""
        return self.hint(tool) is True

    async def safe(self, tool: str, *, before: bool | None = None) -> bool:
        """Whether a tool that may have run can be run again. Lists the tools if the current session has not.

        The annotations that the current session lists are decisive, because it would run the tool. The server may have
        been replaced by a different version since the first attempt, so the earlier annotations must agree. If the
        session is lost in the meantime, the next one is asked: for as long as the caller waits if the tool was known to
        be safe, and for `SAFETY_PATIENCE` if nothing was known, because then the tool may turn out to be unsafe.

        Args:
            tool: Its name.
            before: The value of `hint` when the call was made.
        """
        if before is False:
            return False
        if self._mode == "off":
            return "tools" in self.listed and self.hint(tool) is True
        with anyio.move_on_after(math.inf if before else SAFETY_PATIENCE):
            while await self._of.usable():
                session = self._of.present()
                if await self.ensure(("tools",)):
                    return self.hint(tool) is True
                if session is not None and session is self._of.present():
                    # The session works, but the listing fails.
                    return False
        return False

    async def look_up(self, tool: str, *, timeout: float | None = None) -> bool | None:
        """Whether the current session's server has a tool. Lists the tools if the session has not.

        Args:
            tool: Its name.
            timeout: Seconds for the listing; None for no limit.

        Returns:
            None if it is unknown: the listing fails, is incomplete, or takes longer.
        """
        with anyio.move_on_after(math.inf if timeout is None else timeout):
            await self.ensure(("tools",))
        if "tools" not in self.listed:
            return None
        return False if self.lacks(tool) else True if tool in self.tools else None

    # -- listing

    async def refresh(self, kinds: Iterable[str] = KINDS) -> bool:
        """List again what the server advertises, and announce the differences. Connects if necessary.

        A list whose listing fails stays as it was; the others are listed nevertheless.

        Args:
            kinds: The lists to request: any of `tools`, `resources`, `templates` and `prompts`.

        Returns:
            Whether all of them are known now.
        """
        kinds, asked = tuple(kinds), self._lists.count
        self._want(kinds)
        return await self._of.usable() and await self._lists.read(kinds, asked=asked, anew=True)

    async def ensure(self, kinds: Iterable[str] = KINDS) -> bool:
        """Like `refresh`, but only for lists that the current session has not listed yet. With `off` it lists none."""
        kinds, asked = tuple(kinds), self._lists.count
        if self._mode == "off":
            return self.listed.issuperset(kinds)
        self._want(kinds)
        return await self._of.usable() and await self._lists.read(kinds, asked=asked)

    def _want(self, kinds: Iterable[str]) -> None:
        """Keep these lists up to date from now on."""
        for kind in kinds if self._mode != "off" else ():
            self._lists[kind].wanted = True

    def _announce(self, change: CatalogChange) -> None:
        self._listeners.tell(change, self._report)

    @property
    def busy(self) -> bool:
        """Whether a listing is in progress, or about to start on a new session."""
        return self._lists.under_way is not None or self._schedule.first_listing_over is not None

    async def wait_until_listed(self) -> None:
        """Return when no listing is in progress."""
        while (under_way := self._lists.under_way or self._schedule.first_listing_over) is not None:
            await under_way.wait()

    # -- from the connection

    def heard(self, kind: str, cursor: str | None, page: Any, client: Any) -> None:
        """The connection's user has listed a page. After all pages the list is known, at no cost.

        Args:
            kind: What was listed.
            cursor: The page's cursor; None for the first.
            page: The result.
            client: The `mcp.Client` that it came from.
        """
        session = self._of.present()
        if session is not None and self._lists.heard(kind, cursor, page, client, session):
            self._want((kind,))
            self._schedule.follow(session)

    async def first_listing(self, session: Session, *, busy: bool = False) -> None:
        """Concurrently with the first calls of a session: list what is needed, and start to listen for changes.

        Args:
            session: The current session.
            busy: Whether calls have waited for it. The first of them is made before the listing.
        """
        await self._schedule.first_listing(session, busy=busy)

    def notice(self, message: Any) -> None:
        """Handle a notification: if it announces a changed list, list it soon."""
        self._schedule.notice(message)
