"""Decides when the catalogue lists: on a new session, after a change, and after a gap in the event stream.

The server announces changes only on its event stream. So a session's first listing waits until the stream is open: a
change between the listing and the opening would never be announced. For the same reason the lists are fetched again
after an interruption of the stream.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import anyio
import mcp_types as types
from mcp.shared.exceptions import MCPError

from mcpconn.catalog.listing import changed_kinds, changing, subscription
from mcpconn.core.stream import StreamRecord, StreamState
from mcpconn.runtime.session import Session

if TYPE_CHECKING:
    from mcpconn.catalog.lists import Lister, Lists

COURTESY = 0.1
"""Seconds that the listing of a new session waits for a call that was waiting for the session."""
CROWD_COURTESY = 1.0
"""Seconds that it waits for the dials of other connections, which a host that starts a hundred needs first."""
STREAM_PATIENCE = 1.0
"""Seconds from the beginning of a session that its listing waits for the event stream. Some servers send the head of
the stream only with its first event."""
DEBOUNCE = 0.2
"""Seconds from a notification to the listing, because servers that load plugins send one for each."""
PAUSE_MAXIMUM = 60.0
"""Longest pause between two listings, in seconds, if the server announces changes and there are none. The pause doubles
whenever the next announcement comes within ten pauses, because some servers send one at each listing."""
BUSY_PAUSE_MAXIMUM = 5.0
"""The same limit if there were changes."""
GAP_INTERVAL = 60.0
"""Seconds between two listings for gaps in the event stream. Some proxies end every stream after a minute."""


class ListingSchedule:
    """Decides when a catalogue lists, and receives its server's announcements."""

    def __init__(self, lists: Lists, of: Lister, *, wait_for_dials: Callable[[], Awaitable[None]]) -> None:
        self._lists = lists
        self._of = of
        self._wait_for_dials = wait_for_dials
        self._first_listing_of: Session | None = None
        """The session whose first listing waits for the event stream."""
        self.first_listing_over: anyio.Event | None = None
        """Set when that listing ends; None if there is none."""
        self._following: Session | None = None
        """The session whose event stream is observed."""
        self._listening: Session | None = None
        """The session on which `subscriptions/listen` is kept open (modern era)."""
        self._patience_ends = 0.0
        """The time, in seconds, after which the first listing no longer waits for that session's event stream."""
        self._busy = False
        """Whether a task is listing changes."""
        self._pause = DEBOUNCE
        self._pause_maximum = PAUSE_MAXIMUM
        self._listed_at = -math.inf
        self._gap = False
        """Whether the event stream was interrupted and nothing has been listed since."""
        self._gap_task = False
        self._gap_at = -math.inf

    # -- a new session

    async def first_listing(self, session: Session, *, busy: bool) -> None:
        """Make the needed listings on a new session after its event stream is open."""
        self._first_listing_of, self._gap = session, False
        first_listing_over = self.first_listing_over = anyio.Event()
        try:
            await self._first_listing(session, busy)
        finally:
            first_listing_over.set()
            if self.first_listing_over is first_listing_over:
                self.first_listing_over = None

    async def _first_listing(self, session: Session, busy: bool) -> None:
        began = anyio.current_time()
        try:
            await self.wait_for_stream(session)
            # Changes of a resource between its subscription and the opening of the stream were not announced.
            missed = session.epoch > 1 or self._of.watching
            # Measured from the beginning, because the event stream has waited for the same dials.
            with anyio.CancelScope(deadline=began + CROWD_COURTESY):
                await self._wait_for_dials()
            if busy:
                with anyio.move_on_after(COURTESY):
                    await session.answered.wait()
        finally:
            if self._first_listing_of is session:
                self._first_listing_of = None
        if self._of.present() is session:
            if missed:
                await self._of.tell_watchers()
            await self._lists.read(self._lists.needed(session))

    def follow(self, session: Session) -> None:
        """Observe the session's event stream. In the modern era, open it, if any list is needed."""
        link = session.link
        if link is None:
            return
        if self._following is not session:
            self._following = session
            self._patience_ends = anyio.current_time() + STREAM_PATIENCE
            link.stream.subscribe(partial(self._stream_changed, session))
        if link.era == "modern" and self._lists.wanted and self._listening is not session:
            self._listening = session
            self._patience_ends = anyio.current_time() + STREAM_PATIENCE
            # Set before the task starts, so that the next listing waits for the stream.
            link.stream.opening()
            self._of.spawn(partial(self._listen, session))

    async def wait_for_stream(self, session: Session) -> None:
        """Return when the event stream is open or refused, or after one second."""
        self.follow(session)
        assert session.link is not None
        stream = session.link.stream
        if not _awaited(stream):
            return
        changed = anyio.Event()
        unsubscribe = stream.subscribe(lambda: changed.set())
        try:
            with anyio.CancelScope(deadline=self._patience_ends):
                while _awaited(stream):
                    await changed.wait()
                    changed = anyio.Event()
        finally:
            unsubscribe()

    # -- changes

    def notice(self, message: Any) -> None:
        """A notification came."""
        session = self._of.present()
        if session is not None and (kinds := changed_kinds(message)):
            self._lists.changed(kinds, session)
            self.soon()

    def listed(self, news: bool) -> None:
        """A listing has ended. Changes announced in the meantime, and failed lists, are listed later.

        Args:
            news: It found something new.
        """
        self._listed_at = anyio.current_time()
        self._pause_maximum = BUSY_PAUSE_MAXIMUM if news else PAUSE_MAXIMUM
        self.soon()

    def soon(self) -> None:
        """List what is due, in the background."""
        session = self._of.present()
        if session is None or self._busy or self._first_listing_of is session:
            return
        if self._lists.due(session) or self._lists.needed(session):
            self._busy = self._of.spawn(self._catch_up)

    async def _catch_up(self) -> None:
        """List until nothing is due, with growing pauses."""
        try:
            while (session := self._of.present()) is not None and self._first_listing_of is not session:
                if needed := self._lists.needed(session):
                    await self._lists.read(needed)
                    if self._lists.needed(session) == needed:
                        # Interrupted. The next caller that needs them, or the next session, lists them.
                        return
                elif self._lists.due(session):
                    await _pause(session, self._next_pause())
                    if self._of.present() is session:
                        await self._lists.read(self._lists.due(session), anew=True)
                else:
                    return
        finally:
            self._busy = False

    def _next_pause(self) -> float:
        soon = anyio.current_time() - self._listed_at < 10 * self._pause
        self._pause = min(self._pause * 2, self._pause_maximum) if soon else DEBOUNCE
        return self._pause

    # -- the event stream

    def _stream_changed(self, session: Session) -> None:
        link = session.link
        if link is None or session is not self._of.present():
            return
        if link.stream.state is StreamState.WAITING and link.stream.opened:
            self._lists.doubt(session)
        if link.stream.state is not StreamState.OPEN:
            return
        late = link.era == "legacy" and self._first_listing_of is not session
        if late or link.stream.opened > 1 or self._lists.tried(session):
            self._gap = True
            if not self._gap_task:
                self._gap_task = self._of.spawn(partial(self._close_gap, session))

    async def _close_gap(self, session: Session) -> None:
        """Messages may have been lost: notify subscribers of resources, and list what may have changed."""
        try:
            while self._gap:
                await _pause(session, self._gap_at + GAP_INTERVAL - anyio.current_time())
                if self._of.present() is not session:
                    return
                # Cleared first, so that a gap during the listing is noticed.
                self._gap = False
                self._gap_at = anyio.current_time()
                await self._of.tell_watchers()
                kinds = self._lists.wanted & await self._announced()
                await self._lists.read(kinds, anew=True)
        finally:
            self._gap_task = False

    async def _announced(self) -> frozenset[str]:
        try:
            return changing(await self._of.capabilities())
        except Exception:
            return frozenset()

    async def _listen(self, session: Session) -> None:
        """Modern era: keep `subscriptions/listen` open for as long as the session lasts."""
        link = session.link
        assert link is not None
        stream = link.stream
        try:
            wanted = subscription(await self._of.capabilities())
        except Exception:
            wanted = dict.fromkeys(("tools_list_changed", "resources_list_changed", "prompts_list_changed"), True)
        if not any(wanted.values()):
            stream.refuse("the server announces no changes")
            return
        while self._of.present() is session:
            stream.opening()
            try:
                async with link.listen(**wanted) as events:
                    stream.open(anyio.current_time())
                    async for event in events:
                        self.notice(event)
                reason = "the server ended it"
            except Exception as error:
                if isinstance(error, MCPError) and error.code == types.METHOD_NOT_FOUND:
                    stream.refuse("the server does not know subscriptions/listen")
                    return
                reason = f"lost ({type(error).__name__})"
            await _pause(session, stream.lost(anyio.current_time(), reason))


def _awaited(stream: StreamRecord) -> bool:
    """Whether a listing waits for the event stream."""
    return not stream.known and stream.state is not StreamState.NONE


async def _pause(session: Session, seconds: float) -> None:
    """Wait, but not beyond the end of the session."""
    with anyio.move_on_after(max(0.0, seconds)):
        await session.retired.wait()
