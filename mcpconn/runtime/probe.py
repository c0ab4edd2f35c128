"""The probing of a connection's sessions: when a suspicion is looked into, and what the answers say.

A probe asks the server on the suspected session: `ping` (or `server/discover`), and then a listing if that
settles nothing. It settles nothing if no answer comes, since some servers drop a `ping`; or if it is refused
and no session of this connection has ever had it answered.

Suspicions can come with every call, probes cannot: each begins 3 s after the last one at the earliest, whatever
the session. A suspicion that comes sooner waits, and is dropped if a call is answered meanwhile.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import anyio

from mcpconn.core.decide import SUSPICION_INTERVAL, decide_probe, is_refusal, probe_limit, refused
from mcpconn.core.failures import Evidence, Failure, FailureKind
from mcpconn.core.states import Event
from mcpconn.policy import Policy
from mcpconn.runtime.clock import Clock
from mcpconn.runtime.inquiry import Inquiry, Request
from mcpconn.runtime.session import Session

HEDGE = 0.4
"""Share of the probe timeout after which a first request without an answer is joined by the second: 2 s of 5."""
UNANSWERED = (FailureKind.TIMEOUT, FailureKind.UNAVAILABLE, FailureKind.TRANSPORT_LOST)
"""Kinds of failure that say nothing of a session: no server answered."""
KEEPALIVE_PATIENCE = 3
"""Keepalive probes in a row that must be unanswered to prove that a session is gone."""

Verdict = tuple[Event, Failure]
"""The event that follows from a probe that failed, and why it did."""


class Probe:
    """Settles what is suspected of one connection's sessions, one suspicion at a time."""

    def __init__(self, policy: Policy, clock: Clock, classify: Callable[[Evidence], Failure]) -> None:
        """
        Args:
            policy: How long a probe may take.
            clock: Time.
            classify: From evidence to failure, with the user's rules.
        """
        self.answered: set[str] = set()
        """Methods that a session of this connection has answered. If a probe is refused one of these, it is proof."""
        self.under_way = False
        """A probe is asking."""
        self.due: float | None = None
        """When the suspicion that waits is looked into; None: none waits."""
        self._policy = policy
        self._clock = clock
        self._classify = classify
        self.unproven: set[str] = set()
        """Methods whose refusal ended a session although no session had ever answered them: to be tried on the next."""
        self._broken: set[str] = set()
        """Methods that a new session refused as well. Their refusal says nothing."""
        self._cause: Failure | None = None
        """What made the session suspect; None for a keepalive."""
        self._lenient = False
        """Nobody has complained: the probe is a keepalive, and silence is not yet proof."""
        self._answers = 0
        """Results on the session when its suspicion began to wait."""
        self._earliest = -math.inf
        self._ended: anyio.Event | None = None
        """Set when the suspicion is settled; None: nothing is suspected."""

    # -- when

    def suspect(self, session: Session, failure: Failure) -> bool:
        """Note that a failure makes `session` suspect.

        Returns:
            Whether a probe is to begin now. If not, one is under way, or has to wait until `due`.
        """
        if self.under_way:
            self._lenient = False
            return False
        # A refusal that names the session is the better reason, whenever it comes.
        if self._cause is None or is_refusal(failure):
            self._cause = failure
        if self.due is None:
            self._ended = self._ended or anyio.Event()
            self.due, self._answers = self._earliest, session.answers
        # The process behind it may be gone: such a suspicion does not wait for the interval.
        if probe_limit(failure) is not None:
            self.due = -math.inf
        return self.due <= self._clock.now()

    def overdue(self, session: Session) -> bool:
        """Whether the probe that had to wait is to begin now. Not if a call was answered since: that settles it."""
        if self.due is None or self._clock.now() < self.due:
            return False
        # An answer after the suspicion is as good as a probe, and costs nothing.
        if session.answers > self._answers:
            self.end()
            return False
        return True

    def begin(self, *, keepalive: bool = False) -> Failure | None:
        """A probe begins. Returns what made the session suspect; None for a keepalive."""
        self.under_way, self._lenient, self.due = True, keepalive, None
        self._ended = self._ended or anyio.Event()
        if not keepalive:
            # A rate limit, not a debounce: a server that fails every call is probed every 3 s and no more often.
            self._earliest = self._clock.now() + SUSPICION_INTERVAL
        return self._cause

    def end(self) -> None:
        """What was suspected is settled, or its session is over: whoever waits for that goes on."""
        self.under_way, self._lenient, self.due, self._cause = False, False, None, None
        ended, self._ended = self._ended, None
        if ended is not None:
            ended.set()

    def pending(self, *, deferred: bool = False) -> anyio.Event | None:
        """What is set when the suspicion is settled; None: no probe is under way.

        Args:
            deferred: A probe that has to wait itself counts, too.
        """
        return self._ended if self.under_way or deferred else None

    # -- what

    async def ask(self, session: Session, *, refreshable: Callable[[], bool], tries: int = 1) -> Verdict | None:
        """Ask the server whether it knows `session`. None: it does, or the probe was a keepalive and proves nothing.

        Args:
            session: The session.
            refreshable: Whether a refusal of credentials can be answered by renewing them.
            tries: Rounds in which the session must be refused. More than one if replicas do not share their
                sessions: the one that knows this session may be the next to be asked.
        """
        cause, verdict, decisive = self._cause, None, None
        # After an error that is a session's refusal and nothing else, after a result of the wrong shape, and after
        # nothing but errors since the last probe, an answer to `ping` is not enough: something in front of the server
        # may have given it.
        # (Not where replicas know different sessions: there the second request may just meet another one.)
        doubtful = cause is not None and (
            is_refusal(cause)
            or (cause.kind is FailureKind.PROTOCOL and cause.evidence.from_wire is True and cause.evidence.code is None)
            or session.cleared == session.answers
        )
        thorough = doubtful and tries == 1
        limit = self._policy.probe_timeout if cause is None else probe_limit(cause) or self._policy.probe_timeout
        # Each round may reach another replica. The first that knows the session ends it.
        for _ in range(tries):
            decisive = await self._inquire(session, limit=limit, thorough=thorough)
            verdict = None if decisive is None else self._judge(session, decisive, refreshable=refreshable())
            if verdict is None or verdict[1].kind is not FailureKind.SESSION_EXPIRED:
                break
        if verdict is None:
            # The session lives: what failed was the call's own matter.
            session.passed()
            if not self._lenient:
                session.cleared = session.answers
        elif self._lenient and _unanswered(session, verdict[1]) and session.unanswered + 1 < KEEPALIVE_PATIENCE:
            # A server that is merely busy, or away for a moment, gets more than one chance: nobody has complained.
            session.unanswered += 1
            return None
        elif decisive is not None and verdict[1].kind is FailureKind.SESSION_EXPIRED:
            if decisive.method not in self.answered:
                self.unproven.add(decisive.method)
            # The next session has to answer it, before a refusal of it is proof again.
            self.answered.discard(decisive.method)
        return verdict

    async def _inquire(self, session: Session, *, limit: float, thorough: bool) -> Request | None:
        """One round. Returns the request whose failure decides; None if the server knows the session."""
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
        # Beside the first, which may still be answered: some servers know `ping` and never answer it.
        second = inquiry.send(listing)
        await inquiry.wait(lambda: second.over or lives())
        if second.answered:
            self._note(second.method)
            if not first.answered:
                session.mute.add(first.method)
        if second.answered or lives():
            return None
        # Each has the whole time: a server that is slow to answer a ping is not a dead one.
        await inquiry.wait(lambda: first.over)
        if first.answered:
            return second if thorough and not second.silent else None
        return first if second.silent else second

    def _is_open(self, failure: Failure, method: str) -> bool:
        """Whether a first request that failed so leaves it to another one to decide."""
        return decide_probe(failure, known=method in self.answered, last=False) is Event.SUSPECTED

    def _judge(self, session: Session, decisive: Request, *, refreshable: bool) -> Verdict | None:
        """What follows from the failure that decides."""
        failure, method = decisive.failure, decisive.method
        assert failure is not None
        event = decide_probe(failure, refreshable=refreshable, proven=session.proven)
        if event is None:
            return None
        if method in self._broken and session.answers:
            return None
        return event, refused(failure)

    async def learn(self, session: Session) -> None:
        """Try on a new session what ended the last one although nobody had ever seen it work.

        A refusal of `tools/list` proves a session lost, and may just as well be what this server always says.
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
            elif not request.silent:
                self._broken.add(request.method)

    def _note(self, method: str) -> None:
        self.answered.add(method)
        self._broken.discard(method)


def _unanswered(session: Session, failure: Failure) -> bool:
    """Whether a probe that failed so says nothing of the session: there was no answer by the server."""
    gone = session.link is None or session.link.ended is not None
    return not gone and failure.kind in UNANSWERED
