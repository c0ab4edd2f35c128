"""Timeouts, limits and backoff, each with its source. All times are in seconds."""

from __future__ import annotations

import sys
from dataclasses import field
from typing import Annotated, Literal

from pydantic import AfterValidator

from mcpconn.core.backoff import Backoff
from mcpconn.core.decide import MIN_ATTEMPTS, PATIENCE
from mcpconn.validate import Amount, Count, Seconds, settings


def _usable(backoff: Backoff) -> Backoff:
    numbers = (backoff.initial, backoff.factor, backoff.maximum, backoff.jitter)
    # An integer that is too large for a float fails in the first multiplication.
    finite = all(abs(number) <= sys.float_info.max for number in numbers)
    usable = backoff.initial > 0 and backoff.factor >= 1 and backoff.maximum > 0 and 0 <= backoff.jitter < 1
    if not finite or not usable:
        raise ValueError("needs initial and maximum above 0, a factor of 1 or more, and a jitter from 0 to below 1")
    return backoff


@settings
class Policy:
    """Timeouts, limits and backoff of connections. Immutable; use `dataclasses.replace` for a variant.

    Raises:
        ConfigError: a value is invalid; `key` says which.
    """

    call_timeout: Seconds | None = 60.0
    """A call's deadline, including waiting, reconnecting and replaying. None: no deadline."""
    connect_timeout: Seconds = 20.0
    """One dial, including the handshake. 20 s is gRPC's minimum connect timeout."""
    start_timeout: Seconds = 120.0
    """The total for all starts of a command line that has not yet started successfully, because npx, uvx and docker may
    download for minutes. After the first success a start has `connect_timeout`, and it never has less."""
    probe_timeout: Seconds = 5.0
    """How long the probe of a suspected session may take."""
    drain_timeout: Seconds = 5.0
    """How long closing waits for calls in flight. Children then have 3 s to exit, on their own or by signals."""
    patience: Seconds = PATIENCE
    """Dialling that fails for longer makes a connection `failed`."""
    min_attempts: Count = MIN_ATTEMPTS
    """The minimum number of failed dials before that."""
    backoff: Annotated[Backoff, AfterValidator(_usable)] = field(default_factory=Backoff)
    """Waits between dials."""
    waiting_ceiling: Seconds = 1.0
    """Longest wait between dials while calls wait and the server's port refuses. A refused connect costs the server
    nothing, and waiting callers should be answered soon after the server is back."""
    cool_down: Seconds = 30.0
    """Wait of a `failed` connection before it dials again, doubling up to `cool_down_maximum`."""
    cool_down_maximum: Seconds = 300.0
    """Longest cool-down."""
    proven_after: Seconds = 10.0
    """A session of this age counts as proven even if it was not used, which resets attempts and backoff."""
    max_in_flight: Count = 100
    """Calls issued at once on one connection."""
    max_waiting: Count = 1000
    """Calls waiting for one connection; further calls are refused."""
    dials_per_origin: Count = 8
    """Concurrent dials to one host and port, by all connections of a manager."""
    dials: Count = 64
    """Concurrent dials of one manager."""
    replay_ratio: Amount = 0.2
    """Replays of unknown outcome, as a share of all calls of a manager. 20 % is Finagle's retry budget."""
    replay_reserve: Amount = 10.0
    """Replays that are available before the first call."""
    max_message_size: Count = 16 * 1024 * 1024
    """Bytes of one JSON answer, one event or one line of output. A longer one fails its call."""
    max_message_values: Count = 500_000
    """JSON values of one answer, event or line of output; a 25th of it in places that the protocol describes (items of
    a list, blocks of content). Validating that many takes about 0.3 s, during which nothing else in the program
    runs."""
    keepalive: Seconds | Literal["auto"] | None = "auto"
    """Probe a session that was not used for this long. None: never. `auto`: after about 60 s if it is a session over
    HTTP that the server can forget unnoticed (legacy era, with a session id), and otherwise never; with more than 1,200
    connections in a manager less often, 20 a second in all."""
    idle_timeout: Seconds | None = None
    """Close a session that was not used for this long; the next call opens another. None: never."""
    max_lifetime: Seconds | None = None
    """Replace a session of this age; its calls finish first. None: never."""
