"""The path of a call: wait for ready, issue, and retry if necessary. All methods use it.

`retries` decides what a failed attempt means and whether another follows.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeVar

import anyio

from mcpconn.core.attempt import ATTEMPT, Attempt
from mcpconn.core.backoff import ReplayBudget
from mcpconn.core.outcome import Outcome
from mcpconn.errors import CallFailed
from mcpconn.runtime import refusals
from mcpconn.runtime.call import Call, Issue, Safe, seconds_of
from mcpconn.runtime.common import Common
from mcpconn.runtime.journal import Finished
from mcpconn.runtime.lifecycle import Lifecycle
from mcpconn.runtime.retries import Retries

T = TypeVar("T")


class Calls:
    """Makes calls on one connection."""

    def __init__(
        self,
        common: Common,
        lifecycle: Lifecycle,
        *,
        budget: ReplayBudget,
        progress: Callable[[], str | None],
    ) -> None:
        """
        Args:
            common: What all parts of the connection share.
            lifecycle: Has the gate at which calls wait, and the session on which they are issued.
            budget: The budget of retries after an unknown outcome.
            progress: The progress of a server that is being started; None if none is.
        """
        self._lifecycle = lifecycle
        self._clock = common.clock
        self._journal = common.journal
        self._budget = budget
        self._retries = Retries(common, lifecycle, budget=budget, progress=progress)

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
            safe: Whether running it twice is harmless.
            timeout: Seconds for the whole call, including waiting, reconnecting and replaying. None: no deadline.
            wait: False raises at once if the connection is not ready.
            background: The call is the connection's own, and does not keep an idle session open.
            total: Maximum seconds in total, if each progress notification gives the call another `timeout` seconds.
                None: progress does not extend the deadline.

        Raises:
            MCPError: The server's application answered with an error, which is raised unchanged.
            CallFailed: One of its subclasses says why there is no answer, and whether the tool may have run.
        """
        lifecycle = self._lifecycle
        # Checked before anything is counted, so that a call with wait=False affects neither the budget nor the
        # counters.
        if not wait and not lifecycle.gate.is_open:
            raise refusals.not_ready(lifecycle)
        began = self._clock.now()
        latest = began + seconds_of(total)
        call = Call(method, began, min(began + seconds_of(timeout), latest), background=background)
        # Every call adds a fraction of a replay to the budget. Replays after an unknown outcome draw on it, so that an
        # outage of many calls cannot double the load on a server that is recovering (gRPC A6, retry throttling).
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
                    if not lifecycle.gate.try_acquire():
                        await self._wait(call)
                    # The permit was granted on a newer session than the one whose listing showed that the tool is safe.
                    # Its server may be a different version, so the check is repeated before the attempt.
                    if call.safe_on not in (None, lifecycle.epoch):
                        lifecycle.gate.release()
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
                    await self._retries.consider(call, caught, safe)
            # The scope ended the loop: the deadline has passed. A cancellation from outside leaves this function.
            if not scope.cancelled_caught:  # pragma: no cover - the loop above is left by return, raise or cancel
                raise AssertionError("unreachable")
            raise self._retries.timed_out(call, timeout)
        except Exception as error:
            # An error without an outcome is the application's, and is passed on unchanged.
            outcome = getattr(error, "outcome", Outcome.ERROR)
            raise
        finally:
            if outcome is not Outcome.ANSWERED or not self._journal.answered():
                self._journal.add(
                    Finished(
                        lifecycle.name,
                        method,
                        outcome,
                        call.attempts,
                        self._clock.now() - began,
                        call.blocked,
                        lifecycle.epoch,
                        call.failure if outcome is not Outcome.ANSWERED else None,
                    )
                )

    async def ready(self, timeout: float | None) -> None:
        """Return when a call could be issued. This proves nothing about the session, and does not count as a call.

        Raises:
            CallFailed: as `run`.
        """
        began = self._clock.now()
        call = Call("ready", began, math.inf if timeout is None else began + timeout)
        with anyio.CancelScope(deadline=call.deadline):
            await self._lifecycle.gate.acquire()
            self._lifecycle.gate.release()
            return
        raise self._retries.timed_out(call, timeout)

    async def _wait(self, call: Call) -> None:
        began = self._clock.now()
        try:
            # A call that has passed the gate before goes to the front, and is not refused if the queue is full, because
            # it has already waited.
            await self._lifecycle.gate.acquire(again=call.attempts > 0)
        except CallFailed as refusal:
            if call.uncertain is not None:
                raise self._retries.unanswered(call, call.uncertain) from refusal
            refusal.attempts = call.attempts
            raise
        finally:
            call.blocked += self._clock.now() - began

    async def _check_again(self, call: Call, safe: Safe) -> None:
        """Check again whether a call is safe: it was found safe to repeat on one session, and would now be repeated on
        another.

        The new session's server may be a different version, whose tool of the same name is not safe.
        """
        failure = call.uncertain
        assert failure is not None
        if not await safe():
            raise self._retries.unanswered(call, failure)
        call.safe_on = self._lifecycle.epoch

    def _enter(self, call: Call) -> tuple[Any, Attempt]:
        """Record that the call is issued now, on the current session. It has passed the gate."""
        # Nothing is awaited between the gate and this line, so the session is the one for which the gate was opened.
        session = call.session = self._lifecycle.session
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
                # An answer proves the session: from now on, its loss causes no backoff (see `DialSchedule.lost`).
                session.proven = True
                session.answered.set()
            session.answers += 1
            session.errors_in_a_row = 0
            self._lifecycle.probe.answered.add(call.method)
            call.attempt = None
        if not call.background:
            session.last_used = self._clock.now()
        elif answered:
            # This counts as a probe.
            session.probed_at = self._clock.now()
        session.leave()
        self._lifecycle.gate.release()
