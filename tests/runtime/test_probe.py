"""When a suspected session is probed, and what the answers say: on a wire that does as it is told."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from itertools import pairwise
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint
from mcp import MCPError

from mcpconn import ConnectionFailed, Evidence, FailureKind, OutcomeUnknown, Policy, State, classify
from mcpconn.core.decide import SUSPICION_INTERVAL
from mcpconn.core.failures import Failure
from tests.runtime.fakes import CUT, GONE, UNLISTED, CallError, FakeLink, Rig

pytestmark = pytest.mark.anyio

ODD = Evidence(code=-32603, message="Oops", from_wire=True, http_status=200)
OWN = Evidence(code=-32602, message="no such thing", from_wire=True, http_status=200)
UNKNOWN_METHOD = Evidence(code=-32601, message="Method not found", from_wire=True, http_status=200)
BUSY = Evidence(http_status=429)


async def answers() -> None:
    await checkpoint()


def refuses(evidence: Evidence) -> Callable[[], Awaitable[None]]:
    """A probe request that is refused so."""

    async def refuse() -> None:
        await checkpoint()
        raise CallError(evidence)

    return refuse


def told(evidence: Evidence) -> Failure:
    return classify(evidence)


async def suspect(rig: Rig, evidence: Evidence = ODD) -> None:
    """Make the session suspect, and wait until that is settled."""
    session = rig.lifecycle.session
    assert session is not None
    rig.lifecycle.report(rig.lifecycle.epoch, told(evidence))
    await rig.lifecycle.wait_for_probe(session, deferred=True)


# -- when


async def test_suspicions_are_probed_3_s_apart_at_least_and_always() -> None:
    rig = Rig()
    at: list[float] = []

    async def note() -> None:
        at.append(anyio.current_time())

    async with rig.running():
        await rig.ready()
        rig.link.probes = ("ping",)
        rig.link.on_probe = note
        started = anyio.current_time()
        while anyio.current_time() < started + 60:
            rig.lifecycle.report(1, told(ODD))
            await anyio.sleep(0.1)
        gaps = [after - before for before, after in pairwise(at)]
        assert 19 <= len(at) <= 21
        # Never closer, and never further apart: a server that forgets its session late is found out as soon.
        assert min(gaps) >= SUSPICION_INTERVAL
        assert max(gaps) <= SUSPICION_INTERVAL + 0.2
        assert rig.lifecycle.epoch == 1


async def test_a_suspicion_that_has_to_wait_is_probed_by_itself() -> None:
    rig = Rig()
    async with rig.running():
        await rig.ready()
        await suspect(rig)
        await anyio.sleep(1)
        rig.lifecycle.report(1, told(ODD))
        await anyio.sleep(SUSPICION_INTERVAL - 1.1)
        assert rig.link.asked == ["ping"]
        rig.link.on_probe = refuses(UNLISTED)
        await anyio.sleep(0.2)
        await rig.ready()
        assert rig.lifecycle.epoch == 2


async def test_a_suspicion_that_waits_is_dropped_when_a_call_is_answered() -> None:
    rig = Rig()
    async with rig.running():
        await rig.ready()
        await suspect(rig)
        rig.lifecycle.report(1, told(ODD))
        assert await rig.call("answer") == "answer"
        await anyio.sleep(2 * SUSPICION_INTERVAL)
        assert rig.link.asked == ["ping"]
        assert rig.lifecycle.probe.due is None
        assert rig.events == ["connect", "established", "suspected"]


async def test_a_waiting_suspicion_ends_with_its_session() -> None:
    rig = Rig()
    async with rig.running():
        await rig.ready()
        await suspect(rig)
        rig.lifecycle.report(1, told(ODD))
        rig.lifecycle.report(1, told(GONE))
        await rig.ready()
        await anyio.sleep(2 * SUSPICION_INTERVAL)
        assert (rig.lifecycle.epoch, rig.link.asked) == (2, [])


async def test_an_ended_child_is_probed_for_1_s() -> None:
    class Returned(ConnectionResetError):
        """Its process has returned, and its pipes are still open."""

        transport_ended = False

    rig = Rig()
    async with rig.running():
        assert await rig.call("answer") == "answer"
        await suspect(rig)
        rig.link.on_probe = anyio.sleep_forever
        started = anyio.current_time()
        await suspect(rig, Evidence(exception=Returned("exited with 0"), phase="idle"))
        await rig.ready()
        assert rig.lifecycle.epoch == 2
        assert anyio.current_time() - started == pytest.approx(1, abs=0.01)


# -- what


async def test_an_unanswered_ping_is_followed_by_a_listing() -> None:
    rig = Rig(Policy(probe_timeout=5))
    async with rig.running():
        await rig.ready()
        rig.link.on_probe, rig.link.on_listing = anyio.sleep_forever, answers
        started = anyio.current_time()
        await suspect(rig)
        assert rig.link.asked == ["ping", "tools/list"]
        assert anyio.current_time() - started == pytest.approx(2)
        # Known by now: this session does not answer a ping.
        await anyio.sleep(10)
        started = anyio.current_time()
        await suspect(rig)
        assert rig.link.asked == ["ping", "tools/list", "tools/list"]
        assert anyio.current_time() - started < 0.1
        assert rig.lifecycle.epoch == 1


async def test_a_keepalive_of_a_server_that_drops_pings_leaves_it_alone() -> None:
    rig = Rig(Policy(keepalive=10))
    async with rig.running():
        await rig.call("answer")
        rig.link.on_probe, rig.link.on_listing = anyio.sleep_forever, answers
        await anyio.sleep(300)
        assert rig.lifecycle.epoch == 1
        assert rig.link.asked[:2] == ["ping", "tools/list"]
        assert set(rig.link.asked[2:]) == {"tools/list"}


async def test_late_answers_to_a_ping_count() -> None:
    rig = Rig(Policy(probe_timeout=5))

    async def late() -> None:
        await anyio.sleep(4)

    async with rig.running():
        await rig.ready()
        rig.link.on_probe, rig.link.on_listing = late, anyio.sleep_forever
        await suspect(rig)
        assert rig.lifecycle.epoch == 1


async def test_silence_on_both_is_proof_within_the_probe_timeout() -> None:
    rig = Rig(Policy(probe_timeout=5))
    async with rig.running():
        await rig.ready()
        rig.link.on_probe = anyio.sleep_forever
        started = anyio.current_time()
        await suspect(rig)
        assert anyio.current_time() - started == pytest.approx(5)
        await rig.ready()
        assert rig.lifecycle.epoch == 2


@pytest.mark.parametrize("evidence", [UNKNOWN_METHOD, UNLISTED, ODD, OWN, Evidence(http_status=403)])
async def test_a_ping_that_was_never_answered_leaves_it_to_the_listing(evidence: Evidence) -> None:
    rig = Rig()
    async with rig.running():
        await rig.ready()
        rig.link.on_probe, rig.link.on_listing = refuses(evidence), answers
        await suspect(rig)
        assert (rig.lifecycle.epoch, rig.link.asked) == (1, ["ping", "tools/list"])
        rig.link.on_listing = refuses(evidence)
        await suspect(rig)
        await rig.ready()
        assert rig.lifecycle.epoch == 2


@pytest.mark.parametrize("evidence", [UNKNOWN_METHOD, UNLISTED, ODD, OWN, Evidence(http_status=403), CUT, GONE])
async def test_a_ping_that_was_answered_before_is_proof_if_it_is_refused_now(evidence: Evidence) -> None:
    rig = Rig()
    async with rig.running():
        await rig.ready()
        await suspect(rig)
        rig.link.on_probe, rig.link.on_listing = refuses(evidence), answers
        await suspect(rig)
        await rig.ready()
        assert rig.lifecycle.epoch == 2
        assert rig.dialer.links[0].asked == ["ping", "ping"]


async def test_what_a_session_refused_must_be_answered_again_to_be_proof() -> None:
    rig = Rig()
    async with rig.running():
        await rig.ready()
        await suspect(rig)
        rig.link.on_probe, rig.link.on_listing = refuses(UNKNOWN_METHOD), answers
        await suspect(rig)
        await rig.ready()
        # A server that was replaced by one that does not know ping keeps its sessions from now on.
        rig.link.on_probe, rig.link.on_listing = refuses(UNKNOWN_METHOD), answers
        for _ in range(5):
            await suspect(rig)
        assert rig.lifecycle.epoch == 2


async def test_a_server_in_a_hurry_is_alive() -> None:
    rig = Rig()
    async with rig.running():
        await rig.ready()
        rig.link.on_probe = refuses(BUSY)
        await suspect(rig)
        assert (rig.lifecycle.epoch, rig.link.asked) == (1, ["ping"])


async def test_a_proxys_ping_does_not_save_a_session_for_long() -> None:
    rig = Rig()
    async with rig.running():
        await rig.call("answer")
        rig.lifecycle.probe.answered.add("tools/list")
        rig.link.on_listing = refuses(UNLISTED)
        started = anyio.current_time()
        await suspect(rig)
        assert rig.lifecycle.epoch == 1
        # Nothing but errors since: the second probe asks for a listing, too.
        await suspect(rig)
        await rig.ready()
        assert rig.lifecycle.epoch == 2
        assert anyio.current_time() - started == pytest.approx(SUSPICION_INTERVAL)


async def test_a_refusal_that_names_the_session_asks_for_a_listing_at_once() -> None:
    rig = Rig()
    refusal = Evidence(code=-32602, message="Invalid or expired session", from_wire=True, http_status=200)
    async with rig.running():
        await rig.call("answer")
        rig.link.on_listing = refuses(UNLISTED)
        assert await rig.call(CallError(refusal), "answer") == "answer"
        assert rig.lifecycle.epoch == 2


async def test_a_slow_listing_after_an_answered_ping_is_no_proof() -> None:
    rig = Rig()
    async with rig.running():
        await rig.ready()
        await suspect(rig)
        rig.link.on_listing = anyio.sleep_forever
        await suspect(rig)
        assert rig.link.asked == ["ping", "ping", "tools/list"]
        assert rig.lifecycle.epoch == 1


async def test_a_listing_that_never_works_costs_one_session_and_no_more() -> None:
    rig = Rig()

    async def broken(link: FakeLink) -> None:
        link.on_listing = refuses(ODD)

    rig.dialer.always = broken
    async with rig.running():
        for _ in range(10):
            assert await rig.call("answer") == "answer"
            await suspect(rig)
            await suspect(rig)
            await rig.ready()
        assert rig.lifecycle.epoch == 2


async def test_a_broken_listing_does_not_hide_a_forgotten_session() -> None:
    rig = Rig()

    async def broken(link: FakeLink) -> None:
        link.on_listing = refuses(ODD)

    rig.dialer.always = broken
    async with rig.running():
        assert await rig.call("answer") == "answer"
        await suspect(rig)
        await suspect(rig)
        await rig.ready()
        # The second session is asked for the listing as well.
        await anyio.sleep(1)
        assert await rig.call("answer") == "answer"
        assert (rig.lifecycle.epoch, rig.link.asked) == (2, ["tools/list"])
        # It has other words now; a proxy in front of it still answers `ping`.
        rig.link.on_listing = refuses(UNLISTED)
        await suspect(rig)
        await suspect(rig)
        await rig.ready()
        assert rig.lifecycle.epoch == 3


@pytest.mark.parametrize("trouble", [CUT, GONE], ids=["cut", "restarted again"])
async def test_trouble_on_a_new_session_excuses_no_refusal(trouble: Evidence) -> None:
    rig = Rig()

    async def troubled(link: FakeLink) -> None:
        link.on_probe = refuses(trouble)

    async with rig.running():
        await rig.ready()
        rig.dialer.plans.append(troubled)
        rig.link.on_probe = refuses(UNLISTED)
        await suspect(rig)
        # The next session is asked for what this one refused, in the middle of another restart. Then it works.
        await rig.ready()
        await anyio.sleep(1)
        assert rig.link.asked == ["tools/list"]
        assert await rig.call("answer") == "answer"
        rig.link.on_probe = refuses(UNLISTED)
        await suspect(rig)
        await rig.ready()
        assert rig.lifecycle.epoch == 3


@pytest.mark.parametrize("cut", [CUT, Evidence(http_status=503)], ids=["cut", "unavailable"])
async def test_a_call_answered_meanwhile_outweighs_a_probe_without_answer(cut: Evidence) -> None:
    rig = Rig()
    asked, answered = anyio.Event(), anyio.Event()

    async def late() -> None:
        asked.set()
        await answered.wait()
        raise CallError(cut)

    async with rig.running():
        await rig.ready()
        rig.link.on_probe = late
        rig.lifecycle.report(1, told(ODD))
        await asked.wait()
        assert await rig.call("answer") == "answer"
        answered.set()
        session = rig.lifecycle.session
        assert session is not None
        await rig.lifecycle.wait_for_probe(session)
        assert await rig.call("answer") == "answer"
        assert (rig.lifecycle.state, rig.lifecycle.epoch) == (State.READY, 1)


async def test_without_a_listing_a_ping_decides() -> None:
    rig = Rig()
    async with rig.running():
        await rig.ready()
        rig.link.probes = ("ping",)
        await suspect(rig)
        assert rig.lifecycle.epoch == 1
        rig.link.on_probe = refuses(UNLISTED)
        await suspect(rig)
        await rig.ready()
        assert rig.lifecycle.epoch == 2


# -- what a call is told


async def test_a_protocol_error_is_passed_on_after_a_probe() -> None:
    rig = Rig()
    async with rig.running():
        await rig.ready()
        error = MCPError(-32603, "Oops")
        with pytest.raises(MCPError) as caught:
            await rig.call(error, "never", safe=True)
        assert caught.value is error
        assert rig.link.asked == ["ping"]


async def test_within_3_s_of_an_answered_probe_an_error_is_passed_on_at_once() -> None:
    rig = Rig()
    async with rig.running():
        await rig.ready()
        started = anyio.current_time()
        for _ in range(20):
            with pytest.raises(CallError):
                await rig.call(CallError(ODD), "never")
        assert anyio.current_time() == started
        assert rig.link.asked == ["ping"]


async def test_after_a_lost_session_an_error_waits_for_the_probe_of_the_next_one() -> None:
    rig = Rig()
    async with rig.running():
        await rig.ready()
        rig.link.on_probe = refuses(UNLISTED)
        assert await rig.call(CallError(UNLISTED), "answer") == "answer"
        # The server restarts once more, a second later. The call can wait two seconds for the right answer.
        await anyio.sleep(1)
        rig.link.on_probe = refuses(UNLISTED)
        assert await rig.call(CallError(UNLISTED), "answer") == "answer"
        assert rig.lifecycle.epoch == 3


async def test_two_errors_make_a_session_suspect() -> None:
    rig = Rig()
    async with rig.running():
        assert await rig.call("answer") == "answer"
        rig.link.on_probe = refuses(OWN)
        with pytest.raises(CallError):
            await rig.call(CallError(OWN), "never", safe=True)
        assert rig.link.asked == []
        assert await rig.call(CallError(OWN), "answer", safe=True) == "answer"
        assert rig.lifecycle.epoch == 2


async def test_errors_with_results_between_them_are_the_tools_own() -> None:
    rig = Rig()
    async with rig.running():
        for _ in range(50):
            assert await rig.call("answer") == "answer"
            with pytest.raises(CallError):
                await rig.call(CallError(OWN), "never")
            await anyio.sleep(1)
        assert rig.link.asked == []


@pytest.mark.parametrize(("evidence", "safe"), [(ODD, False), (Evidence(http_status=503), False), (OWN, False)])
async def test_a_lost_session_does_not_make_an_unknown_outcome_known(evidence: Evidence, safe: bool) -> None:
    rig = Rig()
    async with rig.running():
        assert await rig.call("answer") == "answer"
        rig.link.on_probe = refuses(UNLISTED)
        if evidence is OWN:
            with pytest.raises(CallError):
                await rig.call(CallError(evidence), "never", safe=safe)
        with pytest.raises(OutcomeUnknown):
            await rig.call(CallError(evidence), "never", safe=safe)
        await anyio.sleep(10)
        assert rig.lifecycle.epoch == 2


# -- sessions without success


async def test_sessions_on_which_no_call_succeeds_end_in_failed_and_it_says_so() -> None:
    rig = Rig(Policy(patience=30, min_attempts=3))

    async def useless(link: FakeLink) -> None:
        link.on_probe = refuses(UNLISTED)

    async with rig.running():
        assert await rig.call("answer") == "answer"
        rig.dialer.always = useless
        rig.link.on_probe = refuses(UNLISTED)
        started = anyio.current_time()
        errors: list[Any] = []
        while rig.lifecycle.state is not State.FAILED:
            assert anyio.current_time() < started + 60
            with pytest.raises(MCPError) as caught:
                await rig.call(CallError(UNLISTED), CallError(UNLISTED))
            errors.append(caught.value)
            await anyio.sleep(1)
        assert anyio.current_time() - started >= 30
        assert rig.lifecycle.last_failure is not None
        assert "sessions in a row, and no call succeeded on any of them" in rig.lifecycle.last_failure.summary
        assert rig.lifecycle.last_failure.kind is FailureKind.SESSION_EXPIRED
        # It backs off: a handshake for each call would be a storm.
        assert 4 <= rig.dialer.dials <= 10
        with pytest.raises(ConnectionFailed) as refused:
            await rig.call("never")
        assert refused.value.retry_in == pytest.approx(30, rel=0.3)


async def test_one_useless_session_after_a_cool_down_is_enough() -> None:
    rig = Rig(Policy(patience=30, min_attempts=3))

    async def useless(link: FakeLink) -> None:
        link.on_probe = refuses(UNLISTED)

    rig.dialer.always = useless
    async with rig.running():
        while rig.lifecycle.state is not State.FAILED:
            with pytest.raises(MCPError):
                await rig.call(CallError(UNLISTED), CallError(UNLISTED))
            await anyio.sleep(1)
        waits = []
        for _ in range(3):
            waits.append(rig.lifecycle.retry_in or 0)
            before = rig.dialer.dials
            await anyio.sleep(waits[-1] + 1)
            assert rig.lifecycle.state is State.READY
            with pytest.raises(MCPError):
                await rig.call(CallError(UNLISTED), CallError(UNLISTED))
            assert (rig.lifecycle.state, rig.dialer.dials) == (State.FAILED, before + 1)
        assert waits[0] < waits[1] < waits[2]

        async def good(link: FakeLink) -> None:
            pass

        rig.dialer.always = good
        await anyio.sleep(400)
        assert await rig.call("answer") == "answer"
        rig.link.on_probe = refuses(UNLISTED)
        assert await rig.call(CallError(UNLISTED), "answer") == "answer"
        assert rig.lifecycle.state is State.READY


async def test_idle_sessions_are_not_useless() -> None:
    rig = Rig(Policy(keepalive=10))

    async def useless(link: FakeLink) -> None:
        link.on_probe = refuses(UNLISTED)

    rig.dialer.always = useless
    async with rig.running():
        await anyio.sleep(3600)
        assert rig.lifecycle.state is not State.FAILED
        assert rig.lifecycle.schedule.useless_sessions == 0


async def test_a_probes_retry_after_beyond_patience_is_failed() -> None:
    rig = Rig()
    async with rig.running():
        await rig.ready()
        rig.link.on_probe = refuses(Evidence(http_status=503, retry_after=3600))
        await suspect(rig)
        assert rig.lifecycle.state is State.FAILED
        assert rig.lifecycle.retry_in == pytest.approx(3600)
