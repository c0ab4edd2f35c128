"""The task that owns a connection's life, on a wire that does as it is told."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint

from mcpconn import (
    ConnectionClosed,
    ConnectionFailed,
    Delivery,
    Event,
    Evidence,
    Failure,
    FailureKind,
    OutcomeUnknown,
    Policy,
    State,
    classify,
)
from mcpconn.core.decide import SUSPICION_INTERVAL
from mcpconn.runtime.lifecycle import Lifecycle
from mcpconn.runtime.session import Session
from tests.runtime.fakes import CUT, GONE, REFUSED, CallError, FakeLink, Rig, answering, failing

pytestmark = pytest.mark.anyio

K = FailureKind


async def checkpoints(count: int) -> None:
    for _ in range(count):
        await checkpoint()


async def reached(lifecycle: Lifecycle, state: State) -> None:
    while lifecycle.state is not state:
        await lifecycle.changed()


async def test_a_transport_that_ends_while_opening_is_a_failed_dial() -> None:
    rig = Rig()

    async def stillborn(link: FakeLink) -> None:
        link.ended = ConnectionResetError("exited with 3")

    rig.dialer.plans = [stillborn]
    async with rig.running():
        await rig.ready()
        assert rig.events == ["connect", "attempt_failed", "established"]
        assert rig.lifecycle.epoch == 1
        assert rig.lifecycle.last_failure is not None
        assert "exited with 3" in rig.lifecycle.last_failure.summary
        assert rig.dialer.at[1] - rig.dialer.at[0] >= 0.8
        assert rig.dialer.links[0].closed


async def test_a_transport_that_ends_right_after_the_handshake_is_a_lost_session() -> None:
    rig = Rig()

    async def established(session: Session) -> None:
        if session.epoch == 1:
            rig.link.idle_failure(Evidence(exception=anyio.EndOfStream(), phase="idle"))

    rig.carried.beside_calls = established  # type: ignore[method-assign]
    async with rig.running():
        await reached(rig.lifecycle, State.RECONNECTING)
        await rig.ready()
        assert rig.events == ["connect", "established", "lost", "established"]
        # Not proven: the next dial waits.
        assert rig.dialer.at[1] - rig.dialer.at[0] >= 0.8


async def test_a_failed_dial_leaves_nothing_for_the_garbage_collector() -> None:
    rig = Rig()
    errors: list[weakref.ref[CallError]] = []

    async def plan(_: FakeLink) -> None:
        await checkpoint()
        error = CallError(REFUSED)
        errors.append(weakref.ref(error))
        try:
            raise error
        finally:
            # A frame that holds the error that it raises is a cycle of the test's own.
            del error

    rig.dialer.always = plan
    gc.disable()
    try:
        async with rig.running():
            await anyio.sleep(20)
            assert len(errors) > 3
            assert [error for error in errors[:-1] if error() is not None] == []
    finally:
        gc.enable()


async def test_an_errand_that_raises_is_reported() -> None:
    rig = Rig()
    told: list[tuple[str, str]] = []
    rig.journal.report = lambda what, error: told.append((what, str(error)))

    async def broken(session: Session) -> None:
        raise ValueError("mistaken")

    rig.carried.beside_calls = broken  # type: ignore[method-assign]
    async with rig.running():
        await rig.call("answer")
        assert told == [("errand", "mistaken")]
        assert (rig.lifecycle.state, rig.lifecycle.epoch) == (State.READY, 1)


@pytest.mark.parametrize("error", [RuntimeError("odd"), ValueError("session expired"), ConnectionRefusedError()])
async def test_a_session_that_breaks_down_from_within_is_lost_whatever_broke_it(error: Exception) -> None:
    rig = Rig()
    async with rig.running():
        await rig.ready()
        rig.link.break_down(error)
        await reached(rig.lifecycle, State.RECONNECTING)
        await rig.ready()
        assert rig.events == ["connect", "established", "lost", "established"]
        assert rig.lifecycle.last_failure is not None
        assert (rig.lifecycle.last_failure.kind, rig.lifecycle.last_failure.proof) == (K.TRANSPORT_LOST, True)


@pytest.mark.parametrize("moment", range(12))
async def test_closing_at_any_moment_of_a_dial_leaves_no_session_behind(moment: int) -> None:
    rig = Rig()
    async with anyio.create_task_group() as group:

        async def close_later() -> None:
            await checkpoints(moment)
            rig.lifecycle.close()

        async def plan(link: FakeLink) -> None:
            group.start_soon(close_later)

        rig.dialer.plans = [plan]
        # An illegal transition would come out of it.
        group.start_soon(rig.supervisor.run)
    assert rig.events[-1] == "close"
    assert all(link.closed for link in rig.dialer.links)
    assert rig.dialer.shut


async def test_closing_during_a_dial_that_hangs_does_not_wait_for_it() -> None:
    rig = Rig()

    async def hang(link: FakeLink) -> None:
        rig.lifecycle.close()
        await anyio.sleep_forever()

    rig.dialer.plans = [hang]
    started = anyio.current_time()
    await rig.supervisor.run()
    assert rig.lifecycle.state is State.CLOSED
    assert anyio.current_time() == started


@pytest.mark.parametrize("result", ["passes", "fails", "hangs"])
async def test_a_probe_under_way_when_the_connection_is_closed_changes_nothing(result: str) -> None:
    rig = Rig()
    async with rig.running():
        await rig.ready()
        going_on = anyio.Event()

        async def probe() -> None:
            going_on.set()
            await anyio.sleep(1 if result != "hangs" else 1000)
            if result == "fails":
                raise CallError(GONE)

        rig.link.on_probe = probe
        rig.lifecycle.report(1, classify(CUT))
        await going_on.wait()
        # A call in flight keeps the session open until the probe has ended.
        async with anyio.create_task_group() as group:
            group.start_soon(rig.call, answering(2))
            await checkpoints(5)
            rig.lifecycle.close()
        assert rig.events == ["connect", "established", "suspected", "close"]


async def test_closing_releases_those_who_wait_for_a_probe() -> None:
    rig = Rig()
    async with rig.running():
        await rig.ready()
        rig.link.on_probe = anyio.sleep_forever
        session = rig.lifecycle.session
        assert session is not None
        rig.lifecycle.report(1, classify(CUT))
        async with anyio.create_task_group() as group:
            group.start_soon(rig.lifecycle.wait_for_probe, session)
            await checkpoints(5)
            rig.lifecycle.close()


async def test_a_failure_reported_for_an_old_epoch_changes_nothing() -> None:
    rig = Rig()
    async with rig.running():
        await rig.ready()
        rig.lifecycle.report(1, classify(GONE))
        await rig.ready()
        assert rig.lifecycle.epoch == 2
        for failure in (classify(GONE), classify(CUT)):
            rig.lifecycle.report(1, failure)
            rig.lifecycle.report(0, failure)
        await checkpoints(5)
        assert (rig.lifecycle.state, rig.lifecycle.epoch) == (State.READY, 2)
        assert rig.link.asked == []


async def test_100_failures_cause_one_reconnect() -> None:
    rig = Rig()
    async with rig.running():
        await rig.ready()
        for _ in range(100):
            rig.lifecycle.report(1, classify(GONE))
        await rig.ready()
        assert (rig.dialer.dials, rig.events.count("lost")) == (2, 1)


async def test_probes_run_one_at_a_time() -> None:
    rig = Rig()
    async with rig.running():
        await rig.ready()
        for _ in range(10):
            rig.lifecycle.report(1, classify(CUT))
        session = rig.lifecycle.session
        assert session is not None
        await rig.lifecycle.wait_for_probe(session)
        assert rig.link.asked == ["ping"]
        assert not rig.lifecycle.probe.under_way
        rig.lifecycle.report(1, classify(CUT))
        await rig.lifecycle.wait_for_probe(session, deferred=True)
        # The second looks closer: nothing but failures came since the first.
        assert rig.link.asked == ["ping", "ping", "tools/list"]
        assert rig.events == ["connect", "established", "suspected", "suspected"]


@pytest.mark.parametrize("evidence", [GONE, CUT])
async def test_a_probe_of_an_old_session_that_ends_late_does_not_touch_the_new_one(evidence: Evidence) -> None:
    rig = Rig()
    async with rig.running():
        await rig.ready()
        late = anyio.Event()

        async def probe() -> None:
            await late.wait()
            raise CallError(evidence)

        rig.link.on_probe = probe
        rig.lifecycle.report(1, classify(CUT))
        await checkpoints(5)
        rig.lifecycle.report(1, classify(GONE))
        await rig.ready()
        # The new session is under suspicion itself when the old probe ends.
        rig.link.on_probe = anyio.sleep_forever
        await anyio.sleep(SUSPICION_INTERVAL)
        rig.lifecycle.report(2, classify(CUT))
        probing = rig.lifecycle.probe.pending()
        assert probing is not None
        late.set()
        await checkpoints(10)
        assert rig.lifecycle.probe.pending() is probing
        assert (rig.lifecycle.state, rig.lifecycle.epoch) == (State.READY, 2)


async def test_an_unanswered_probe_is_proof() -> None:
    rig = Rig(Policy(probe_timeout=5))
    async with rig.running():
        await rig.ready()
        rig.link.on_probe = anyio.sleep_forever
        started = anyio.current_time()
        rig.lifecycle.report(1, classify(CUT))
        await reached(rig.lifecycle, State.RECONNECTING)
        assert anyio.current_time() - started == pytest.approx(5)
        assert rig.dialer.links[0].lost
        await rig.ready()


async def test_a_call_in_flight_is_not_cut_off_when_its_session_is_given_up() -> None:
    rig = Rig()
    async with rig.running():
        await rig.ready()
        async with anyio.create_task_group() as group:
            results: list[Any] = []

            async def slow() -> None:
                results.append(await rig.call(answering(30, "late")))

            group.start_soon(slow)
            await checkpoints(5)
            old = rig.link
            rig.lifecycle.report(1, classify(GONE))
            await rig.ready()
            assert rig.lifecycle.epoch == 2
            assert not old.closed
        assert results == ["late"]
        await checkpoints(5)
        assert old.closed
        assert rig.lifecycle.epoch == 2


@pytest.mark.parametrize("hanging", [False, True])
async def test_closing_waits_for_calls_in_flight_within_the_drain_timeout(hanging: bool) -> None:
    rig = Rig(Policy(drain_timeout=5))
    outcome: list[str] = []

    async def slow() -> None:
        try:
            outcome.append(await rig.call(answering(1000 if hanging else 2)))
        except OutcomeUnknown as error:
            outcome.append(f"unknown, and the connection {error.state}")

    async with anyio.create_task_group() as group:
        async with rig.running():
            await rig.ready()
            group.start_soon(slow)
            await checkpoints(5)
            started = anyio.current_time()
            rig.lifecycle.close()
        assert anyio.current_time() - started <= 5
    assert outcome == ["unknown, and the connection closed" if hanging else "answer"]


async def test_calls_that_wait_fail_at_once_when_the_connection_is_closed() -> None:
    rig = Rig()
    rig.dialer.always = failing(REFUSED)
    async with anyio.create_task_group() as group, rig.running():

        async def call() -> None:
            with pytest.raises(ConnectionClosed) as caught:
                await rig.call("never")
            assert (caught.value.attempts, caught.value.outcome) == (0, "not_run")

        for _ in range(3):
            group.start_soon(call)
        await checkpoints(20)
        rig.lifecycle.close()


async def test_transient_failures_give_up_and_probe_again() -> None:
    rig = Rig(Policy(cool_down=30))
    rig.dialer.always = failing(REFUSED)
    async with rig.running():
        await reached(rig.lifecycle, State.FAILED)
        assert anyio.current_time() - rig.dialer.at[0] >= 30
        dials = rig.dialer.dials
        assert dials >= 3
        with pytest.raises(ConnectionFailed) as caught:
            await rig.call("never")
        assert caught.value.retry_in is not None
        assert 23 <= caught.value.retry_in <= 37
        assert (caught.value.outcome, caught.value.failure.delivery) == ("not_run", Delivery.NOT_SENT)
        await reached(rig.lifecycle, State.RECONNECTING)
        await reached(rig.lifecycle, State.FAILED)
        # A half-open probe gives up at once, and the next is twice as far away.
        assert rig.dialer.dials == dials + 1
        assert rig.lifecycle.retry_in is not None
        assert 47 <= rig.lifecycle.retry_in <= 73
        rig.dialer.always = lambda link: checkpoint()
        await reached(rig.lifecycle, State.READY)
        assert rig.dialer.dials == dials + 2


async def test_new_credentials_give_a_half_open_dial_a_successor() -> None:
    rig = Rig(Policy(cool_down=30))
    rig.dialer.always = failing(REFUSED)
    async with rig.running():
        await reached(rig.lifecycle, State.FAILED)
        given = anyio.Event()

        async def refuse_late(link: FakeLink) -> None:
            await given.wait()
            raise CallError(REFUSED)

        rig.dialer.plans = [refuse_late]
        await reached(rig.lifecycle, State.RECONNECTING)
        await checkpoints(20)
        rig.lifecycle.credentials_changed()
        given.set()
        # That dial was made with the old ones. The next, with the new, is made after the backoff, not the cool-down.
        rig.dialer.always = lambda link: checkpoint()
        await reached(rig.lifecycle, State.READY)
        assert rig.events[-3:] == ["retry", "attempt_failed", "established"]


@pytest.mark.parametrize(
    "evidence",
    [Evidence(exception=FileNotFoundError("nope"), phase="dial"), Evidence(http_status=401, phase="dial")],
    ids=["config", "auth"],
)
async def test_what_needs_a_person_is_dialled_once(evidence: Evidence) -> None:
    rig = Rig()
    rig.dialer.always = failing(evidence)
    async with rig.running():
        await reached(rig.lifecycle, State.FAILED)
        assert (rig.dialer.dials, rig.lifecycle.retry_in) == (1, None)
        await anyio.sleep(10_000)
        assert rig.dialer.dials == 1
        rig.dialer.always = lambda link: checkpoint()
        rig.lifecycle.reconnect()
        await rig.ready()
        assert rig.dialer.dials == 2


def failed_once(rig: Rig) -> Failure:
    assert rig.lifecycle.last_failure is not None
    return rig.lifecycle.last_failure


@pytest.mark.parametrize("times", [1, 3])
async def test_reconnecting_a_ready_connection_is_no_failure(times: int) -> None:
    rig = Rig()
    async with rig.running():
        await rig.ready()
        for _ in range(times):
            rig.lifecycle.reconnect()
        await rig.ready()
        # Several wishes in one moment are one wish: the first has already begun.
        assert rig.events == ["connect", "established", "recycle", "connect", "established"]
        assert rig.lifecycle.epoch == 2
        await checkpoints(5)
        assert rig.dialer.links[0].closed
        assert not rig.dialer.links[0].lost


async def test_reconnecting_a_connection_that_waits_for_its_next_dial_dials_at_once() -> None:
    rig = Rig()
    rig.dialer.plans = [failing(REFUSED)] * 4
    async with rig.running():
        while rig.dialer.dials < 4 or rig.lifecycle.schedule.due is None:
            await rig.lifecycle.changed()
        before = anyio.current_time()
        rig.lifecycle.reconnect()
        await rig.ready()
        assert anyio.current_time() == before
        assert rig.dialer.dials == 5


async def test_reconnect_starts_a_lazy_connection() -> None:
    rig = Rig(lazy=True)
    async with rig.running():
        await checkpoints(10)
        assert rig.dialer.dials == 0
        rig.lifecycle.reconnect()
        await rig.ready()
        assert rig.events == ["connect", "established"]


async def test_reconnecting_during_a_dial_starts_no_second_one() -> None:
    rig = Rig()

    async def slow(link: FakeLink) -> None:
        await anyio.sleep(3)

    rig.dialer.plans = [slow]
    async with rig.running():
        await checkpoints(5)
        rig.lifecycle.reconnect()
        await rig.ready()
        assert (rig.dialer.dials, rig.events) == (1, ["connect", "established"])


async def test_a_lazy_connection_waits_for_a_call() -> None:
    rig = Rig(lazy=True)
    async with rig.running():
        await anyio.sleep(100)
        assert (rig.dialer.dials, rig.lifecycle.state) == (0, State.IDLE)
        assert await rig.call("answer") == "answer"
        assert rig.dialer.dials == 1


async def test_a_dial_that_takes_too_long_is_given_up_and_says_so() -> None:
    rig = Rig(Policy(connect_timeout=20))
    rig.dialer.plans = [lambda link: anyio.sleep_forever()]
    async with rig.running():
        await rig.ready()
        assert rig.events == ["connect", "attempt_failed", "established"]
        assert failed_once(rig).summary == "no handshake within 20 s"
        assert rig.dialer.at[1] - rig.dialer.at[0] >= 20.8


async def test_a_servers_retry_after_is_kept_once() -> None:
    rig = Rig()
    busy = Evidence(http_status=503, content_type="", retry_after=7.0, phase="dial")
    rig.dialer.plans = [failing(busy), failing(REFUSED)]
    async with rig.running():
        await rig.ready()
        first, second, third = rig.dialer.at
        assert second - first >= 7
        # The second refusal asked for nothing: the first one's wish is spent.
        assert third - second <= 1.6 * 1.2


async def test_a_probe_refused_with_retry_after_delays_the_next_dial_once() -> None:
    rig = Rig()
    async with rig.running():
        await rig.ready()

        async def probe() -> None:
            raise CallError(Evidence(http_status=503, content_type="", retry_after=5.0, phase="probe"))

        rig.link.on_probe = probe
        rig.dialer.plans = [failing(REFUSED)]
        await rig.call("proves the session")
        lost = anyio.current_time()
        rig.lifecycle.report(1, classify(CUT))
        await reached(rig.lifecycle, State.RECONNECTING)
        await rig.ready()
        assert rig.dialer.at[1] - lost >= 5
        assert rig.dialer.at[2] - rig.dialer.at[1] <= 1.2


async def test_closing_twice_is_harmless() -> None:
    rig = Rig()
    rig.lifecycle.close()
    rig.lifecycle.close()
    await rig.supervisor.run()
    assert rig.events == ["close"]
    assert rig.dialer.dials == 0
    with pytest.raises(ConnectionClosed):
        await rig.call("never")


async def test_cancelled_owners_close_connections() -> None:
    rig = Rig()
    async with anyio.create_task_group() as group:
        group.start_soon(rig.supervisor.run)
        await rig.ready()
        group.cancel_scope.cancel()
    assert rig.lifecycle.state is State.CLOSED
    assert rig.link.closed
    assert rig.dialer.shut
    assert rig.events == ["connect", "established", "close"]


@pytest.mark.parametrize("state", list(State))
async def test_every_state_can_be_closed(state: State) -> None:
    rig = Rig(lazy=state is State.IDLE)

    async def stuck(link: FakeLink) -> None:
        await anyio.sleep_forever()

    if state is State.CONNECTING:
        rig.dialer.always = stuck
    elif state is State.FAILED:
        rig.dialer.always = failing(Evidence(http_status=401, phase="dial"))
    elif state is State.RECONNECTING:
        rig.dialer.plans, rig.dialer.always = [lambda link: checkpoint()], stuck
    async with rig.running():
        if state is State.RECONNECTING:
            await rig.ready()
            rig.lifecycle.report(1, classify(GONE))
        if state is State.CLOSED:
            rig.lifecycle.close()
        await reached(rig.lifecycle, state)
        await checkpoints(10)
    assert rig.lifecycle.state is State.CLOSED
    assert rig.events.count("close") == 1
    assert Event.CLOSE.value == rig.events[-1]


@pytest.mark.parametrize("complaint", [False, True])
async def test_an_unanswered_keepalive_is_proof_where_a_call_complains_meanwhile(complaint: bool) -> None:
    rig = Rig(Policy(keepalive=30, probe_timeout=5))
    async with rig.running():
        await rig.call("answer")
        rig.link.on_probe = anyio.sleep_forever
        await anyio.sleep(31)
        assert rig.link.asked == ["ping"]
        if complaint:
            rig.lifecycle.report(1, classify(CUT))
        await anyio.sleep(10)
        # By itself it is not: a busy server gets more than one chance.
        assert rig.lifecycle.epoch == (2 if complaint else 1)


async def test_sessions_forgotten_by_replicas_are_probed_twice() -> None:
    rig = Rig()
    async with rig.running():
        for _ in range(3):
            await rig.call(CallError(GONE), "answer")
        assert rig.lifecycle.schedule.replicas_suspected
        epoch, answers = rig.lifecycle.epoch, [True, False, True, True]

        async def probe() -> None:
            if answers.pop():
                raise CallError(GONE)

        rig.link.on_probe = probe
        rig.lifecycle.probe.answered.add("ping")
        # One replica says that the session is gone, another knows it.
        assert await rig.call(CallError(GONE), "answer") == "answer"
        assert (rig.lifecycle.epoch, rig.link.asked, answers) == (epoch, ["ping"] * 3, [True])
        answers += [True, True, True, True]
        await anyio.sleep(SUSPICION_INTERVAL)
        assert await rig.call(CallError(GONE), "answer") == "answer"
        assert rig.lifecycle.epoch == epoch + 1
        assert failed_once(rig).summary.endswith("several replicas behind a balancer without sticky sessions")


async def test_a_transport_reporting_its_end_again_is_lost_once() -> None:
    rig = Rig()
    async with rig.running():
        await rig.ready()
        link = rig.dialer.links[0]
        # What a child does whose process is gone, and whose pipes are held open by another one.
        link.mark_lost = lambda: link.idle_failure(Evidence(exception=anyio.EndOfStream()))  # type: ignore[method-assign]

        async def refused() -> None:
            raise CallError(GONE)

        link.on_probe = refused
        rig.lifecycle.report(1, classify(CUT))
        await reached(rig.lifecycle, State.RECONNECTING)
        await rig.ready()
        assert rig.events == ["connect", "established", "suspected", "lost", "established"]
        assert rig.lifecycle.epoch == 2
