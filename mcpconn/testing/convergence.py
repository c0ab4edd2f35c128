"""Checks that a connection detects in time that its server has forgotten the session.

The model of a connection has no clock. So the sandbox checks this promise of docs/invariants.md, in virtual time, from
what it did to the servers.
"""

from __future__ import annotations

from typing import NamedTuple

FAILING_LIMIT = 10.0
"""Seconds for which calls may fail on a session that the server has forgotten, with the default policy: a probe within
3 s, which has 5 s, and the next dial."""


class Standing(NamedTuple):
    """The state of a connection when a call begins or ends, if nothing else is wrong with its server."""

    epoch: int
    troubles: int
    """Number of times that the server was tampered with."""


class Convergence:
    """The calls to one server that failed on a forgotten session."""

    def __init__(self) -> None:
        self.troubles = 0
        """Number of times that the server was tampered with. Calls during which that happened are not counted."""
        self._forgotten = 0
        self._failing_since: float | None = None

    def forget(self, epoch: int) -> None:
        """The server forgets the session of this epoch."""
        if epoch != self._forgotten:
            self._forgotten, self._failing_since = epoch, None

    def ended(self, before: Standing | None, after: Standing | None, *, began: float, now: float) -> str | None:
        """A call has failed. Returns the complaint, if the connection should have had another session by now.

        Args:
            before: The connection's standing when the call was made; None if it was not ready, or something else was
            wrong.
            after: The same when it ended.
            began: When it was made, in seconds.
            now: When it ended.
        """
        if before is None or before != after or before.epoch != self._forgotten:
            return None
        if self._failing_since is None:
            self._failing_since = now
        if began < self._failing_since + FAILING_LIMIT:
            return None
        failing = now - self._failing_since
        return f"still ready on session {before.epoch}, which the server has forgotten, after {failing:g} s of failures"
