"""When to dial: attempts, backoff, cool-down."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

from mcpconn.core.decide import decide_loss
from mcpconn.core.failures import Delivery, Failure, FailureKind
from mcpconn.core.states import Event
from mcpconn.policy import Policy
from mcpconn.runtime.clock import Clock

FREE_SHORT_LIVES = 2
"""Consecutive young sessions that may be forgotten before dialling slows down. One is a restart, two are a restart seen
by two calls; three are a pattern."""


class Series(NamedTuple):
    """A series of dials, until one succeeds or the connection gives up."""

    began: float
    """The start of the series, from which patience is measured: the loss of a session, or the first dial."""
    half_open: bool = False
    """The connection was `failed`, and a single dial checks whether the server is back. If it fails, there is no second
    one."""


class DialSchedule:
    """The timing of one connection's dials."""

    def __init__(self, policy: Policy, clock: Clock) -> None:
        self._policy = policy
        self._clock = clock
        self.attempts = 0
        """Consecutive failed dials; an unusable session counts as one."""
        self.short_lives = 0
        """Consecutive sessions that the server forgot young."""
        self.useless_sessions = 0
        """Consecutive sessions on which calls were made but none succeeded."""
        self.useless_since = 0.0
        """When the first of these was lost."""
        self.cool_downs = 0
        """How many times in a row the connection has failed."""
        self.series = Series(0.0)
        """The current series of dials, or the last one."""
        self.away = False
        """Whether a dial has failed since the last session, so that other connections may be waiting for the same
        server."""
        self.dialled = 0.0
        """When the last dial failed."""
        self.floor: float | None = None
        """Seconds that the server asked for when it refused the lost session."""
        self.due: float | None = None
        """When the next dial is due; None: now, or none is scheduled."""

    def begin(self, *, half_open: bool = False) -> None:
        """Start a series of dials.

        Args:
            half_open: The series is a single dial, after a cool-down.
        """
        self.series = Series(self._clock.now(), half_open)

    def reset(self) -> None:
        """Reset all failures: the next dial is made at once, with full patience."""
        self.short_lives = self.useless_sessions = self.cool_downs = 0
        self._dial_now(half_open=False)

    def end_cool_down(self) -> None:
        """The cool-down is over: a single dial is made at once. If it fails, the next cool-down is longer."""
        self._dial_now(half_open=True)

    def _dial_now(self, *, half_open: bool) -> None:
        self.attempts = 0
        self.due = self.floor = None
        self.begin(half_open=half_open)

    def dial_failed(self) -> None:
        """Count a failed dial."""
        self.attempts += 1
        self.away = True

    def established(self) -> bool:
        """Record a successful dial. Returns whether others had failed since the last session."""
        away, self.away = self.away, False
        return away

    def lost(self, failure: Failure, *, proven: bool, age: float, served: bool = False, tried: bool = False) -> Failure:
        """Record a lost session. Returns the failure, with the likely cause if the losses form a pattern.

        Attempts are reset only if the session was proven, not because its handshake succeeded: a server that accepts
        and drops sessions must not be flooded with dials, nor one that answers probes but no calls.

        Args:
            failure: The reason.
            proven: A call or a probe was answered on it.
            age: Seconds that the session lasted.
            served: A call was answered on it.
            tried: A call failed on it in a way that does not clearly concern only the call.
        """
        now = self._clock.now()
        # A session that lasted long counts as useful even if no calls were made.
        young = age < self._policy.proven_after
        # Probes do not count here: a server that answers `ping` but refuses every call is useless.
        useless = tried and not served
        if served:
            self.useless_sessions = 0
        elif useless:
            self.useless_since = self.useless_since if self.useless_sessions else now
            self.useless_sessions += 1
        if not useless and (served or proven or not young):
            self.attempts = 0
            self.cool_downs = 0
        else:
            self.attempts += 1
        # Several consecutive sessions that are forgotten young indicate replicas without shared sessions.
        forgotten = failure.kind is FailureKind.SESSION_EXPIRED and young
        self.short_lives = self.short_lives + 1 if forgotten else 0
        # Patience is measured from the loss, not from the first dial after it.
        self.begin()
        self.due, self.floor = None, failure.retry_after
        if self.useless_sessions > 1:
            pattern = (
                f"the server accepted {self.useless_sessions} sessions in a row, and no call succeeded on any of them"
            )
            failure = replace(failure, summary=f"{failure.summary}; {pattern}")
        elif self.attempts > 1 and not self.replicas_suspected:
            pattern = f"the server accepted {self.attempts} sessions in a row and dropped each before it could be used"
            failure = replace(failure, summary=f"{failure.summary}; {pattern}")
        return self._with_replica_hint(failure) if self.replicas_suspected else failure

    def after_loss(self, failure: Failure) -> Event:
        """Whether to dial the next session (`lost`) or to give up. Call it after `lost`."""
        return decide_loss(
            failure,
            useless=self.useless_sessions,
            elapsed=self._clock.now() - self.useless_since,
            patience=self._policy.patience,
            min_attempts=self._policy.min_attempts,
        )

    @property
    def replicas_suspected(self) -> bool:
        """Whether sessions are forgotten in the way typical of replicas behind a load balancer without sticky
        sessions."""
        return self.short_lives > FREE_SHORT_LIVES

    def weaken(self, failure: Failure) -> Failure:
        """In that case a refusal proves nothing: one replica does not know the session, but another may."""
        if self.replicas_suspected and failure.kind is FailureKind.SESSION_EXPIRED and failure.proof:
            return replace(self._with_replica_hint(failure), proof=False)
        return failure

    def _with_replica_hint(self, failure: Failure) -> Failure:
        pattern = (
            f"{self.short_lives} sessions in a row were forgotten within {self._policy.proven_after:g} s: this "
            "looks like several replicas behind a balancer without sticky sessions"
        )
        if failure.kind is not FailureKind.SESSION_EXPIRED or pattern in failure.summary:
            return failure
        return replace(failure, summary=f"{failure.summary}; {pattern}")

    def set_due(self, floor: float | None = None) -> None:
        """Set `due` for the next dial, once for each attempt. A half-open dial has no delay, because the cool-down was
        the delay.

        Args:
            floor: Seconds that the server asked for (Retry-After).
        """
        if self.due is not None or self.series.half_open:
            return
        # The first reconnect has no delay, so that an expired session is replaced at once. Only patterns and failures
        # cause a delay.
        attempt = max(self.attempts, self.short_lives - FREE_SHORT_LIVES)
        delay = self._policy.backoff.delay(attempt, self._clock.rng, floor=floor or self.floor)
        # The server's Retry-After applies once; the next delay is that of the backoff.
        self.floor = None
        self.dialled = self._clock.now()
        self.due = self.dialled + delay if delay > 0 else None

    def due_for_waiters(self, failure: Failure | None, *, waiting: bool) -> float:
        """`due`, or earlier if a call waits for a server whose port refuses connections."""
        assert self.due is not None
        if not (waiting and _refused(failure)):
            return self.due
        # With jitter, so that a thousand clients of a restarted server do not return at the same moment.
        jitter = 1 + self._policy.backoff.jitter * (2 * self._clock.rng.random() - 1)
        self.due = min(self.due, self.dialled + self._policy.waiting_ceiling * jitter)
        return self.due

    def server_returned(self, failure: Failure | None) -> bool:
        """Another connection has found that the refusing port is open again. Sets `due` to now; returns whether that
        changed it.

        A refusing port always affects all connections to the same server. Any other failure may concern only this
        connection, so its backoff is not changed.
        """
        if self.due is None or not _refused(failure):
            return False
        self.due = min(self.due, self._clock.now())
        return True

    def cool_down(self, *, forever: bool, floor: float | None = None) -> None:
        """The connection failed: set `due` for its next dial, or leave it to a person.

        Args:
            forever: Only a person can help.
            floor: Minimum seconds: what the server asked for (Retry-After).
        """
        if forever:
            self.due = None
            return
        policy = self._policy
        # The exponent is capped because computing 2 ** 10,000 takes time.
        base = min(policy.cool_down_maximum, policy.cool_down * 2 ** min(self.cool_downs, 16))
        jitter = 1 + policy.backoff.jitter * (2 * self._clock.rng.random() - 1)
        self.cool_downs += 1
        self.due = self._clock.now() + max(base * jitter, floor or 0.0)


def _refused(failure: Failure | None) -> bool:
    """Whether the port refused, or the server was unreachable, and the server asked for no wait."""
    return (
        failure is not None
        and failure.kind is FailureKind.UNAVAILABLE
        and failure.delivery is Delivery.NOT_SENT
        and failure.retry_after is None
    )
