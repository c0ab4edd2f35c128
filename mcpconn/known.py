"""A connection's information about itself, for programs, operators and the repr."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from mcpconn.config import ServerConfig
from mcpconn.core.failures import Failure
from mcpconn.core.states import State
from mcpconn.redact.redactor import Redactor
from mcpconn.runtime.journal import Journal
from mcpconn.runtime.lifecycle import Lifecycle
from mcpconn.status import ConnectionStatus, connection_status
from mcpconn.wire.dial import Dialer

if TYPE_CHECKING:
    from mcpconn.auth.request_auth import RequestAuth


class Known:
    """The state of a connection."""

    name: str
    """The name in logs and errors."""
    config: ServerConfig
    """Its configuration."""
    journal: Journal
    """The record of its events."""
    _lifecycle: Lifecycle
    _dialer: Dialer
    _request_auth: RequestAuth | None
    _redact: Redactor
    _calls_made: int

    @property
    def state(self) -> State:
        """The connection's state."""
        return self._lifecycle.state

    @property
    def epoch(self) -> int:
        """Number of the current session; 0 before the first."""
        return self._lifecycle.epoch

    @property
    def last_failure(self) -> Failure | None:
        """The last failure that had consequences for the connection."""
        return self._lifecycle.last_failure

    @property
    def progress(self) -> str | None:
        """The progress of a child that is being started: "starting, 12 s", with its last line on stderr."""
        return self._dialer.progress

    @property
    def stderr(self) -> Sequence[str]:
        """The last lines that the server's child process wrote to its standard error, without secrets: those of the
        current child, or of the last one. Empty for a server with a URL."""
        return self._dialer.stderr

    def status(self) -> ConnectionStatus:
        """All information for operators, as plain data."""
        return connection_status(self._lifecycle, self.journal, self.config, self._request_auth, self._dialer)

    @property
    def redact(self) -> Redactor:
        """Replaces this connection's secrets in a text, including those that it learned at run time."""
        return self._redact

    def usage(self) -> tuple[int, bool, float | None]:
        """How many calls the host has made, whether any is in flight or waiting, and the latest time at which the last
        one can have ended, on the event loop's clock; None if that is unknown. The catalogue's own listings do not
        count."""
        gate, session = self._lifecycle.gate, self._lifecycle.session
        # If the session was replaced after the last call, the new session was established after that call ended.
        used = session.last_used if session is not None else None
        return self._calls_made, gate.in_flight + gate.waiting > 0, used

    def __repr__(self) -> str:
        gate = self._lifecycle.gate
        return (
            f"<Connection {self.name!r} {self.state.value} epoch={self.epoch} "
            f"in_flight={gate.in_flight} waiting={gate.waiting}>"
        )
