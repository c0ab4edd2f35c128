"""Probes of a connection's sessions: when a suspicion is probed, and what the answers mean.

A probe sends a request on the suspected session: `ping` (or `server/discover`), and then a listing if the first request
is inconclusive. It is inconclusive if it is not answered, because some servers drop a `ping`, or if it is refused and
no session of this connection has ever had it answered.

Every call can cause a suspicion, but probes are limited: each starts at the earliest 3 s after the last one, on any
session. An earlier suspicion waits, and is dropped if a call is answered in the meantime.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import anyio

from mcpconn.core.decide import SUSPICION_INTERVAL, decide_probe, is_refusal, probe_limit, refused
from mcpconn.core.failures import Delivery, Evidence, Failure, FailureKind
from mcpconn.core.states import Event
from mcpconn.policy import Policy
from mcpconn.runtime.clock import Clock
from mcpconn.runtime.inquiry import Inquiry, Request
from mcpconn.runtime.session import Session

HEDGE = 0.4
"""Share of the probe timeout after which the second request is sent if the first is not answered: 2 s of 5."""
UNANSWERED = (FailureKind.TIMEOUT, FailureKind.UNAVAILABLE, FailureKind.TRANSPORT_LOST)
"""Kinds of failure that are no evidence about a session, because no server answered."""
KEEPALIVE_PATIENCE = 3
"""Consecutive unanswered keepalive probes that prove that a session is lost."""

Refusal = tuple[str, int | None, int | None]
"""A method, and the HTTP status and JSON-RPC code with which it was refused."""
Verdict = tuple[Event, Failure]
"""The event that follows from a failed probe, and the reason."""


class Probe:
    """Resolves the suspicions about one connection's sessions, one at a time."""

    def __init__(self, policy: Policy, clock: Clock, classify: Callable[[Evidence], Failure]) -> None:
        """
        Args:
            policy: The time limit of a probe.
            clock: Time.
            classify: From evidence to failure, with the user's rules.
        """
        self.answered: set[str] = set()
        """Methods that a session of this connection has answered. If a probe with one of these is refused, that is
        proof."""
        self.under_way = False
        """Whether a probe is in progress."""
        self.due: float | None = None
        """When the deferred suspicion will be probed; None: none is deferred."""
        self._policy = policy
        self._clock = clock
        self._classify = classify
        self.unproven: set[str] = set()
        """Methods whose refusal ended a session although no session had ever answered them; they are tried on the next
        session."""
        self._broken: set[Refusal] = set()
        """How a new session refused these methods as well, so that this refusal of them is no evidence. Another one
        is: a server that always fails to list its tools still has other words for a session that it has forgotten."""
        self._cause: Failure | None = None
        """The failure that made the session suspect; None for a keepalive."""
        self._lenient = False
        """Whether the probe is a keepalive, for which silence alone is no proof."""
        self._answers = 0
        """The number of results on the session when its suspicion was deferred."""
        self._earliest = -math.inf
        self._ended: anyio.Event | None = None
        """Set when the suspicion is resolved; None: there is no suspicion."""

    # -- when

    def suspect(self, session: Session, failure: Failure) -> bool:
        """Record that a failure makes `session` suspect.

        Returns:
            Whether to start a probe now. If not, one is in progress, or it has to wait until `due`.
        """
        if self.under_way:
            self._lenient = False
            return False
        # A refusal that names the session is the better reason, even if it comes later.
        if self._cause is None or is_refusal(failure):
            self._cause = failure
        if self.due is None:
            self._ended = self._ended or anyio.Event()
            self.due, self._answers = self._earliest, session.answers
        # The server's process may have exited: such a suspicion does not wait for the interval.
        if probe_limit(failure) is not None:
            self.due = -math.inf
        return self.due <= self._clock.now()

    def overdue(self, session: Session) -> bool:
        """Whether to start the deferred probe now. It is not started if a call was answered since, which resolves the
        suspicion."""
        if self.due is None or self._clock.now() < self.due:
            return False
        # An answer after the suspicion is as conclusive as a probe, and costs nothing.
        if session.answers > self._answers:
            self.end()
            return False
        return True

    def begin(self, *, keepalive: bool = False) -> Failure | None:
        """Record the start of a probe. Returns the failure that made the session suspect; None for a keepalive."""
        self.under_way, self._lenient, self.due = True, keepalive, None
        self._ended = self._ended or anyio.Event()
        if not keepalive:
            # A rate limit, not a debounce: a server that fails every call is probed every 3 s, and not more often.
            self._earliest = self._clock.now() + SUSPICION_INTERVAL
        return self._cause

    def end(self) -> None:
        """The suspicion is resolved, or its session has ended: waiting calls proceed."""
        self.under_way, self._lenient, self.due, self._cause = False, False, None, None
        ended, self._ended = self._ended, None
        if ended is not None:
            ended.set()

    def pending(self, *, deferred: bool = False) -> anyio.Event | None:
        """The event that is set when the suspicion is resolved; None: no probe is in progress.

        Args:
            deferred: A deferred probe counts as well.
        """
        return self._ended if self.under_way or deferred else None

    # -- what

    async def ask(self, session: Session, *, refreshable: Callable[[], bool], tries: int = 1) -> Verdict | None:
        """Ask the server whether it knows `session`. None: it does, or the probe was an inconclusive keepalive.

        Args:
            session: The session.
            refreshable: Whether refused credentials can be renewed.
            tries: Rounds in which the session must be refused. More than one if replicas do not share their sessions,
                because the next round may reach the replica that knows this session.
        """
        cause, verdict, decisive, answers = self._cause, None, None, session.answers
        # An answer to `ping` is not sufficient after an error that is only a session's refusal, after a result of the
        # wrong shape, or if there were only errors since the last probe: a component in front of the server may have
        # answered it. (This does not apply if replicas know different sessions, because the second request may reach a
        # different one.)
        doubtful = cause is not None and (
            is_refusal(cause)
            or (cause.kind is FailureKind.PROTOCOL and cause.evidence.from_wire is True and cause.evidence.code is None)
            or session.cleared == session.answers
        )
        thorough = doubtful and tries == 1
        limit = self._policy.probe_timeout if cause is None else probe_limit(cause) or self._policy.probe_timeout
        # Each round may reach a different replica. The first one that knows the session ends the probe.
        for _ in range(tries):
            decisive = await self._inquire(session, limit=limit, thorough=thorough)
            verdict = None if decisive is None else self._judge(session, decisive, refreshable=refreshable())
            if verdict is None or verdict[1].kind is not FailureKind.SESSION_EXPIRED:
                break
        # A call was answered after the probe began. That is newer evidence than a probe that was cut or timed out.
        if verdict is not None and session.answers > answers and _inconclusive(session, verdict[1]):
            verdict = None
        if verdict is None:
            # The session works, so the failure concerned the call only.
            session.passed()
            if not self._lenient:
                session.cleared = session.answers
        elif self._lenient and _unanswered(session, verdict[1]) and session.unanswered + 1 < KEEPALIVE_PATIENCE:
            # There is no suspicion, so a server that is merely busy or briefly unreachable gets more than one chance.
            session.unanswered += 1
            return None
        elif decisive is not None and verdict[1].kind is FailureKind.SESSION_EXPIRED:
            if decisive.method not in self.answered:
                self.unproven.add(decisive.method)
            # The next session has to answer the method before its refusal is proof again.
            self.answered.discard(decisive.method)
        return verdict

    async def _inquire(self, session: Session, *, limit: float, thorough: bool) -> Request | None:
        """Run one round. Returns the request whose failure decides; None if the server knows the session."""
        assert session.link is not None
        methods = [method for method in session.link.probes if method not in session.mute]
        async with anyio.create_task_group() as group:
            # One deadline for all requests of a round, so that a round cannot take twice the probe timeout.
            inquiry = Inquiry(session.link, group, self._classify, until=anyio.current_time() + limit)
            first = inquiry.send(methods[0])
            second = None if len(methods) == 1 else methods[1]
            decisive = await self._compare(inquiry, first, second, session, limit * HEDGE, thorough=thorough)
            group.cancel_scope.cancel()
        return decisive

    async def _compare(
        self, inquiry: Inquiry, first: Request, listing: str | None, session: Session, hedge: float, *, thorough: bool
    ) -> Request | None:
        def lives() -> bool:
            return first.answered and not thorough

        with anyio.move_on_after(hedge if listing is not None else math.inf):
            await inquiry.wait(lambda: first.over)
        if first.answered:
            self._note(first.method)
        if lives():
            return None
        if listing is None or (first.failure is not None and not self._is_open(first.failure, first.method)):
            return None if first.answered else first
        # Sent concurrently with the first, which may still be answered: some servers accept `ping` but never answer it.
        second = inquiry.send(listing)
        await inquiry.wait(lambda: second.over or lives())
        if second.answered:
            self._note(second.method)
            if not first.answered:
                session.mute.add(first.method)
        if second.answered or lives():
            return None
        # Each request has the whole time, because a server that answers a ping slowly is not dead.
        await inquiry.wait(lambda: first.over)
        if first.answered:
            return second if thorough and not second.silent else None
        return first if second.silent else second

    def _is_open(self, failure: Failure, method: str) -> bool:
        """Whether a first request with this failure is inconclusive, so that another one decides."""
        return decide_probe(failure, known=method in self.answered, last=False) is Event.SUSPECTED

    def _judge(self, session: Session, decisive: Request, *, refreshable: bool) -> Verdict | None:
        """The consequence of the deciding failure."""
        failure = decisive.failure
        assert failure is not None
        event = decide_probe(failure, refreshable=refreshable, proven=session.proven)
        if event is None:
            return None
        if session.answers and failure.kind is not FailureKind.SESSION_EXPIRED and _refusal(decisive) in self._broken:
            return None
        return event, refused(failure)

    async def learn(self, session: Session) -> None:
        """Try on a new session the method whose refusal ended the last one, although it had never been answered.

        A refusal of `tools/list` may prove that a session is lost, but it may also be what this server always answers.
        """
        assert session.link is not None
        methods, self.unproven = self.unproven, set()
        async with anyio.create_task_group() as group:
            until = anyio.current_time() + self._policy.probe_timeout
            inquiry = Inquiry(session.link, group, self._classify, until=until)
            requests = [inquiry.send(method) for method in methods]
            await inquiry.wait(lambda: all(request.over for request in requests))
        for request in requests:
            if request.answered:
                self._note(request.method)
            elif _is_the_methods_own(request):
                self._broken.add(_refusal(request))

    def _note(self, method: str) -> None:
        self.answered.add(method)
        self._broken = {each for each in self._broken if each[0] != method}


def _refusal(request: Request) -> Refusal:
    assert request.failure is not None
    evidence = request.failure.evidence
    return request.method, evidence.http_status, evidence.code


def _is_the_methods_own(request: Request) -> bool:
    """Whether the failure of a request on a new session may be what the server always answers to this method.

    It is not if the server did not answer (it may have been restarting), or if it does not know the new session either
    (it may have been restarted again). The method would be ignored from then on, and with it every lost session.
    """
    failure = request.failure
    assert failure is not None
    answered = (failure.evidence.http_status, failure.evidence.code) != (None, None)
    return answered and not request.silent and failure.kind is not FailureKind.SESSION_EXPIRED


def _inconclusive(session: Session, failure: Failure) -> bool:
    """Whether a probe with this failure says less than an answered call. A refused connection is the latest news."""
    return _unanswered(session, failure) and failure.delivery is not Delivery.NOT_SENT


def _unanswered(session: Session, failure: Failure) -> bool:
    """Whether a probe with this failure is no evidence about the session, because the server did not answer."""
    gone = session.link is None or session.link.ended is not None
    return not gone and failure.kind in UNANSWERED
