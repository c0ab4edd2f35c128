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
"""Sessions in a row that may be forgotten young before dialling slows down. One is a restart, two are a
restart met by two calls; three are a pattern."""


class Series(NamedTuple):
    """Dials one after another, until one succeeds or the connection gives up."""

    began: float
    """What patience is measured from: the loss of a session, or the first dial."""
    half_open: bool = False
    """The connection was `failed`, and one dial looks whether the server is back. If it fails, there is no second."""


class DialSchedule:
    """The rhythm of one connection's dials."""

    def __init__(self, policy: Policy, clock: Clock) -> None:
        self._policy = policy
        self._clock = clock
        self.attempts = 0
        """Dials that failed in a row; a session that nobody could use counts as one."""
        self.short_lives = 0
        """Sessions in a row that the server forgot young."""
        self.useless_sessions = 0
        """Sessions in a row on which calls were made and none succeeded."""
        self.useless_since = 0.0
        """When the first of them was lost."""
        self.cool_downs = 0
        """Times the connection failed in a row."""
        self.series = Series(0.0)
        """The present dials, or the last ones."""
        self.away = False
        """A dial has failed since the last session: other connections may wait for the same server to return."""
        self.dialled = 0.0
        """When the last dial failed."""
        self.floor: float | None = None
        """Seconds the server asked for when it refused the lost session."""
        self.due: float | None = None
        """When the next dial or probe is due; None: now, or not at all."""

    def begin(self, *, half_open: bool = False) -> None:
        """A series of dials begins.

        Args:
            half_open: It is one dial, after a cool-down.
        """
        self.series = Series(self._clock.now(), half_open)

    def reset(self) -> None:
        """Forget everything that failed: the next dial is made at once, with all patience."""
        self.short_lives = self.useless_sessions = self.cool_downs = 0
        self._dial_now(half_open=False)

    def end_cool_down(self) -> None:
        """The cool-down is over: one dial is made at once. The next cool-down will be longer if it fails."""
        self._dial_now(half_open=True)

    def _dial_now(self, *, half_open: bool) -> None:
        self.attempts = 0
        self.due = self.floor = None
        self.begin(half_open=half_open)

    def dial_failed(self) -> None:
        """Count a dial that failed."""
        self.attempts += 1
        self.away = True

    def established(self) -> bool:
        """A dial succeeded. Whether others had failed since the last session."""
        away, self.away = self.away, False
        return away

    def lost(self, failure: Failure, *, proven: bool, age: float, served: bool = False, tried: bool = False) -> Failure:
        """A session was lost. Returns the failure, with what the pattern of losses looks like.

        Attempts are forgotten if the session was proven, not because its handshake succeeded: a server that
        accepts and drops must not be hammered. Nor is one that answers probes, and no calls.

        Args:
            failure: Why.
            proven: A call or a probe was answered on it.
            age: Seconds that it lived.
            served: A call was answered on it.
            tried: A call failed on it in a way that is not plainly the call's own.
        """
        now = self._clock.now()
        # A session that lived long was of use, whether or not anybody called.
        young = age < self._policy.proven_after
        # Probes do not count here: a server that answers `ping` and refuses every call is of no use.
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
        # Forgotten young, several times in a row, is what replicas without shared sessions look like from outside.
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
        """Whether the next session is dialled (`lost`), or it is time to give up. To be asked after `lost`."""
        return decide_loss(
            failure,
            useless=self.useless_sessions,
            elapsed=self._clock.now() - self.useless_since,
            patience=self._policy.patience,
            min_attempts=self._policy.min_attempts,
        )

    @property
    def replicas_suspected(self) -> bool:
        """Whether sessions are forgotten as replicas behind a balancer without stickiness forget them."""
        return self.short_lives > FREE_SHORT_LIVES

    def weaken(self, failure: Failure) -> Failure:
        """In that pattern a refusal proves nothing: one replica does not know the session, another may."""
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
        """Set `due` for the next dial, once for each attempt. A half-open one has no delay: that was the cool-down.

        Args:
            floor: Seconds the server asked for (Retry-After).
        """
        if self.due is not None or self.series.half_open:
            return
        # The first reconnect has no delay: an expired session is answered at once. Only patterns and failures slow
        # down.
        attempt = max(self.attempts, self.short_lives - FREE_SHORT_LIVES)
        delay = self._policy.backoff.delay(attempt, self._clock.rng, floor=floor or self.floor)
        # The server's Retry-After counts once; the next delay is the backoff's own.
        self.floor = None
        self.dialled = self._clock.now()
        self.due = self.dialled + delay if delay > 0 else None

    def due_for_waiters(self, failure: Failure | None, *, waiting: bool) -> float:
        """`due`, or earlier where a call waits for a server whose port refuses."""
        assert self.due is not None
        if not (waiting and _refused(failure)):
            return self.due
        # Jittered, so that a thousand clients of a restarted server do not come back in the same moment.
        jitter = 1 + self._policy.backoff.jitter * (2 * self._clock.rng.random() - 1)
        self.due = min(self.due, self.dialled + self._policy.waiting_ceiling * jitter)
        return self.due

    def server_returned(self, failure: Failure | None) -> bool:
        """The port that refused is open again, another connection has found. Whether that changes `due`: to now.

        A port that refuses is the one trouble that connections to the same server have in common, and cannot
        have one by one: any other may be this one's own, and its backoff stays what it is.
        """
        if self.due is None or not _refused(failure):
            return False
        self.due = min(self.due, self._clock.now())
        return True

    def cool_down(self, *, forever: bool, floor: float | None = None) -> None:
        """The connection failed: set `due` for its next probe, or leave it to a person.

        Args:
            forever: Only a person can help.
            floor: Seconds that the server asked for (Retry-After): not before that.
        """
        if forever:
            self.due = None
            return
        policy = self._policy
        # The exponent is capped because 2 ** 10,000 is a number that takes time to make.
        base = min(policy.cool_down_maximum, policy.cool_down * 2 ** min(self.cool_downs, 16))
        jitter = 1 + policy.backoff.jitter * (2 * self._clock.rng.random() - 1)
        self.cool_downs += 1
        self.due = self._clock.now() + max(base * jitter, floor or 0.0)


def _refused(failure: Failure | None) -> bool:
    """Whether nobody listened, or nobody could be reached, and no wait was asked for."""
    return (
        failure is not None
        and failure.kind is FailureKind.UNAVAILABLE
        and failure.delivery is Delivery.NOT_SENT
        and failure.retry_after is None
    )
