"""The numbers: timeouts, limits, backoff. Each has its source beside it. Seconds throughout."""

from __future__ import annotations

from dataclasses import dataclass, field, fields

from mcpconn.core.backoff import Backoff
from mcpconn.core.decide import MIN_ATTEMPTS, PATIENCE
from mcpconn.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Policy:
    """How patient a connection is. Immutable; use `dataclasses.replace` for a variant."""

    call_timeout: float | None = 60.0
    """A call's deadline, with waiting, reconnecting and replaying in it. None: no deadline."""
    connect_timeout: float = 20.0
    """One dial, handshake included. 20 s is gRPC's minimum connect timeout."""
    probe_timeout: float = 5.0
    """How long the probe of a suspected session may take."""
    drain_timeout: float = 5.0
    """How long closing waits for calls in flight and for children to end."""
    patience: float = PATIENCE
    """Failed dialling beyond this makes a connection `failed`."""
    min_attempts: int = MIN_ATTEMPTS
    """Dials that must have failed by then."""
    backoff: Backoff = field(default_factory=Backoff)
    """Waits between dials."""
    waiting_ceiling: float = 1.0
    """Longest wait between dials while calls wait and the server's port refuses. A refused connect costs the
    server nothing, and a caller who waits should be answered soon after the server is back."""
    cool_down: float = 30.0
    """Wait of a `failed` connection before it probes, doubling up to `cool_down_maximum`."""
    cool_down_maximum: float = 300.0
    """Longest cool-down."""
    proven_after: float = 10.0
    """A session of this age counts as proven even if nobody used it, and so ends a series of attempts."""
    max_in_flight: int = 100
    """Calls issued at once on one connection."""
    max_waiting: int = 1000
    """Calls waiting for one connection; one more is refused."""
    dials_per_origin: int = 8
    """Dials at once to one host and port, over all connections of a manager."""
    dials: int = 64
    """Dials at once of one manager."""
    replay_ratio: float = 0.2
    """Replays of unknown outcome, as a share of all calls of a manager. 20 % is Finagle's retry budget."""
    replay_reserve: float = 10.0
    """Replays there are before the first call."""
    max_message_size: int = 16 * 1024 * 1024
    """Bytes of one JSON answer, one event or one line of output. A longer one fails its call."""
    keepalive: float | None = None
    """Probe a session that nobody used for so long. None: never."""
    idle_timeout: float | None = None
    """Close a session that nobody used for so long; the next call opens another. None: never."""
    max_lifetime: float | None = None
    """Replace a session of this age, once its calls are done. None: never."""

    def __post_init__(self) -> None:
        for item in fields(self):
            value = getattr(self, item.name)
            if isinstance(value, (int, float)) and not value > 0:
                raise ConfigError(f"policy: {item.name} must be greater than zero, not {value!r}", key=item.name)
