"""The legacy sessions that this process holds open, and which of them gives way when there are too many.

Opening a session takes the same time however many there are: a crowd of clients opens thousands, each with an event
stream, so that none of them is idle and a search for an idle one would pass all of them.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from mcpconn.gateway.clients.session_ids import Session
from mcpconn.gateway.principals import Principal


@dataclass(eq=False)
class LiveSession:
    """A session that this process holds open."""

    session: Session
    inner: str
    """The id by which the SDK's server knows it."""
    requests: int = 0
    """Requests being served, event streams included."""
    streams: int = 0
    """Event streams (GET) among them."""
    used: float = 0.0
    """When it became idle: it was opened, or its last request ended."""


class LiveSessions:
    """All of them, by id, and the idle ones of each principal."""

    def __init__(self, now: Callable[[], float]) -> None:
        """
        Args:
            now: The time, in seconds.
        """
        self._now = now
        self._all: dict[str, LiveSession] = {}
        self._counts: dict[Principal, int] = {}
        # Longest idle first.
        self._idle: dict[Principal, OrderedDict[str, LiveSession]] = {}

    def __len__(self) -> int:
        return len(self._all)

    def __contains__(self, sid: str) -> bool:
        return sid in self._all

    def get(self, sid: str) -> LiveSession | None:
        """The session with this id, if it is open here."""
        return self._all.get(sid)

    def count(self, principal: Principal) -> int:
        """How many a principal has open."""
        return self._counts.get(principal, 0)

    def add(self, live: LiveSession) -> None:
        """A session was opened; it is idle."""
        self._all[live.session.sid] = live
        self._counts[live.session.principal] = self.count(live.session.principal) + 1
        self._rest(live)

    def remove(self, live: LiveSession) -> bool:
        """It is no longer open here. Returns whether it was."""
        sid, principal = live.session.sid, live.session.principal
        if self._all.get(sid) is not live:
            return False
        del self._all[sid]
        self._wake(live)
        self._counts[principal] -= 1
        if not self._counts[principal]:
            del self._counts[principal]
        return True

    def begin(self, live: LiveSession, *, stream: bool) -> None:
        """A request of it begins."""
        self._wake(live)
        live.requests += 1
        live.streams += stream

    def end(self, live: LiveSession, *, stream: bool) -> None:
        """A request of it is over."""
        live.requests -= 1
        live.streams -= stream
        if not live.requests and self._all.get(live.session.sid) is live:
            self._rest(live)

    def _rest(self, live: LiveSession) -> None:
        live.used = self._now()
        self._idle.setdefault(live.session.principal, OrderedDict())[live.session.sid] = live

    def _wake(self, live: LiveSession) -> None:
        principal = live.session.principal
        idle = self._idle.get(principal)
        if idle is not None and idle.get(live.session.sid) is live:
            del idle[live.session.sid]
            if not idle:
                del self._idle[principal]

    def idle_of(self, principal: Principal) -> LiveSession | None:
        """The session of a principal that was idle longest; None if none of them is idle."""
        return next(iter(self._idle.get(principal, {}).values()), None)

    def idle_of_most(self) -> LiveSession | None:
        """The longest idle session of the principal with most sessions, of those that have an idle one."""
        firsts = (next(iter(idle.values())) for idle in self._idle.values())
        return max(firsts, key=lambda live: (self._counts[live.session.principal], -live.used), default=None)

    def idle_since(self, time: float) -> list[LiveSession]:
        """The sessions that have been idle since then, or longer."""
        return [live for idle in self._idle.values() for live in idle.values() if live.used <= time]

    def first_idle(self) -> float | None:
        """Since when the longest idle session of all has been idle; None if none is idle."""
        return min((next(iter(idle.values())).used for idle in self._idle.values()), default=None)
