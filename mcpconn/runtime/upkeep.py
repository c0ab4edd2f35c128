"""What a ready session needs while nobody asks: keepalive, idle timeout, maximum lifetime."""

from __future__ import annotations

import math
from enum import Enum

from mcpconn.policy import Policy
from mcpconn.runtime.session import Session


class Task(Enum):
    """What is due."""

    REPLACE = "the session has reached its maximum lifetime"
    REST = "nobody used it for the idle timeout"
    PROBE = "nobody used it for the keepalive interval"


def alarm(session: Session, policy: Policy, now: float) -> float:
    """When to look again. Infinity where nothing is to be kept up.

    A session in use cannot become idle before its calls end; when they will is not known, so it is looked at
    again one interval from now. That is cheaper than telling the supervisor of the end of every call.
    """
    quiet_since = now if session.in_flight else session.last_used
    alarms = [quiet_since + limit for limit in (policy.keepalive, policy.idle_timeout) if limit is not None]
    if policy.max_lifetime is not None:
        alarms.append(session.established_at + policy.max_lifetime)
    return min(alarms, default=math.inf)


def due(session: Session, policy: Policy, now: float) -> Task | None:
    """What is due now. A session in use is neither probed nor put to rest."""
    if policy.max_lifetime is not None and now >= session.established_at + policy.max_lifetime:
        return Task.REPLACE
    if session.in_flight:
        return None
    quiet = now - session.last_used
    if policy.idle_timeout is not None and quiet >= policy.idle_timeout:
        return Task.REST
    if policy.keepalive is not None and quiet >= policy.keepalive:
        return Task.PROBE
    return None
