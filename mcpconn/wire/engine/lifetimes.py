"""How long an idle socket may be trusted, based on the server's promise and its observed behaviour."""

from __future__ import annotations

import re
from collections.abc import Callable

FRESH = 0.5
"""Seconds since its last use within which a socket may carry an unsafe call. A server that closes idle sockets after
a second or more (gunicorn 2 s, uvicorn and node 5 s, nginx 75 s) is not closing this one at the moment at which the
request is written, when it would be unknown whether the request was read."""
MARGIN = 1.0
"""Seconds by which a socket is given up before the promised time. undici's value: servers count whole seconds, and from
the sending of the response, not from its arrival."""
LONGEST = 60.0
"""Maximum seconds that a socket is kept, regardless of the server's promise."""
LESSON = 300.0
"""Seconds for which an unexpectedly closed socket is remembered. A killed process also closes its sockets, and its
successor may keep them longer, so this information expires. Each repetition doubles the time."""
LONGEST_LESSON = 3600.0
"""Maximum of that time in seconds."""

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
        # If the promise is a second or two, a margin of one second leaves too little.
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
        """The same for a call that is not declared safe to repeat."""
        return min(self.limit, FRESH)
