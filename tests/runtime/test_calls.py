"""The path of a call: what is retried, what its caller is told, and what is left behind."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint
from mcp import MCPError

from mcpconn import (
    CallFailed,
    CallTimeout,
    ConnectionClosed,
    ConnectionFailed,
    Evidence,
    FailureKind,
    NotReady,
    OutcomeUnknown,
    Overloaded,
    Policy,
    State,
    classify,
)
from mcpconn.core.attempt import Attempt
from tests.runtime.fakes import CUT, GONE, REFUSED, UNLISTED, CallError, FakeLink, Rig, answering, failing

pytestmark = pytest.mark.anyio

K = FailureKind
UNSENT = Evidence(exception=ConnectionRefusedError("refused"), written=False)
BUSY = Evidence(http_status=429, retry_after=2.0, content_type="")
SPOKEN = Evidence(code=-32602, message="Invalid or expired session", from_wire=True, http_status=200)


def refused_login() -> Callable[[FakeLink], Any]:
    return failing(Evidence(http_status=401, phase="dial"))


async def checkpoints(count: int) -> None:
    for _ in range(count):
        await checkpoint()


# -- what is retried


async def test_a_call_that_never_left_is_made_again_until_its_deadline() -> None:
    rig = Rig()
    async with rig.running():
        assert await rig.call(*[CallError(UNSENT)] * 5, "answer", safe=False) == "answer"


async def test_a_call_that_never_left_is_not_made_again_in_a_tight_loop() -> None:
    rig = Rig()
    async with rig.running():
        started = anyio.current_time()
        with pytest.raises(CallFailed) as caught:
            await rig.call(*[CallError(UNSENT) for _ in range(1000)], timeout=60)
        assert 58 < anyio.current_time() - started <= 60
        assert 45 < caught.value.attempts < 80
        assert caught.value.outcome == "not_run"


async def test_a_refused_call_is_made_again_once() -> None:
    rig = Rig()
    async with rig.running():
        assert await rig.call(CallError(GONE), "answer") == "answer"
        with pytest.raises(CallFailed) as caught:
            await rig.call(CallError(GONE), CallError(GONE), "never")
        assert (caught.value.attempts, caught.value.outcome) == (2, "not_run")
        assert not isinstance(caught.value, OutcomeUnknown)


@pytest.mark.parametrize("safe", [False, True])
async def test_a_call_that_may_have_run_is_made_again_once_and_only_if_it_is_safe(safe: bool) -> None:
    rig = Rig()
    async with rig.running():
        if safe:
            assert await rig.call(CallError(CUT), "answer", safe=True) == "answer"
        with pytest.raises(OutcomeUnknown) as caught:
            await rig.call(CallError(CUT), CallError(CUT), "never", safe=safe)
        assert caught.value.attempts == (2 if safe else 1)


async def test_a_call_that_reported_progress_has_run_whatever_refused_it_later() -> None:
    rig = Rig()

    async def half_way(attempt: Attempt) -> Any:
        attempt.progressed = True
        raise CallError(GONE)

    async with rig.running():
        with pytest.raises(OutcomeUnknown):
            await rig.call(half_way, "never")
        assert await rig.call(half_way, "answer", safe=True) == "answer"


async def test_a_call_of_several_requests_has_run_if_an_earlier_one_was_answered() -> None:
    rig = Rig()

    async def second_round(attempt: Attempt) -> Any:
        attempt.start()
        attempt.written, attempt.http_status = True, 200
        attempt.start()
        raise CallError(GONE)

    async with rig.running():
        with pytest.raises(OutcomeUnknown):
            await rig.call(second_round, "never")


async def test_too_many_requests_are_waited_for_and_too_long_a_wait_is_the_callers() -> None:
    rig = Rig()
    async with rig.running():
        await rig.ready()
        started = anyio.current_time()
        assert await rig.call(CallError(BUSY), "answer") == "answer"
        assert anyio.current_time() - started == pytest.approx(2)
        started = anyio.current_time()
        with pytest.raises(CallFailed, match="asks to wait 2 s") as caught:
            await rig.call(CallError(BUSY), "never", timeout=1.5)
        # At once: waiting for nothing helps nobody.
        assert anyio.current_time() == started
        assert (caught.value.retry_in, caught.value.failure.kind) == (2.0, K.RATE_LIMITED)
        assert (caught.value.outcome, rig.events) == ("not_run", ["connect", "established"])


async def test_the_budget_stops_replays_of_unknown_outcome_and_no_others() -> None:
    rig = Rig()
    async with rig.running():
        replayed = 0
        for _ in range(40):
            try:
                await rig.call(CallError(CUT), "answer", safe=True)
                replayed += 1
            except OutcomeUnknown:
                pass
        # The reserve, and a fifth of the calls.
        assert replayed in (10 + 40 // 5 - 1, 10 + 40 // 5)
        assert rig.budget.balance < 1
        for _ in range(5):
            assert await rig.call(CallError(GONE), "answer") == "answer"
            assert await rig.call(CallError(UNSENT), "answer") == "answer"


# -- words that may mean an expired session


async def test_an_error_like_an_expired_session_is_raised_if_it_lives() -> None:
    rig = Rig()
    error = MCPError(-32603, "the user's session expired")
    async with rig.running():
        with pytest.raises(MCPError) as caught:
            await rig.call(error, "never", safe=True)
        assert caught.value is error
        assert (rig.link.asked, rig.lifecycle.epoch) == (["ping"], 1)


@pytest.mark.parametrize("refusal", [SPOKEN, GONE, UNLISTED], ids=["same words", "other words", "no words"])
async def test_a_refusal_is_retried_if_a_probe_is_refused_for_the_session(refusal: Evidence) -> None:
    rig = Rig()

    async def probe() -> None:
        raise CallError(refusal)

    async with rig.running():
        await rig.ready()
        rig.link.on_probe = probe
        assert await rig.call(CallError(SPOKEN), "answer") == "answer"
        assert rig.lifecycle.epoch == 2


@pytest.mark.parametrize("evidence", [CUT, Evidence(exception=TimeoutError()), Evidence(http_status=503)])
async def test_a_refusal_stays_unknown_if_the_probe_fails_for_another_reason(evidence: Evidence) -> None:
    rig = Rig()

    async def probe() -> None:
        raise CallError(evidence)

    async with rig.running():
        await rig.ready()
        rig.link.on_probe = probe
        with pytest.raises(OutcomeUnknown):
            await rig.call(CallError(SPOKEN), "never")
        await rig.ready()
        assert rig.lifecycle.epoch == 2


async def test_a_sentence_that_mentions_a_session_stays_unknown() -> None:
    rig = Rig()
    sentence = Evidence(code=-32603, message="Checkout failed: session expired", from_wire=True, http_status=200)

    async def probe() -> None:
        raise CallError(GONE)

    async with rig.running():
        await rig.ready()
        rig.link.on_probe = probe
        with pytest.raises(OutcomeUnknown):
            await rig.call(CallError(sentence), "never")
        await rig.ready()
        rig.link.on_probe = probe
        assert await rig.call(CallError(sentence), "answer", safe=True) == "answer"


async def test_progress_received_for_a_call_makes_its_refusal_unknown() -> None:
    rig = Rig()

    async def probe() -> None:
        raise CallError(GONE)

    async def attempt(attempt: Attempt) -> None:
        attempt.progressed = True
        raise CallError(SPOKEN)

    async with rig.running():
        await rig.ready()
        rig.link.on_probe = probe
        with pytest.raises(OutcomeUnknown):
            await rig.call(attempt, "never")


async def test_a_deadline_during_the_probe_leaves_it_unknown() -> None:
    rig = Rig(Policy(probe_timeout=5))
    async with rig.running():
        await rig.ready()
        rig.link.on_probe = anyio.sleep_forever
        with pytest.raises(CallTimeout) as caught:
            await rig.call(CallError(SPOKEN), "never", timeout=2)
        assert (caught.value.outcome, caught.value.attempts) == ("unknown", 1)


async def test_closing_while_the_probe_runs_passes_the_error_on() -> None:
    rig = Rig()
    error = MCPError(-32603, "session expired")
    async with rig.running():
        await rig.ready()
        rig.link.on_probe = anyio.sleep_forever

        async def close() -> None:
            await anyio.sleep(1)
            rig.lifecycle.close()

        async with anyio.create_task_group() as group:
            group.start_soon(close)
            with pytest.raises(MCPError) as caught:
                await rig.call(error, "never", timeout=None)
        assert caught.value is error


# -- the truth about the outcome


@pytest.mark.parametrize("end", ["fails", "is closed", "stays away"])
@pytest.mark.parametrize(("first", "outcome"), [(GONE, "not_run"), (CUT, "unknown")], ids=["refused", "may have run"])
async def test_what_a_first_attempt_may_have_done_is_remembered(first: Evidence, outcome: str, end: str) -> None:
    rig = Rig()
    async with rig.running():
        await rig.ready()
        if end == "fails":
            rig.dialer.always = refused_login()
        else:
            rig.dialer.always = failing(REFUSED)

        async def probe() -> None:
            raise CallError(GONE)

        async def close_later() -> None:
            await anyio.sleep(1)
            if end == "is closed":
                rig.lifecycle.close()

        rig.link.on_probe = probe
        expected: type[CallFailed] = {"fails": ConnectionFailed, "is closed": ConnectionClosed}.get(end, CallTimeout)
        if outcome == "unknown" and end != "stays away":
            expected = OutcomeUnknown
        async with anyio.create_task_group() as group:
            group.start_soon(close_later)
            with pytest.raises(expected) as caught:
                await rig.call(CallError(first), "never", safe=True, timeout=10)
        assert (caught.value.outcome, caught.value.attempts) == (outcome, 1)


async def test_a_refusal_after_an_unknown_attempt_stays_unknown() -> None:
    rig = Rig()
    async with rig.running():
        with pytest.raises(OutcomeUnknown) as caught:
            await rig.call(CallError(CUT), CallError(GONE), "never", safe=True)
        assert (caught.value.outcome, caught.value.attempts) == ("unknown", 2)


async def test_an_unsent_attempt_after_one_that_may_have_run_is_still_made_again() -> None:
    rig = Rig()
    async with rig.running():
        assert await rig.call(CallError(CUT), CallError(UNSENT), CallError(UNSENT), "answer", safe=True) == "answer"


async def test_a_call_that_waits_for_a_connection_says_so_when_its_deadline_passes() -> None:
    rig = Rig()
    rig.dialer.always = failing(REFUSED)
    async with rig.running():
        started = anyio.current_time()
        with pytest.raises(CallTimeout, match=r"not ready within 4 s \(the connection is connecting: the") as caught:
            await rig.call("never", timeout=4)
        assert anyio.current_time() - started == pytest.approx(4)
        assert (caught.value.attempts, caught.value.outcome) == (0, "not_run")
        assert caught.value.state is State.CONNECTING
        assert caught.value.retry_in is not None


async def test_a_call_in_flight_at_its_deadline_makes_the_session_suspect() -> None:
    rig = Rig()
    async with rig.running():
        with pytest.raises(CallTimeout, match="no answer within 4 s; the tool may have run"):
            await rig.call(answering(100), timeout=4)
        assert rig.events == ["connect", "established", "suspected"]


async def test_a_call_without_a_deadline_has_none() -> None:
    rig = Rig()
    async with rig.running():
        assert await rig.call(answering(100_000), timeout=None) == "answer"


@pytest.mark.parametrize("timeout", [0, -1, 1e-9])
async def test_a_deadline_that_has_passed_is_a_timeout_and_no_hang(timeout: float) -> None:
    rig = Rig()
    async with rig.running():
        await rig.ready()
        with pytest.raises(CallTimeout):
            await rig.call(answering(1), timeout=timeout)


# -- who may wait


async def test_a_caller_that_would_not_wait_is_told_the_state() -> None:
    rig = Rig(lazy=True)
    async with rig.running():
        with pytest.raises(NotReady, match="the connection is idle") as caught:
            await rig.call("never", wait=False)
        assert (caught.value.attempts, caught.value.outcome, rig.dialer.dials) == (0, "not_run", 0)
        await rig.call("answer")
        assert await rig.call("answer", wait=False) == "answer"


async def test_a_call_too_many_is_refused_at_once() -> None:
    rig = Rig(Policy(max_waiting=3))
    rig.dialer.always = failing(REFUSED)
    async with anyio.create_task_group() as group, rig.running():

        async def wait() -> None:
            with pytest.raises(ConnectionClosed):
                await rig.call("never")

        for _ in range(3):
            group.start_soon(wait)
        await checkpoints(5)
        with pytest.raises(Overloaded, match="3 calls are waiting already") as caught:
            await rig.call("never")
        assert (caught.value.outcome, caught.value.attempts) == ("not_run", 0)


async def test_no_more_calls_are_issued_at_once_than_the_policy_says() -> None:
    rig = Rig(Policy(max_in_flight=4))
    most = 0

    async def attempt(attempt: Attempt) -> None:
        nonlocal most
        most = max(most, rig.lifecycle.gate.in_flight)
        await anyio.sleep(1)

    async with rig.running(), anyio.create_task_group() as group:
        for _ in range(20):
            group.start_soon(rig.call, attempt)
    assert most == 4
    assert anyio.current_time() >= 5


@pytest.mark.parametrize("callers", [2, 3, 10])
async def test_a_call_let_through_at_the_loss_waits_again(callers: int) -> None:
    rig = Rig(Policy(max_in_flight=1))
    async with rig.running():
        await rig.ready()
        answers: list[Any] = []

        # The first meets a lost session; its permit goes to the second before anybody knows.
        async def attempt(attempt: Attempt) -> str:
            await checkpoint()
            if rig.lifecycle.epoch == 1:
                raise CallError(GONE)
            return "answer"

        async def call() -> None:
            answers.append(await rig.call(attempt, attempt))

        async with anyio.create_task_group() as group:
            for _ in range(callers):
                group.start_soon(call)
        assert answers == ["answer"] * callers
    assert rig.lifecycle.gate.in_flight == 0


# -- cancellation


@pytest.mark.parametrize("steps", range(25))
@pytest.mark.parametrize("story", ["ready", "refused", "cut", "waiting"])
async def test_a_caller_cancelled_anywhere_leaves_nothing_behind(story: str, steps: int) -> None:
    rig = Rig(Policy(max_in_flight=1), lazy=story == "waiting")
    answers: dict[str, list[Any]] = {
        "ready": [lambda _: checkpoints(6)],
        "refused": [CallError(GONE), lambda _: checkpoints(3)],
        "cut": [CallError(CUT), lambda _: checkpoints(3)],
        "waiting": [lambda _: checkpoints(3)],
    }
    async with rig.running():
        if story != "waiting":
            await rig.ready()
        async with anyio.create_task_group() as group:
            # Two: one of them waits for the other.
            for _ in range(2):

                async def call() -> None:
                    await rig.call(*answers[story], safe=True)

                group.start_soon(call)
            await checkpoints(steps)
            group.cancel_scope.cancel()
        gate = rig.lifecycle.gate
        assert (gate.in_flight, gate.waiting) == (0, 0)
        assert all(session.in_flight == 0 for session in rig.supervisor.dialling.sessions)
        assert rig.lifecycle.state is not State.FAILED
        assert await rig.call("answer") == "answer"
        # A session that was lost while callers left is gone permanently.
        await checkpoints(10)
        assert len(rig.supervisor.dialling.sessions) == 1


async def test_a_cancelled_call_says_nothing_about_the_connection() -> None:
    rig = Rig()
    async with rig.running():
        with anyio.move_on_after(3):
            await rig.call(answering(100))
        await checkpoints(5)
        assert rig.events == ["connect", "established"]
        finished = rig.notices[-1]
        assert finished.outcome == "cancelled"


async def test_an_interrupt_in_a_call_is_no_fault_of_the_connection() -> None:
    rig = Rig()
    error = InterruptedError("Invalid or expired session")
    async with rig.running():
        with pytest.raises(InterruptedError) as caught:
            await rig.call(error, "never", safe=True)
        assert caught.value is error
        assert rig.events == ["connect", "established"]


# -- a caller with worries of its own


@pytest.mark.parametrize(
    "worry",
    [asyncio.CancelledError(), InterruptedError(), MCPError(-32600, "Session not found"), KeyError("x")],
    ids=["cancelled", "interrupted", "session", "key"],
)
@pytest.mark.parametrize(
    ("error", "answers", "epoch"),
    [(ConnectionResetError(), True, 1), (anyio.ClosedResourceError(), True, 2), (ValueError("bad"), False, 1)],
    ids=["reset", "closed", "odd"],
)
async def test_what_a_caller_is_handling_when_it_calls_is_no_evidence(
    worry: BaseException, error: Exception, answers: bool, epoch: int
) -> None:
    rig = Rig()
    count = 0

    async def attempt(attempt: Attempt) -> str:
        nonlocal count
        count += 1
        if count == 1:
            raise error
        return "answer"

    async with rig.running():
        try:
            raise worry
        except BaseException:
            if answers:
                assert await rig.call(attempt, attempt, safe=True) == "answer"
            else:
                with pytest.raises(ValueError, match="bad") as caught:
                    await rig.call(attempt, attempt, safe=True)
                assert caught.value is error
        assert rig.lifecycle.epoch == epoch


# -- errors


async def test_an_error_says_what_happened_to_which_server_and_what_to_do() -> None:
    rig = Rig()
    async with rig.running():
        with pytest.raises(OutcomeUnknown) as caught:
            await rig.call(CallError(CUT))
        assert str(caught.value) == (
            "fake: the connection was cut (reset); the tool may have run. Check before calling again, or call with "
            "idempotent=True if that is harmless"
        )
        assert isinstance(caught.value.__cause__, CallError)
        with pytest.raises(CallFailed) as refused:
            await rig.call(CallError(Evidence(http_status=403)))
        assert str(refused.value).endswith("(HTTP 403); the call was not run")


async def test_calls_are_counted_with_outcomes() -> None:
    rig = Rig()
    async with rig.running():
        await rig.call("answer")
        await rig.call(CallError(GONE), "answer")
        for error in (CallError(CUT), CallError(Evidence(http_status=403)), MCPError(1, "no")):
            with pytest.raises(MCPError):
                await rig.call(error)
        with pytest.raises(CallTimeout):
            await rig.call(answering(10), timeout=1)
        counts = rig.journal.counts
        assert counts["calls"] == 6
        assert {key: value for key, value in counts.items() if key.startswith("outcome.")} == {
            "outcome.answered": 2,
            "outcome.unknown": 2,
            "outcome.not_run": 1,
            "outcome.error": 1,
        }
        assert counts["replayed"] == 1


async def test_a_stale_failure_of_a_call_does_not_hurt_the_next_session() -> None:
    rig = Rig()
    async with rig.running():
        await rig.ready()
        async with anyio.create_task_group() as group:

            async def late(attempt: Attempt) -> None:
                await anyio.sleep(5)
                raise CallError(GONE)

            group.start_soon(rig.call, late, "answer")
            await checkpoints(5)
            rig.lifecycle.report(1, classify(GONE))
        assert rig.lifecycle.epoch == 2
        assert rig.events.count("lost") == 1
