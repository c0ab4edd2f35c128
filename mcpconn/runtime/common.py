"""What all parts of one connection share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from mcpconn.core.failures import Evidence, Failure
from mcpconn.policy import Policy
from mcpconn.runtime.clock import Clock
from mcpconn.runtime.journal import Journal


@dataclass(frozen=True)
class Common:
    """Passed to each part of a connection, and never changed."""

    name: str
    """Name of the connection."""
    policy: Policy
    """Timeouts and limits."""
    classify: Callable[[Evidence], Failure]
    """From evidence to failure, with the user's rules."""
    clock: Clock
    """Time and randomness."""
    journal: Journal
    """Receives every transition, retry and call."""
