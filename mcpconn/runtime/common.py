"""What all parts of one connection have in common."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from mcpconn.core.failures import Evidence, Failure
from mcpconn.policy import Policy
from mcpconn.runtime.clock import Clock
from mcpconn.runtime.journal import Journal


@dataclass(frozen=True)
class Common:
    """Given to each part of a connection, and never changed."""

    name: str
    """What the connection is called."""
    policy: Policy
    """Its numbers."""
    classify: Callable[[Evidence], Failure]
    """From evidence to failure, with the user's rules."""
    clock: Clock
    """Time and randomness."""
    journal: Journal
    """Told of every transition, retry and call."""
