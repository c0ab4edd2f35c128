"""What a server offers - tools, resources, templates, prompts - kept across its sessions.

A host registers tools once. While the connection is away they stay readable, marked as stale. When a new session is
there, and when the server says that a list has changed, they are listed again and the differences announced.

The server is asked for nothing before somebody needs it (`catalog = "lazy"`): a subscriber, `refresh`, one of the
connection's `list_*` methods, or a call whose outcome is unknown. From then on that list is kept up to date.
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
"""Seconds that a call whose outcome is unknown waits for a session that says whether its tool can be run again, if no
listing has said so before. It is how long a server that can serve a new session may need to get one."""


class Catalog:
    """What one server offers, as its latest session listed it."""

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
            of: Lists what its server offers.
            wait_for_dials: Returns when no connection of the manager is being opened.
            report: Called with what a listener raised.
            mode: `eager` lists at every connect; `lazy` once somebody needs it; `off` only when told to (`refresh`).
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

    # -- what is known

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
        """The lists known as the present session listed them, with no change announced or missed since."""
        return self._lists.fresh

    @property
    def stale(self) -> bool:
        """Whether nothing was listed yet, or what was is perhaps not what the server has now.

        That is so if an earlier session listed it, if the server has announced a change since, and if its event
        stream was away, so that an announcement can have been missed. Lists that nobody needed are not looked at;
        `listed` says which are known.
        """
        return self._lists.stale

    def lacks(self, tool: str) -> bool:
        """Whether a complete listing of the present session has no such tool."""
        tools = self._lists["tools"]
        return "tools" in self.listed and tools.complete and tool not in tools.known

    def subscribe(self, listener: Callable[[CatalogChange], None]) -> Callable[[], None]:
        """Call `listener` with every difference, from now on. Returns an unsubscribe function.

        Everything is listed from then on, if it was not before. It must not block; what it raises is logged.

        Raises:
            NotRunning: this is not the connection's event loop.
        """
        self._want(KINDS)
        self._schedule.soon()
        return self._listeners.subscribe(listener)

    def hint(self, tool: str) -> bool | None:
        """Whether running a tool twice does no harm, as its last known annotations say. None: it is not known.

        They are hints (specification, tool annotations); a server that lies about them harms itself.
        """
        known: types.Tool | None = self._lists["tools"].known.get(tool)
        if known is None:
            return None
        hints = known.annotations
        return hints is not None and bool(hints.read_only_hint or hints.idempotent_hint)

    def known_safe(self, tool: str) -> bool:
        """Whether its last known annotations say that running a tool twice does no harm."""
        return self.hint(tool) is True

    async def safe(self, tool: str, *, before: bool | None = None) -> bool:
        """Whether a tool that may have run can be run again. Lists the tools, if the present session has not.

        Only annotations that the present session lists count: it is the one that would run the tool. The server may
        have been replaced by another version since the first attempt, so both must agree. If the session is lost
        meanwhile, the next one is asked: for as long as its caller waits if the tool was known to be harmless, and
        for `SAFETY_PATIENCE` if nothing was known, because then the answer may well be that it cannot be run again.

        Args:
            tool: Its name.
            before: `hint` when the call was made.
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
                    # The session lives and its tools cannot be had.
                    return False
        return False

    async def look_up(self, tool: str, *, timeout: float | None = None) -> bool | None:
        """Whether the present session's server has a tool. Lists the tools, if the session has not.

        Args:
            tool: Its name.
            timeout: Seconds for the listing; None for no limit.

        Returns:
            None if that cannot be had: the listing fails, is not complete, or takes longer.
        """
        with anyio.move_on_after(math.inf if timeout is None else timeout):
            await self.ensure(("tools",))
        if "tools" not in self.listed:
            return None
        return False if self.lacks(tool) else True if tool in self.tools else None

    # -- listing

    async def refresh(self, kinds: Iterable[str] = KINDS) -> bool:
        """List again what the server advertises, and announce the differences. Connects, if need be.

        A list that cannot be had stays as it was, and the others are listed all the same.

        Args:
            kinds: What to list: any of `tools`, `resources`, `templates` and `prompts`.

        Returns:
            Whether all of them are known now.
        """
        kinds, asked = tuple(kinds), self._lists.count
        self._want(kinds)
        return await self._of.usable() and await self._lists.read(kinds, asked=asked, anew=True)

    async def ensure(self, kinds: Iterable[str] = KINDS) -> bool:
        """As `refresh`, for the lists that the present session has not listed yet. With `off` it lists none."""
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
        """Whether a listing is under way, or about to begin at a new session."""
        return self._lists.under_way is not None or self._schedule.first_listing_over is not None

    async def wait_until_listed(self) -> None:
        """Return when no listing is under way."""
        while (under_way := self._lists.under_way or self._schedule.first_listing_over) is not None:
            await under_way.wait()

    # -- from the connection

    def heard(self, kind: str, cursor: str | None, page: Any, client: Any) -> None:
        """The connection's user has listed a page. All pages of a list make it known, at no cost.

        Args:
            kind: What was listed.
            cursor: Of the page; None for the first.
            page: The result.
            client: The `mcp.Client` that it came from.
        """
        session = self._of.present()
        if session is not None and self._lists.heard(kind, cursor, page, client, session):
            self._want((kind,))
            self._schedule.follow(session)

    async def first_listing(self, session: Session, *, busy: bool = False) -> None:
        """Beside the first calls of a session: list what is needed, and begin to listen for changes.

        Args:
            session: The present session.
            busy: Calls have waited for it. The first of them goes before the listing.
        """
        await self._schedule.first_listing(session, busy=busy)

    def notice(self, message: Any) -> None:
        """A notification came. If it says that a list has changed, list it soon."""
        self._schedule.notice(message)
