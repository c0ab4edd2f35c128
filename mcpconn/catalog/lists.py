"""The lists of one server across its sessions: which ones are needed, which are known, and their reading."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Protocol

import anyio
import mcp_types as types
from mcp.shared.exceptions import MCPError

from mcpconn.catalog.entries import CatalogChange, Entries
from mcpconn.catalog.listing import KINDS, NOTHING, Listing, advertised, changing, collect
from mcpconn.errors import CallFailed
from mcpconn.runtime.session import Session


class Lister(Protocol):
    """What the catalogue needs from a connection: its calls, and a background task."""

    name: str

    @property
    def watching(self) -> bool:
        """Whether the user watches resources (legacy era)."""

    async def list_page(self, kind: str, cursor: str | None) -> Any:
        """One page of a list. The call does not count as use of the connection."""

    async def capabilities(self) -> types.ServerCapabilities | None:
        """The capabilities of the current session's server; asks if the handshake did not tell. None: there is no
        session."""

    async def usable(self) -> bool:
        """Wait until calls can be issued; False if they cannot."""

    async def tell_watchers(self) -> None:
        """Notify subscribers of resources to read them again."""

    def present(self) -> Session | None:
        """The session on which calls are currently issued."""

    def spawn(self, task: Callable[[], Any]) -> bool:
        """Run `task` in the background."""


class Lists:
    """All lists of one server. One listing runs at a time."""

    def __init__(
        self,
        of: Lister,
        *,
        wanted: bool,
        ready: Callable[[Session], Awaitable[None]],
        announce: Callable[[CatalogChange], None],
        over: Callable[[bool], None],
    ) -> None:
        """
        Args:
            of: The connection, which makes the listings.
            wanted: Whether all lists are needed from the beginning.
            ready: Returns when a session can list: its event stream is open, or will not be opened.
            announce: Called with every difference.
            over: Called at the end of a listing, with whether anything was new.
        """
        self._of = of
        self._ready = ready
        self._announce = announce
        self._over = over
        self._lists = {kind: Entries(kind, wanted=wanted) for kind in KINDS}
        self.count = 0
        """The number of started listings."""
        self.under_way: anyio.Event | None = None
        """Set when the current listing ends; None if there is none."""

    def __getitem__(self, kind: str) -> Entries:
        return self._lists[kind]

    # -- needed and known lists

    @property
    def epoch(self) -> int:
        """The session that the latest listing is from; 0 before the first."""
        return max(one.epoch for one in self._lists.values())

    @property
    def fresh(self) -> frozenset[str]:
        """The lists that the current session has listed, without a change announced or possibly missed since."""
        session = self._of.present()
        return frozenset(kind for kind, one in self._lists.items() if session is not None and one.fresh(session))

    @property
    def stale(self) -> bool:
        """Whether nothing is known, or a known or needed list is not fresh."""
        needed = [kind for kind, one in self._lists.items() if one.wanted or one.epoch]
        return not needed or not self.fresh.issuperset(needed)

    @property
    def wanted(self) -> frozenset[str]:
        """The needed lists."""
        return frozenset(kind for kind, one in self._lists.items() if one.wanted)

    def needed(self, session: Session) -> list[str]:
        """The needed lists that `session` has not tried to list."""
        return [kind for kind, one in self._lists.items() if one.wanted and one.tried != session.epoch]

    def due(self, session: Session) -> list[str]:
        """The lists to request again: those that have changed, and those whose listing failed temporarily."""
        return [kind for kind, one in self._lists.items() if one.due(session)]

    def tried(self, session: Session) -> bool:
        """Whether `session` has started to list anything."""
        return any(one.tried == session.epoch for one in self._lists.values())

    def doubt(self, session: Session) -> None:
        """The event stream is interrupted: the client does not receive the server's announcements."""
        capabilities = session.link.capabilities if session.link is not None else None
        for kind in KINDS if capabilities is None else changing(capabilities):
            self._lists[kind].doubted = True
        self._uncheck(session)

    def changed(self, kinds: Iterable[str], session: Session) -> None:
        """The server has announced a change of these lists."""
        for kind in kinds:
            self._lists[kind].announced += 1
        if "tools" in kinds:
            self._uncheck(session)

    def _uncheck(self, session: Session) -> None:
        """Ensure that no result is rejected because of an outdated schema."""
        if session.link is not None:
            session.link.restore_tools(tuple(self._lists["tools"].known.values()))

    # -- listing

    async def read(self, kinds: Iterable[str], *, asked: int | None = None, anew: bool = False) -> bool:
        """List on the current session; return whether all of `kinds` are known afterwards.

        One listing runs at a time. Waiting callers do not repeat a listing that started after their request, so a
        hundred calls that fail together list once.

        Args:
            kinds: The lists to request.
            asked: The value of `count` at the caller's request; None: the current value.
            again: Request known lists as well.
        """
        kinds = tuple(kinds)
        asked = self.count if asked is None else asked
        while self.under_way is not None:
            await self.under_way.wait()
        session = self._of.present()
        if session is None or session.link is None:
            return False
        asked_for = [self._lists[kind] for kind in kinds]
        todo = [one.kind for one in asked_for if one.began <= asked and (anew or not one.fresh(session))]
        if todo:
            self.under_way = anyio.Event()
            try:
                news = await self._read_all(todo, session)
            finally:
                # After a cancellation, waiting callers list what this caller did not finish.
                done, self.under_way = self.under_way, None
                done.set()
            self._over(news)
        here = session is self._of.present()
        return here and all(one.fresh(session) and (one.got > asked or not anew) for one in asked_for)

    async def _read_all(self, kinds: list[str], session: Session) -> bool:
        """List one after another, as long as the session is current. Returns whether anything was new."""
        news = False
        async with anyio.create_task_group() as group:

            async def until_retired() -> None:
                await session.retired.wait()
                group.cancel_scope.cancel()

            group.start_soon(until_retired)
            await self._ready(session)
            try:
                offered = advertised(await self._of.capabilities())
            except Exception:
                # The server's capabilities are unknown, so every list is requested.
                offered = frozenset(KINDS)
            for kind in kinds:
                news |= await self._read(self._lists[kind], session, offered=kind in offered)
            group.cancel_scope.cancel()
        return news

    async def _read(self, one: Entries, session: Session, *, offered: bool) -> bool:
        """List one kind. A failure affects only this list. Returns whether anything was new."""
        self.count += 1
        seen = one.begin(self.count, session)
        try:
            found = await collect(lambda cursor: self._of.list_page(one.kind, cursor), one.kind) if offered else NOTHING
        except Exception as error:
            # The call itself has classified, reported and logged the error.
            if not _absent(error) or one.known:
                one.retry = isinstance(error, CallFailed)
                return False
            found = NOTHING
        except BaseException:
            # The caller was cancelled, or the session is lost. Waiting callers get no result from this listing.
            one.forget_attempt()
            raise
        if session is not self._of.present():
            return False
        return self._replace(one, found, session, seen)

    def _replace(self, one: Entries, found: Listing, session: Session, seen: int) -> bool:
        change = one.replace(self._of.name, found, session, seen)
        if change:
            self._announce(change)
        return bool(change)

    def heard(self, kind: str, cursor: str | None, page: Any, client: Any, session: Session) -> bool:
        """The connection's user has listed a page. All pages of a list make it known.

        Args:
            kind: What was listed.
            cursor: Of the page; None for the first.
            page: The result.
            client: The `mcp.Client` that it came from.
            session: The current session. Pages of other sessions are ignored.

        Returns:
            Whether the list is now known.
        """
        if session.link is None or session.link.client is not client:
            return False
        one = self._lists[kind]
        whole = one.page(cursor, page, client)
        if whole is None:
            return False
        self.count += 1
        one.begin(self.count, session)
        self._replace(one, whole[0], session, whole[1])
        return True


def _absent(error: Exception) -> bool:
    """Whether the error says that the server has no such list."""
    unknown_method = types.METHOD_NOT_FOUND
    return isinstance(error, MCPError) and not isinstance(error, CallFailed) and error.code == unknown_method
