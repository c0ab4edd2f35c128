"""How long an idle socket may be trusted: what the server promises, and what it was seen to do."""

from __future__ import annotations

import re
from collections.abc import Callable

FRESH = 0.5
"""Seconds since its last use within which a socket may carry an unsafe call. A server that closes idle sockets after
a second or more (gunicorn 2 s, uvicorn and node 5 s, nginx 75 s) is not closing this one in the very moment in which
the request is written; nobody could say whether it had been read."""
MARGIN = 1.0
"""Seconds by which a socket is given up before the server has promised to close it. undici's figure: servers count in
whole seconds, and the promise was made when the response left, not when it arrived."""
LONGEST = 60.0
"""Seconds that a socket is kept at most, whatever the server promises."""
LESSON = 300.0
"""Seconds for which it is remembered that a socket had been closed unexpectedly. A process that is killed closes its
sockets, too, and its successor may keep them longer; so a lesson has an end. Each further one lasts twice as long."""
LONGEST_LESSON = 3600.0
"""Seconds that a lesson lasts at most."""

_TIMEOUT = re.compile(r"(?:^|[,;\s])timeout\s*=\s*\"?(\d{1,9})", re.IGNORECASE)


class Lifetimes:
    """For the sockets to one server."""

    def __init__(self, standard: float, now: Callable[[], float]) -> None:
        """
        Args:
            standard: Seconds that a socket is kept if the server promises nothing.
            now: The clock, in seconds.
        """
        self._standard = standard
        self._now = now
        self._promised: float | None = None
        self._learned: float | None = None
        self._forgotten_at = 0.0
        self._lesson = LESSON

    def promise(self, header: str | None) -> None:
        """A response came with this `Keep-Alive` header (RFC 2068, 19.7.1.1), or with none."""
        found = _TIMEOUT.search(header) if header else None
        if found is None:
            self._promised = None
            return
        seconds = float(found[1])
        # Of a second or two, a margin of one leaves too little.
        self._promised = min(max(seconds - MARGIN, seconds / 2), LONGEST)

    def died(self, idle: float) -> None:
        """A socket that had been idle for so long was closed when it was used, and nothing came back.

        The server, or something in between, closes sockets no later than that.
        """
        now = self._now()
        if self._learned is not None and now < self._forgotten_at + LONGEST_LESSON:
            self._lesson = min(self._lesson * 2, LONGEST_LESSON)
        self._learned = min(idle / 2, self.limit)
        self._forgotten_at = now + self._lesson

    @property
    def limit(self) -> float:
        """Seconds since its last use after which a socket is not used again."""
        limit = self._standard if self._promised is None else self._promised
        if self._learned is not None and self._now() < self._forgotten_at:
            return min(limit, self._learned)
        return limit

    @property
    def limit_for_unsafe(self) -> float:
        """The same for a call that nobody calls safe to repeat."""
        return min(self.limit, FRESH)
