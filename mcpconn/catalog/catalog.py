"""What a server offers - tools, resources, templates, prompts - kept across its sessions.

A host registers tools once. While the connection is away they stay readable, marked as stale. When a new session is
there, and when the server says that a list has changed, they are listed again and the differences announced.

The server is asked for nothing before somebody needs it (`catalog = "lazy"`): a subscriber, `refresh`, one of the
connection's `list_*` methods, or a call whose outcome is unknown. From then on that list is kept up to date.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Any, Protocol

import anyio
import mcp_types as types
from mcp.shared.exceptions import MCPError

from mcpconn.catalog.entries import CatalogChange, Entries
from mcpconn.catalog.listing import KINDS, NOTHING, advertised, collect
from mcpconn.catalog.watch import Watch
from mcpconn.errors import CallFailed
from mcpconn.runtime.session import Session


class Lister(Protocol):
    """What the catalogue needs of a connection: its calls, and a task beside them."""

    name: str

    @property
    def watching(self) -> bool:
        """Whether the user watches resources (legacy era)."""

    async def list_page(self, kind: str, cursor: str | None) -> Any:
        """One page of a list. The call does not count as use of the connection."""

    async def capabilities(self) -> types.ServerCapabilities | None:
        """What the present session's server offers; asks it, if the handshake did not. None: there is no session."""

    async def usable(self) -> bool:
        """Wait until calls can be issued; False if they cannot."""

    async def tell_watchers(self) -> None:
        """Tell those who watch resources to read them again."""

    def present(self) -> Session | None:
        """The session that calls are issued on now."""

    def spawn(self, task: Callable[[], Any]) -> bool:
        """Run `task` beside the connection."""


class Catalog:
    """What one server offers, as its latest session listed it."""

    def __init__(
        self,
        of: Lister,
        *,
        calm: Callable[[], Awaitable[None]],
        report: Callable[[str, Exception], None],
        mode: str = "lazy",
    ) -> None:
        """
        Args:
            of: Lists what its server offers.
            calm: Returns when no connection of the manager is being opened.
            report: Told when a listener raised.
            mode: `eager` lists at every connect; `lazy` once somebody needs it; `off` only when told to (`refresh`).
        """
        self._of = of
        self._report = report
        self._mode = mode
        self._lists = {kind: Entries(kind, wanted=mode == "eager") for kind in KINDS}
        self._watch = Watch(self, of, calm=calm)
        self._count = 0
        """Listings begun."""
        self._refreshing: anyio.Event | None = None
        self._listeners: list[Callable[[CatalogChange], None]] = []

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
        return max(one.epoch for one in self._lists.values())

    @property
    def listed(self) -> frozenset[str]:
        """The lists known as the present session listed them, without a known change since."""
        session = self._of.present()
        return frozenset(kind for kind, one in self._lists.items() if session is not None and one.fresh(session))

    @property
    def stale(self) -> bool:
        """Whether nothing was listed yet, or what was is an earlier session's or known to have changed since.

        Lists that nobody needed are not looked at; `listed` says which are known.
        """
        needed = [kind for kind in KINDS if self._lists[kind].wanted or self._lists[kind].epoch]
        return not needed or not self.listed.issuperset(needed)

    def lacks(self, tool: str) -> bool:
        """Whether a complete listing of the present session has no such tool."""
        tools = self._lists["tools"]
        return "tools" in self.listed and tools.complete and tool not in tools.known

    def subscribe(self, listener: Callable[[CatalogChange], None]) -> Callable[[], None]:
        """Call `listener` with every difference, from now on. Returns an unsubscribe function.

        Everything is listed from then on, if it was not before.
        """
        self._listeners.append(listener)
        self.want()

        def unsubscribe() -> None:
            if listener in self._listeners:
                self._listeners.remove(listener)

        return unsubscribe

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
        have been replaced by another version since the first attempt, so both must agree.

        Args:
            tool: Its name.
            before: `hint` when the call was made.
        """
        if before is False or not await self.ensure(("tools",)):
            return False
        return self.hint(tool) is True

    # -- listing

    async def refresh(self, kinds: Iterable[str] = KINDS) -> bool:
        """List again what the server advertises, and announce the differences. Connects, if need be.

        A list that cannot be had stays as it was, and the others are listed all the same.

        Args:
            kinds: What to list: any of `tools`, `resources`, `templates` and `prompts`.

        Returns:
            Whether all of them are known now.
        """
        kinds, asked = tuple(kinds), self._count
        self.want(kinds, now=False)
        return await self._of.usable() and await self.list_now(kinds, asked=asked, anew=True)

    async def ensure(self, kinds: Iterable[str] = KINDS) -> bool:
        """As `refresh`, for the lists that the present session has not listed yet. With `off` it lists none."""
        kinds, asked = tuple(kinds), self._count
        if self._mode == "off":
            return self.listed.issuperset(kinds)
        self.want(kinds, now=False)
        return await self._of.usable() and await self.list_now(kinds, asked=asked)

    def want(self, kinds: Iterable[str] = KINDS, *, now: bool = True) -> None:
        """Keep these lists up to date from now on.

        Args:
            kinds: Which.
            now: List what is not known soon; False leaves that to the next session.
        """
        if self._mode == "off":
            return
        for kind in kinds:
            self._lists[kind].wanted = True
        if now:
            self._watch.soon()

    async def list_now(self, kinds: Iterable[str], *, asked: int | None = None, anew: bool = False) -> bool:
        """List on the present session; return whether all of `kinds` are known then.

        One listing runs at a time. Those who wait for it do not repeat what began after they asked: a hundred calls
        that fail together list once.

        Args:
            kinds: Which.
            asked: `_count` when the caller asked; None for now.
            anew: Even what is known.
        """
        kinds = tuple(kinds)
        asked = self._count if asked is None else asked
        while self._refreshing is not None:
            await self._refreshing.wait()
        session = self._of.present()
        if session is None or session.link is None:
            return False
        asked_for = [self._lists[kind] for kind in kinds]
        todo = [one.kind for one in asked_for if one.began <= asked and (anew or not one.fresh(session))]
        if todo:
            self._refreshing = anyio.Event()
            try:
                await self._list_all(todo, session)
            finally:
                done, self._refreshing = self._refreshing, None
                done.set()
            # What was announced meanwhile, or failed, is listed later.
            self._watch.soon()
        here = session is self._of.present()
        return here and all(one.fresh(session) and (one.got > asked or not anew) for one in asked_for)

    @property
    def busy(self) -> bool:
        """Whether a listing is under way, or about to begin at a new session."""
        return self._refreshing is not None or self._watch.attended is not None

    async def settled(self) -> None:
        """Return when no listing is under way."""
        while (under_way := self._refreshing or self._watch.attended) is not None:
            await under_way.wait()

    # -- for `Watch`

    @property
    def wanted(self) -> frozenset[str]:
        """The lists that somebody needs."""
        return frozenset(kind for kind, one in self._lists.items() if one.wanted)

    def needed(self, session: Session) -> list[str]:
        """The lists that somebody needs and `session` has not tried to list."""
        return [kind for kind, one in self._lists.items() if one.wanted and one.tried != session.epoch]

    def due(self, session: Session) -> list[str]:
        """The lists to be listed again: those that have changed, and those that could not be listed for now."""
        return [kind for kind, one in self._lists.items() if one.due(session)]

    def tried(self, session: Session) -> bool:
        """Whether `session` has begun to list anything."""
        return any(one.tried == session.epoch for one in self._lists.values())

    def changed(self, kinds: Iterable[str], session: Session) -> None:
        """The server says that these lists have changed."""
        for kind in kinds:
            self._lists[kind].announced += 1
        if "tools" in kinds and session.link is not None:
            # The schemas that the session has listed may no longer hold; no answer is refused for them.
            session.link.seed(tuple(self.tools.values()))

    # -- the work

    async def _list_all(self, kinds: list[str], session: Session) -> None:
        """List one after another, for as long as the session is the present one."""
        async with anyio.create_task_group() as group:

            async def until_retired() -> None:
                await session.retired.wait()
                group.cancel_scope.cancel()

            group.start_soon(until_retired)
            await self._watch.settled(session)
            try:
                offered = advertised(await self._of.capabilities())
            except Exception:
                # Nobody knows what there is, so everything is asked for.
                offered = frozenset(KINDS)
            news = False
            for kind in kinds:
                news |= await self._list(self._lists[kind], session, offered=kind in offered)
            self._watch.listed(news)
            group.cancel_scope.cancel()

    async def _list(self, one: Entries, session: Session, *, offered: bool) -> bool:
        """List one kind. Whatever fails is this list's alone. Returns whether anything was new."""
        self._count += 1
        seen = one.begin(self._count, session)
        try:
            found = await collect(lambda cursor: self._of.list_page(one.kind, cursor), one.kind) if offered else NOTHING
        except Exception as error:
            # Classified, reported and logged by the call itself.
            if not _absent(error) or one.known:
                one.retry = isinstance(error, CallFailed)
                return False
            found = NOTHING
        if session is not self._of.present():
            return False
        return self._announce(one.replace(self._of.name, found, session, seen))

    def _announce(self, change: CatalogChange) -> bool:
        if not change:
            return False
        for listener in tuple(self._listeners):
            try:
                listener(change)
            except Exception as error:  # a listener is host code
                self._report("listener", error)
        return True

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
        if session is None or session.link is None or session.link.client is not client:
            return
        one = self._lists[kind]
        whole = one.page(cursor, page, client)
        if whole is not None:
            self._count += 1
            one.begin(self._count, session)
            self._announce(one.replace(self._of.name, whole[0], session, whole[1]))
            self.want((kind,), now=False)
            self._watch.follow(session)

    async def attend(self, session: Session, *, busy: bool = False) -> None:
        """Beside the first calls of a session: list what is needed, and begin to listen for changes.

        Args:
            session: The present session.
            busy: Calls have waited for it. The first of them goes before the listing.
        """
        await self._watch.attend(session, busy=busy)

    def notice(self, message: Any) -> None:
        """A notification came. If it says that a list has changed, list it soon."""
        self._watch.notice(message)


def _absent(error: Exception) -> bool:
    """Whether the server says that it has no such list."""
    unknown_method = types.METHOD_NOT_FOUND
    return isinstance(error, MCPError) and not isinstance(error, CallFailed) and error.code == unknown_method
