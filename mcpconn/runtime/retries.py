"""Decides what follows from a failed attempt: whether to retry the call, and what its caller sees otherwise."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace

import anyio

from mcpconn.core.attempt import Attempt
from mcpconn.core.backoff import ReplayBudget
from mcpconn.core.decide import confirmed, is_lost_session, is_plain, is_refusal, may_replay
from mcpconn.core.failures import Delivery, Evidence, Failure, FailureKind
from mcpconn.core.seen import detach
from mcpconn.errors import CallFailed, CallTimeout, InvalidResult, unanswered
from mcpconn.runtime.call import SPOKEN, Call, Safe
from mcpconn.runtime.common import Common
from mcpconn.runtime.journal import Replay
from mcpconn.runtime.lifecycle import Lifecycle
from mcpconn.runtime.session import Session


class Retries:
    """Judges the failed attempts of one connection's calls."""

    def __init__(
        self, common: Common, lifecycle: Lifecycle, *, budget: ReplayBudget, progress: Callable[[], str | None]
    ) -> None:
        """
        Args:
            common: What all parts of the connection share.
            lifecycle: Receives failures, and reports what happened to their sessions.
            budget: The budget of retries after an unknown outcome.
            progress: The progress of a server that is being started; None if none is.
        """
        self._common = common
        self._lifecycle = lifecycle
        self._budget = budget
        self._progress = progress

    async def consider(self, call: Call, error: Exception, safe: Safe) -> None:
        """Return when the call may be retried; otherwise raise the caller's error."""
        session, attempt = call.session, call.attempt
        assert session is not None
        assert session.link is not None
        assert attempt is not None
        if attempt.has_result:
            # There is an answer, but it does not match its tool's schema.
            raise error
        if (words := session.link.misfit(error, attempt)) is not None:
            failure = await self._misfitting(call, session, words)
        else:
            failure = await self._failed(call, session, attempt, error)
        # Progress, or an earlier request of the same attempt, shows that the tool may have started. A later refusal
        # does not change that.
        progressed = attempt.progressed or attempt.earlier > 0
        if progressed and failure.delivery is not Delivery.UNKNOWN:
            failure = call.failure = replace(failure, delivery=Delivery.UNKNOWN)
        if failure.delivery is Delivery.UNKNOWN:
            call.uncertain = failure
        # Evaluated last and only if needed, because it may list the server's tools.
        repeatable = failure.delivery is Delivery.UNKNOWN and call.replays == 0 and await safe()
        if repeatable:
            call.safe_on = self._lifecycle.epoch
        allowed = may_replay(
            failure,
            safe=repeatable,
            replays=call.replays,
            lost=session.lost is not None,
            refreshed=self._lifecycle.replaced(session),
            budget=self._budget.balance,
        )
        if not allowed:
            raise self.unanswered(call, failure) from error
        pause = self._pause(call, failure, session)
        # If the pause would outlast the deadline, the caller gets its error now instead of after the pause.
        if pause and self._common.clock.now() + pause >= call.deadline:
            raise self.unanswered(call, failure) from error
        if failure.delivery is Delivery.NOT_SENT:
            call.resent += 1
        else:
            call.replays += 1
            if failure.delivery is Delivery.UNKNOWN:
                self._budget.withdraw()
        # Recorded in the call's own context, so that telemetry finds its span.
        self._common.journal.add(Replay(self._lifecycle.name, call.method, session.epoch, failure, call.attempts))
        # The connection does not trust this proof, because replicas do not share sessions: the single replay waits for
        # the probe.
        await self._lifecycle.wait_for_probe(session, deferred=is_lost_session(failure))
        if pause:
            await anyio.sleep(pause)

    async def _misfitting(self, call: Call, session: Session, words: str) -> Failure:
        """The failure of an attempt whose result has the wrong shape, if its session was forgotten.

        Some gateways answer every request on such a session with an empty result, which does not come from a tool.
        Otherwise the result is the server's answer, and `InvalidResult` is raised.
        """
        lifecycle = self._lifecycle
        evidence = replace(call.attempt.evidence(), written=True, from_wire=True) if call.attempt else Evidence()
        kind, unknown = FailureKind.PROTOCOL, Delivery.UNKNOWN
        failure = Failure(kind=kind, delivery=unknown, proof=False, summary=words, evidence=evidence)
        call.failure, call.attempt = failure, None
        session.errors_in_a_row += 1
        lifecycle.report(session.epoch, failure)
        lost = await self._verdict(call, session, failure)
        if lost is not None and lost.kind is FailureKind.SESSION_EXPIRED:
            return failure
        runs = "; the tool ran. Do not call it again for its answer" if call.method == "tools/call" else ""
        raise InvalidResult(
            f"{lifecycle.name}: {words}{runs}",
            server=lifecycle.name,
            failure=failure,
            state=lifecycle.state,
            attempts=call.attempts,
            retry_in=lifecycle.retry_in,
        ) from None

    async def _failed(self, call: Call, session: Session, attempt: Attempt, error: Exception) -> Failure:
        """The failure of an attempt, after it is known what its error means for the session.

        Raises:
            Exception: `error`, if it is the answer to the call.
        """
        assert session.link is not None
        detach(error, sys.exc_info()[1])
        failure = call.failure = self._common.classify(session.link.evidence(error, attempt))
        call.attempt = None
        # If the wire layer caught an exception, `error` only stands for it, and does not come from the application.
        spoken = attempt.exception is None or attempt.exception is error
        if failure.kind is FailureKind.CANCELLED and not spoken and isinstance(attempt.exception, Exception):
            # The caller's own interrupt, not the error that the wire layer made of it.
            raise attempt.exception
        if failure.kind is FailureKind.CANCELLED:
            raise error
        if failure.kind is FailureKind.APPLICATION and failure.delivery is Delivery.NOT_SENT and spoken:
            # The message could not be encoded as JSON, which is no evidence about the session.
            raise error
        # Counted before the report, which uses the count to decide whether this failure makes the session suspect.
        session.errors_in_a_row += 1
        plain = is_plain(failure, errors_in_a_row=session.errors_in_a_row)
        # Synchronous: when it returns, the state and the gate reflect this failure.
        self._lifecycle.report(session.epoch, failure)
        if failure.kind in SPOKEN and not is_lost_session(failure):
            # The answer may be that of a forgotten session, or that of the call: a probe decides.
            lost = None if plain else await self._verdict(call, session, failure)
            failure = call.failure = confirmed(failure, lost)
            answer = failure.kind is FailureKind.APPLICATION or failure.evidence.from_wire
            if lost is None and answer and spoken:
                raise error
        elif failure.kind is FailureKind.AUTH:
            await self._verdict(call, session, failure)
        return failure

    async def _verdict(self, call: Call, session: Session, failure: Failure) -> Failure | None:
        """Waits for a probe in progress. Returns why the session was lost, if it was.

        If the probe has to wait, because there was one less than 3 s ago, the call waits too, unless that probe was
        answered on this session: then the error is passed on. A refusal that names the session is not passed on,
        because it only says that the server has forgotten the session by now.
        """
        certain = call.uncertain
        if failure.delivery is Delivery.UNKNOWN or failure.kind is FailureKind.SESSION_EXPIRED:
            # If the deadline passes before that, the outcome is unknown.
            call.uncertain = failure
        await self._lifecycle.wait_for_probe(session, deferred=session.cleared is None or is_refusal(failure))
        # The probe is over; the caller of this function decides on the delivery.
        call.uncertain = certain
        return session.lost

    def _pause(self, call: Call, failure: Failure, session: Session) -> float:
        """Seconds to wait before retrying the call, in addition to the connection's own waits."""
        policy, rng = self._common.policy, self._common.clock.rng
        if failure.retry_after is not None:
            return failure.retry_after
        # The server specified no time. One step of the backoff prevents this call from adding to the overload.
        if failure.kind is FailureKind.RATE_LIMITED:
            return policy.backoff.delay(1, rng)
        if failure.delivery is Delivery.NOT_SENT and call.resent and session is self._lifecycle.session:
            # The session passes its probes, but nothing can be sent: avoid a tight loop.
            return policy.backoff.delay(call.resent, rng, ceiling=policy.waiting_ceiling)
        return 0.0

    # -- results

    def unanswered(self, call: Call, failure: Failure) -> CallFailed:
        """The error of a failed call that is not retried."""
        # An earlier attempt may have run, and the result of a later one does not resolve that.
        if call.uncertain is not None and failure.delivery is not Delivery.UNKNOWN:
            failure = replace(failure, delivery=Delivery.UNKNOWN)
        return unanswered(
            failure,
            server=self._lifecycle.name,
            state=self._lifecycle.state,
            attempts=call.attempts,
            retry_in=self._lifecycle.retry_in,
            method=call.method,
        )

    def timed_out(self, call: Call, timeout: float | None) -> CallTimeout:
        """The deadline passed: in flight, or while waiting for a connection."""
        lifecycle, session, attempt = self._lifecycle, call.session, call.attempt
        # A timeout of 3 s may appear as 2.99999: three decimals are enough for display.
        seconds = f"{round(timeout, 3):g} s" if timeout is not None else "the deadline"
        evidence = Evidence(exception=TimeoutError(), phase="call")
        if attempt is not None and session is not None:
            # Read before the evidence is replaced, because the deadline is no evidence of what was written.
            written = attempt.written
            # NOT_SENT only if the transport reports writes, and no earlier request of this attempt was sent.
            unsent = written is False and attempt.earlier == 0 and not attempt.progressed
            evidence = replace(
                attempt.evidence(), exception=TimeoutError(), http_status=None, code=None, written=written
            )
            delivery = Delivery.NOT_SENT if unsent else Delivery.UNKNOWN
            summary = f"no answer within {seconds}"
        else:
            delivery = Delivery.NOT_SENT
            last = call.failure or lifecycle.last_failure
            why = self._progress() or (last.summary if last is not None else "")
            why = f": {why}" if why else ""
            summary = f"not ready within {seconds} (the connection is {lifecycle.state}{why})"
        failure = Failure(kind=FailureKind.TIMEOUT, delivery=delivery, proof=False, summary=summary, evidence=evidence)
        if attempt is not None and session is not None:
            lifecycle.report(session.epoch, failure)
        error = self.unanswered(call, failure)
        call.failure = error.failure
        assert isinstance(error, CallTimeout)
        return error
