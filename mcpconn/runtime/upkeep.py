"""Maintenance of a ready session without calls: keepalive, idle timeout, maximum lifetime."""

from __future__ import annotations

import math
from enum import Enum
from random import Random

from mcpconn.policy import Policy
from mcpconn.runtime.protocols import Link
from mcpconn.runtime.session import Session

KEEPALIVE = 60.0
"""Seconds. Load balancers and serverless platforms drop idle connections after one to ten minutes."""
KEEPALIVE_JITTER = 0.2
"""The share by which each interval is randomly longer or shorter."""
KEEPALIVES = 20.0
"""Keepalive probes a second of all connections of one manager: with more than 1,200 connections, each is probed less
often. Ten thousand probes a minute took 40 % of one core."""


class Task(Enum):
    """What is due."""

    REPLACE = "the session has reached its maximum lifetime"
    REST = "it was not used for the idle timeout"
    PROBE = "it was not used for the keepalive interval"


def keepalive(link: Link, policy: Policy, rng: Random, connections: int) -> float | None:
    """Seconds without use after which a session is probed; None: never.

    Args:
        link: The session's. With `auto`, only sessions that the server can forget unnoticed are probed: those without a
            child that exits or a stream that carries all answers.
        policy: Its `keepalive` decides, unless it is `auto`.
        rng: The source of jitter, so that the sessions of a program are not all probed at once.
        connections: How many the manager has. With `auto`, many are probed less often.
    """
    if policy.keepalive != "auto":
        return policy.keepalive
    if not link.forgettable:
        return None
    return max(KEEPALIVE, connections / KEEPALIVES) * (1 + KEEPALIVE_JITTER * (2 * rng.random() - 1))


def alarm(session: Session, policy: Policy, now: float) -> float:
    """When to check again. Infinity if there is nothing to check.

    A session in use cannot become idle before its calls end. That time is unknown, so the session is checked again one
    interval from now, which is cheaper than notifying the supervisor of the end of every call.
    """
    if session.in_flight:
        alarms = [now + limit for limit in (session.keepalive, policy.idle_timeout) if limit is not None]
    else:
        alarms = [_rests_at(session, policy), _probed_at(session)]
    alarms.append(_replaced_at(session, policy))
    return min(alarms)


def due(session: Session, policy: Policy, now: float) -> Task | None:
    """What is due now. A session in use is neither probed nor closed."""
    if now >= _replaced_at(session, policy):
        return Task.REPLACE
    if session.in_flight:
        return None
    if now >= _rests_at(session, policy):
        return Task.REST
    if now >= _probed_at(session):
        return Task.PROBE
    return None


# The alarm and this check must compute the same sums: if they differed by a rounding error, nothing would be due when
# the alarm fires, and it would fire again at once.


def _replaced_at(session: Session, policy: Policy) -> float:
    return math.inf if policy.max_lifetime is None else session.established_at + policy.max_lifetime


def _rests_at(session: Session, policy: Policy) -> float:
    return math.inf if policy.idle_timeout is None else session.last_used + policy.idle_timeout


def _probed_at(session: Session) -> float:
    quiet_since = max(session.last_used, session.probed_at)
    return math.inf if session.keepalive is None else quiet_since + session.keepalive
