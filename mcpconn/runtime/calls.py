"""The path of a call: wait for ready, issue, classify, report, and perhaps once more. All methods take it."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeVar

import anyio

from mcpconn.core.attempt import ATTEMPT, Attempt
from mcpconn.core.backoff import ReplayBudget
from mcpconn.core.decide import confirmed, is_lost_session, is_plain, is_refusal, may_replay
from mcpconn.core.failures import Delivery, Evidence, Failure, FailureKind
from mcpconn.core.outcome import Outcome
from mcpconn.core.seen import detach
from mcpconn.errors import CallFailed, CallTimeout, InvalidResult, unanswered
from mcpconn.policy import Policy
from mcpconn.runtime import refusals
from mcpconn.runtime.call import SPOKEN, Call, Issue, Safe, seconds_of
from mcpconn.runtime.clock import Clock
from mcpconn.runtime.journal import Finished, Journal, Replay
from mcpconn.runtime.session import Session
from mcpconn.runtime.supervisor import Supervisor

T = TypeVar("T")


class Calls:
    """Makes calls on one connection."""

    def __init__(
        self,
        supervisor: Supervisor,
        policy: Policy,
        *,
        classify: Callable[[Evidence], Failure],
        clock: Clock,
        journal: Journal,
        budget: ReplayBudget,
    ) -> None:
        self._supervisor = supervisor
        self._policy = policy
        self._classify = classify
        self._clock = clock
        self._journal = journal
        self._budget = budget

    async def run(
        self,
        method: str,
        issue: Issue[T],
        *,
        safe: Safe,
        timeout: float | None,
        wait: bool = True,
        background: bool = False,
        total: float | None = None,
    ) -> T:
        """Make a call.

        Args:
            method: The JSON-RPC method, for messages.
            issue: Makes the call on a client.
            safe: Whether running it twice does no harm.
            timeout: Seconds for all of it: waiting, reconnecting and replaying included. None: no deadline.
            wait: False raises at once where the connection is not ready.
            background: It is the connection's own, and does not keep an idle session open.
            total: Seconds in all, if each progress gives it another `timeout` seconds. None: it does not.

        Raises:
            MCPError: The server's application answered with an error. Untouched.
            CallFailed: One of its subclasses says why there is no answer, and whether the tool may have run.
        """
        supervisor = self._supervisor
        # Checked before anything is counted: a call that would not wait costs neither budget nor notice.
        if not wait and not supervisor.gate.is_open:
            raise refusals.not_ready(supervisor)
        began = self._clock.now()
        latest = began + seconds_of(total)
        call = Call(method, began, min(began + seconds_of(timeout), latest), background=background)
        # Every call pays a fraction of a replay in. Replays of unknown outcome draw on it, so that an outage of many
        # calls cannot double the load on a server that is coming back (gRPC A6, retry throttling).
        self._budget.deposit()
        outcome = Outcome.CANCELLED
        # One scope for everything that follows: waiting, reconnecting, attempts and pauses share the caller's deadline.
        scope = anyio.CancelScope(deadline=call.deadline)

        def extend() -> None:
            scope.deadline = call.deadline = min(self._clock.now() + seconds_of(timeout), latest)

        try:
            with scope:
                while True:
                    # The gate is tried without a wait first: a ready connection with room costs no checkpoint.
                    if not supervisor.gate.try_acquire():
                        await self._wait(call)
                    # The permit was granted on a newer session than the one that was asked whether the tool is safe.
                    # Its server may be another version, so it is asked again before the attempt.
                    if call.safe_on not in (None, supervisor.epoch):
                        supervisor.gate.release()
                        await self._check_again(call, safe)
                        continue
                    client, attempt = self._enter(call)
                    if total is not None:
                        attempt.extend = extend
                    # The SDK runs the transport's sends in the context of their caller, so the HTTP client finds the
                    # record there.
                    token = ATTEMPT.set(attempt)
                    try:
                        result = await issue(client, attempt)
                    except Exception as error:
                        caught = error
                    else:
                        outcome = Outcome.ANSWERED
                        return result
                    finally:
                        ATTEMPT.reset(token)
                        self._leave(call, answered=outcome is Outcome.ANSWERED)
                    await self._consider(call, caught, safe)
            # The scope ended the loop: the deadline has passed. A cancellation from outside leaves this function.
            if not scope.cancelled_caught:  # pragma: no cover - the loop above is left by return, raise or cancel
                raise AssertionError("unreachable")
            raise self._timed_out(call, timeout)
        except Exception as error:
            # What has no outcome of its own is the application's error, passed on as it came.
            outcome = getattr(error, "outcome", Outcome.ERROR)
            raise
        finally:
            if outcome is not Outcome.ANSWERED or not self._journal.answered():
                self._journal.add(
                    Finished(
                        supervisor.name,
                        method,
                        outcome,
                        call.attempts,
                        self._clock.now() - began,
                        call.blocked,
                        supervisor.epoch,
                        call.failure if outcome is not Outcome.ANSWERED else None,
                    )
                )

    async def ready(self, timeout: float | None) -> None:
        """Return when a call could be issued. Proves nothing, and counts as no call.

        Raises:
            CallFailed: as `run`.
        """
        began = self._clock.now()
        call = Call("ready", began, math.inf if timeout is None else began + timeout)
        with anyio.CancelScope(deadline=call.deadline):
            await self._supervisor.gate.acquire()
            self._supervisor.gate.release()
            return
        raise self._timed_out(call, timeout)

    async def _wait(self, call: Call) -> None:
        began = self._clock.now()
        try:
            # A call that was let through before goes to the front, and is not turned away for the length of the queue:
            # it has waited its turn already.
            await self._supervisor.gate.acquire(again=call.attempts > 0)
        except CallFailed as refusal:
            if call.uncertain is not None:
                raise self._unanswered(call, call.uncertain) from refusal
            refusal.attempts = call.attempts
            raise
        finally:
            call.blocked += self._clock.now() - began

    async def _check_again(self, call: Call, safe: Safe) -> None:
        """A call was found safe to repeat on one session, and would now be repeated on another: ask of that one.

        Its server may be another version, whose tool of the same name is not safe.
        """
        failure = call.uncertain
        assert failure is not None
        if not await safe():
            raise self._unanswered(call, failure)
        call.safe_on = self._supervisor.epoch

    def _enter(self, call: Call) -> tuple[Any, Attempt]:
        """The call is issued now, on the present session. The gate has let it through."""
        # Nothing is awaited between the gate and this line, so the session is the one that the gate was opened for.
        session = call.session = self._supervisor.session
        assert session is not None
        link = session.enter()
        attempt = call.attempt = link.new_attempt("call")
        call.attempts += 1
        call.safe_on = None
        return link.client, attempt

    def _leave(self, call: Call, *, answered: bool) -> None:
        """The attempt is over."""
        session = call.session
        assert session is not None
        if answered:
            if not session.proven:
                # An answer proves the session: from now on its loss costs no backoff (see `DialSchedule.lost`).
                session.proven = True
                session.answered.set()
            session.answers += 1
            session.errors_in_a_row = 0
            self._supervisor.probe.answered.add(call.method)
            call.attempt = None
        if not call.background:
            session.last_used = self._clock.now()
        elif answered:
            # As good as a probe.
            session.probed_at = self._clock.now()
        session.leave()
        self._supervisor.gate.release()

    async def _consider(self, call: Call, error: Exception, safe: Safe) -> None:
        """Return when the call may be retried; raise what its caller should see otherwise."""
        session, attempt = call.session, call.attempt
        assert session is not None
        assert session.link is not None
        assert attempt is not None
        if attempt.has_result:
            # The answer is there and cannot be used: it does not fit its tool's schema.
            raise error
        if (words := session.link.misfit(error, attempt)) is not None:
            failure = await self._misfitting(call, session, words)
        else:
            failure = await self._failed(call, session, attempt, error)
        # Progress, or an earlier request of the same attempt, shows that the tool may have begun. A refusal that came
        # later does not undo it.
        progressed = attempt.progressed or attempt.earlier > 0
        if progressed and failure.delivery is not Delivery.UNKNOWN:
            failure = call.failure = replace(failure, delivery=Delivery.UNKNOWN)
        if failure.delivery is Delivery.UNKNOWN:
            call.uncertain = failure
        # Asked last and only if it matters: it may list the tools of the server.
        repeatable = failure.delivery is Delivery.UNKNOWN and call.replays == 0 and await safe()
        if repeatable:
            call.safe_on = self._supervisor.epoch
        allowed = may_replay(
            failure,
            safe=repeatable,
            replays=call.replays,
            lost=session.lost is not None,
            refreshed=self._supervisor.replaced(session),
            budget=self._budget.balance,
        )
        if not allowed:
            raise self._unanswered(call, failure) from error
        pause = self._pause(call, failure, session)
        # A pause that would outlast the deadline is not begun: the caller is told now what it would be told then.
        if pause and self._clock.now() + pause >= call.deadline:
            raise self._unanswered(call, failure) from error
        if failure.delivery is Delivery.NOT_SENT:
            call.resent += 1
        else:
            call.replays += 1
            if failure.delivery is Delivery.UNKNOWN:
                self._budget.withdraw()
        # In the call's own context, so that the telemetry finds its span.
        self._journal.add(Replay(self._supervisor.name, call.method, session.epoch, failure, call.attempts))
        # A proof that the connection doubts, since replicas share no sessions: the one replay waits for the probe.
        await self._supervisor.wait_for_probe(session, deferred=is_lost_session(failure))
        if pause:
            await anyio.sleep(pause)

    async def _misfitting(self, call: Call, session: Session, words: str) -> Failure:
        """The failure of an attempt whose result has the wrong shape, if its session was forgotten.

        Some gateways answer every request on such a session with an empty result. Then no tool gave it. Otherwise the
        result is the server's answer, and `InvalidResult` is raised.
        """
        supervisor = self._supervisor
        evidence = replace(call.attempt.evidence(), written=True, from_wire=True) if call.attempt else Evidence()
        kind, unknown = FailureKind.PROTOCOL, Delivery.UNKNOWN
        failure = Failure(kind=kind, delivery=unknown, proof=False, summary=words, evidence=evidence)
        call.failure, call.attempt = failure, None
        session.errors_in_a_row += 1
        supervisor.report(session.epoch, failure)
        lost = await self._verdict(call, session, failure)
        if lost is not None and lost.kind is FailureKind.SESSION_EXPIRED:
            return failure
        runs = "; the tool ran. Do not call it again for its answer" if call.method == "tools/call" else ""
        raise InvalidResult(
            f"{supervisor.name}: {words}{runs}",
            server=supervisor.name,
            failure=failure,
            state=supervisor.state,
            attempts=call.attempts,
            retry_in=supervisor.retry_in,
        ) from None

    async def _failed(self, call: Call, session: Session, attempt: Attempt, error: Exception) -> Failure:
        """What an attempt failed of, once it is known what its error says of the session.

        Raises:
            Exception: `error`, if that is the call's own answer.
        """
        assert session.link is not None
        detach(error, sys.exc_info()[1])
        failure = call.failure = self._classify(session.link.evidence(error, attempt))
        call.attempt = None
        # If the wire caught an exception, `error` is only its stand-in, and no application said it.
        spoken = attempt.exception is None or attempt.exception is error
        if failure.kind is FailureKind.CANCELLED and not spoken and isinstance(attempt.exception, Exception):
            # The caller's own interrupt, not what the wire made of it.
            raise attempt.exception
        if failure.kind is FailureKind.CANCELLED:
            raise error
        if failure.kind is FailureKind.APPLICATION and failure.delivery is Delivery.NOT_SENT and spoken:
            # It could not be put into JSON. That says nothing about the session.
            raise error
        # Counted before the report, which decides by it whether this failure makes the session suspect.
        session.errors_in_a_row += 1
        plain = is_plain(failure, errors_in_a_row=session.errors_in_a_row)
        # Synchronous: when it returns, the state and the gate are what this failure makes of them.
        self._supervisor.report(session.epoch, failure)
        if failure.kind in SPOKEN and not is_lost_session(failure):
            # The answer may be a forgotten session's, or the call's own: that depends on what a probe finds.
            lost = None if plain else await self._verdict(call, session, failure)
            failure = call.failure = confirmed(failure, lost)
            answer = failure.kind is FailureKind.APPLICATION or failure.evidence.from_wire
            if lost is None and answer and spoken:
                raise error
        elif failure.kind is FailureKind.AUTH:
            await self._verdict(call, session, failure)
        return failure

    async def _verdict(self, call: Call, session: Session, failure: Failure) -> Failure | None:
        """Why the session is lost, if it is, once a probe that is under way has ended.

        If the probe has to wait, because there was one less than 3 s ago, the call waits with it, unless that one
        was answered on this session: then it may as well be passed on. But a refusal that names the session may
        not, since all it says is that the server has forgotten the session by now.
        """
        certain = call.uncertain
        if failure.delivery is Delivery.UNKNOWN or failure.kind is FailureKind.SESSION_EXPIRED:
            # Until then nobody knows whether it ran, should the deadline pass.
            call.uncertain = failure
        await self._supervisor.wait_for_probe(session, deferred=session.cleared is None or is_refusal(failure))
        # The probe is over: what the failure says of the delivery is judged by the caller of this function.
        call.uncertain = certain
        return session.lost

    def _pause(self, call: Call, failure: Failure, session: Session) -> float:
        """Seconds to wait before retrying the call; the connection's own waits come on top."""
        if failure.retry_after is not None:
            return failure.retry_after
        # The server named no time. One step of the backoff keeps this call from adding to what it complains of.
        if failure.kind is FailureKind.RATE_LIMITED:
            return self._policy.backoff.delay(1, self._clock.rng)
        if failure.delivery is Delivery.NOT_SENT and call.resent and session is self._supervisor.session:
            # The session passes its probes, and still nothing can be sent: not in a tight loop.
            return self._policy.backoff.delay(call.resent, self._clock.rng, ceiling=self._policy.waiting_ceiling)
        return 0.0

    # -- endings

    def _unanswered(self, call: Call, failure: Failure) -> CallFailed:
        # An earlier attempt may have run. What a later one met does not make that certain.
        if call.uncertain is not None and failure.delivery is not Delivery.UNKNOWN:
            failure = replace(failure, delivery=Delivery.UNKNOWN)
        return unanswered(
            failure,
            server=self._supervisor.name,
            state=self._supervisor.state,
            attempts=call.attempts,
            retry_in=self._supervisor.retry_in,
            method=call.method,
        )

    def _timed_out(self, call: Call, timeout: float | None) -> CallTimeout:
        """The deadline passed: in flight, or while waiting for a connection."""
        supervisor, session, attempt = self._supervisor, call.session, call.attempt
        seconds = f"{timeout:g} s" if timeout is not None else "the deadline"
        evidence = Evidence(exception=TimeoutError(), phase="call")
        if attempt is not None and session is not None:
            # Read before the evidence is replaced: the deadline says nothing about what was written.
            written = attempt.written
            # NOT_SENT only if the transport would have said so, and no earlier request of this attempt left.
            unsent = written is False and attempt.earlier == 0 and not attempt.progressed
            evidence = replace(
                attempt.evidence(), exception=TimeoutError(), http_status=None, code=None, written=written
            )
            delivery = Delivery.NOT_SENT if unsent else Delivery.UNKNOWN
            summary = f"no answer within {seconds}"
        else:
            delivery = Delivery.NOT_SENT
            last = call.failure or supervisor.last_failure
            why = supervisor.progress or (last.summary if last is not None else "")
            why = f": {why}" if why else ""
            summary = f"not ready within {seconds} (the connection is {supervisor.state}{why})"
        failure = Failure(kind=FailureKind.TIMEOUT, delivery=delivery, proof=False, summary=summary, evidence=evidence)
        if attempt is not None and session is not None:
            supervisor.report(session.epoch, failure)
        error = self._unanswered(call, failure)
        call.failure = error.failure
        assert isinstance(error, CallTimeout)
        return error
