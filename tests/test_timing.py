"""What takes time, in virtual time: backoff, deadlines, outages, servers that drop what they accept.

The real client on a scripted server inside the process. Nothing here waits for a clock on the wall.
"""

from __future__ import annotations

import random
from typing import Any, Literal

import anyio
import httpx2
import pytest

from mcpconn import (
    CallTimeout,
    Connection,
    ConnectionFailed,
    Event,
    FailureKind,
    Manager,
    OutcomeUnknown,
    Policy,
    State,
)
from mcpconn.testing import Script, ScriptTransport
from mcpconn.testing.clock import settle, virtual_backend, virtual_clock
from mcpconn.testing.scripted import faults
from tests.support import UNFINISHED_STREAMS, Requests, Seen, idle, played, quiet, text_of

pytestmark = [pytest.mark.anyio, UNFINISHED_STREAMS]

K = FailureKind
Era = Literal["legacy", "modern"]


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    return virtual_backend(request.param)


@pytest.fixture(params=["legacy", "modern"])
def era(request: pytest.FixtureRequest) -> Era:
    return request.param  # type: ignore[no-any-return]


@pytest.fixture(params=["json", "sse"])
def answer(request: pytest.FixtureRequest) -> Literal["json", "sse"]:
    return request.param  # type: ignore[no-any-return]


def dials(script: Script) -> int:
    """How often a session was opened, or tried to be."""
    return script.count("initialize" if script.era == "legacy" else "server/discover")


@pytest.mark.parametrize("tool", ["add", "charge"])
async def test_too_many_requests_are_answered_after_the_second_the_server_asked_for(
    tool: str, era: Era, answer: Literal["json", "sse"]
) -> None:
    script = Script(era=era, answer=answer)
    async with played(script) as (connection, _):
        before = dials(script)
        script.inject(faults.rate_limited(1))
        started = anyio.current_time()
        assert text_of(await connection.call_tool(tool, {"a": 2, "b": 3, "amount": 5})) in ("5", "charged 5")
        assert 1 <= anyio.current_time() - started < 1.1
        assert script.executions[tool] == (2 if tool == "add" else 1)
        assert (dials(script), connection.epoch) == (before, 1)


async def test_too_many_requests_without_a_time_are_waited_for_too(era: Era) -> None:
    script = Script(era=era)
    async with played(script, clock=virtual_clock(1)) as (connection, _):
        script.inject(faults.rate_limited(None))
        started = anyio.current_time()
        await connection.call_tool("charge")
        assert 0.8 <= anyio.current_time() - started <= 1.2


@pytest.mark.parametrize("timeout", [0.5, 3.0, 60.0])
@pytest.mark.parametrize("tool", ["add", "charge"])
async def test_unanswered_calls_end_at_a_deadline(
    tool: str, timeout: float, era: Era, answer: Literal["json", "sse"]
) -> None:
    script = Script(era=era, answer=answer)
    async with played(script) as (connection, _):
        script.inject(faults.hang())
        started = anyio.current_time()
        with pytest.raises(CallTimeout) as caught:
            await connection.call_tool(tool, {"a": 1, "b": 1}, timeout=timeout)
        assert timeout <= anyio.current_time() - started <= timeout + 0.5
        assert caught.value.outcome == "unknown"
        await quiet(connection)
        assert (connection.state, connection.epoch) == (State.READY, 1)
        assert idle(connection)


async def test_the_default_deadline_is_a_minute(era: Era) -> None:
    script = Script(era=era)
    async with played(script) as (connection, _):
        script.inject(faults.hang())
        started = anyio.current_time()
        with pytest.raises(CallTimeout, match="no answer within 60 s"):
            await connection.call_tool("charge")
        assert 60 <= anyio.current_time() - started <= 60.5


@pytest.mark.parametrize("begun", [0.0, 0.5, 1.7, 2.9], ids=lambda begun: f"called after {begun} s")
@pytest.mark.parametrize("tool", ["add", "charge"])
async def test_a_call_during_an_outage_is_answered_after_it(
    tool: str, begun: float, era: Era, answer: Literal["json", "sse"]
) -> None:
    script = Script(era=era, answer=answer)
    async with played(script, clock=virtual_clock(2)) as (connection, transport):
        before = dials(script)
        transport.down = True
        transport.drop()
        script.forget_sessions()
        await anyio.sleep(begun)
        answered: list[float] = []

        async def call() -> None:
            assert text_of(await connection.call_tool(tool, {"a": 2, "b": 3, "amount": 5})) in ("5", "charged 5")
            answered.append(anyio.current_time())

        async with anyio.create_task_group() as group:
            group.start_soon(call)
            await anyio.sleep(3 - begun)
            transport.down = False
            back = anyio.current_time()
        assert 0 <= answered[0] - back <= 1.3
        assert script.executions[tool] == (2 if tool == "add" else 1)
        assert dials(script) == before + 1
        assert connection.state is State.READY


async def test_a_call_cut_by_an_outage_is_retried_only_if_harmless(era: Era) -> None:
    script = Script(era=era)
    async with played(script, clock=virtual_clock(3)) as (connection, transport):
        outcomes: dict[str, str] = {}

        async def call(tool: str) -> None:
            try:
                outcomes[tool] = text_of(await connection.call_tool(tool, {"seconds": 1}))
            except OutcomeUnknown as error:
                outcomes[tool] = error.outcome

        async with anyio.create_task_group() as group:
            group.start_soon(call, "slow")
            group.start_soon(call, "slow_charge")
            await settle()
            transport.down = True
            transport.drop()
            script.forget_sessions()
            await anyio.sleep(3)
            transport.down = False
        assert outcomes == {"slow": "slept 1", "slow_charge": "unknown"}
        assert script.executions == {"add": 1, "slow": 2, "slow_charge": 1}


@pytest.mark.parametrize(
    ("tool", "listed", "told_after"),
    # Nothing is known: ten seconds for a session that can say. Harmful: at once. Harmless: until the connection fails.
    [("charge", False, 10), ("add", False, 10), ("charge", True, 0), ("add", True, 30)],
)
async def test_a_call_is_told_unknown_as_soon_as_waiting_is_of_no_use(
    tool: str, listed: bool, told_after: int, era: Era
) -> None:
    script = Script(era=era)
    async with played(script, clock=virtual_clock(3)) as (connection, transport):
        if listed:
            await connection.catalog.refresh(("tools",))
        script.inject(faults.Fault("the server ends", lambda it: gone_for_good(transport, it), after=True), tool=tool)
        started, before = anyio.current_time(), script.executions[tool]
        with pytest.raises(OutcomeUnknown):
            await connection.call_tool(tool, {"a": 1, "b": 1})
        assert told_after <= anyio.current_time() - started <= told_after + 2
        assert script.executions[tool] == before + 1


def gone_for_good(transport: ScriptTransport, exchange: faults.Exchange) -> Any:
    transport.down = True
    return faults.drop_after().plan(exchange)


async def test_a_server_that_drops_each_session_is_given_up(era: Era) -> None:
    script = Script(era=era)
    async with played(script, clock=virtual_clock(4)) as (connection, _):
        # From now on sessions can be opened and none can be used.
        for method in ("tools/call", "tools/list", "resources/list", "resources/templates/list", "prompts/list"):
            script.inject(faults.drop_before(), method=method, times=None)
        script.inject(faults.drop_before(), method="ping", times=None)
        script.inject(Discovered().fault, method="server/discover", times=None)
        seen, before = Seen(connection), dials(script)
        overdue: list[float] = []
        refused: list[ConnectionFailed] = []
        waited = 0

        async def caller() -> None:
            nonlocal waited
            started = anyio.current_time()
            with pytest.raises((CallTimeout, OutcomeUnknown, ConnectionFailed)) as caught:
                await connection.call_tool("add", {"a": 1, "b": 1}, timeout=5)
            spent = anyio.current_time() - started
            if isinstance(caught.value, CallTimeout):
                waited += 1
                assert spent >= 5
            elif isinstance(caught.value, ConnectionFailed):
                refused.append(caught.value)
            if spent > 5.5:
                overdue.append(spent)

        async with anyio.create_task_group() as group:
            for _ in range(60):
                group.start_soon(caller)
                await anyio.sleep(1)
        assert 4 <= seen.events.count("established") <= 8
        if era == "legacy":
            assert dials(script) - before <= 8
        assert overdue == []
        assert waited > 5
        # `ready` with every call failing is not an end: patience is, and it is said why.
        assert len(refused) > 5
        assert "sessions in a row, and no call succeeded on any of them" in str(refused[-1])
        assert refused[-1].retry_in is not None
        assert script.executions["add"] == 1


class Discovered:
    """Answers `server/discover` while dialling, and drops it when it probes."""

    def __init__(self) -> None:
        self._asked = 0

    @property
    def fault(self) -> faults.Fault:
        def plan(exchange: faults.Exchange) -> Any:
            self._asked += 1
            # A probe comes first: the session is there already.
            return faults.drop_before().plan(exchange) if self._asked % 2 else exchange.answer

        return faults.Fault("drops probes", plan, after=True)


async def test_a_long_absence_fails_and_is_probed_until_it_ends(era: Era) -> None:
    script = Script(era=era)
    async with played(script, clock=virtual_clock(5)) as (connection, transport):
        seen = Seen(connection)
        transport.down = True
        transport.drop()
        script.forget_sessions()
        started = anyio.current_time()
        with pytest.raises(ConnectionFailed, match=r"next try in \d+ s") as caught:
            await connection.call_tool("charge")
        assert 30 <= anyio.current_time() - started <= 32
        assert (caught.value.failure.kind, caught.value.outcome) == (K.UNAVAILABLE, "not_run")
        assert caught.value.retry_in is not None
        refused = transport.refused
        # In the next ten minutes it is probed now and then, and calls fail at once.
        await anyio.sleep(600)
        assert transport.refused - refused <= 6
        with pytest.raises(ConnectionFailed):
            await connection.call_tool("charge", timeout=None)
        transport.down = False
        await anyio.sleep(360)
        assert text_of(await connection.call_tool("charge", wait=False)) == "charged 1"
        assert seen.events.count("established") == 1
        assert script.executions["charge"] == 1


class Balancer(httpx2.AsyncBaseTransport):
    """Sends each request to a replica at random. The replicas share no sessions."""

    def __init__(self, seed: int, *replicas: Script) -> None:
        self._rng = random.Random(seed)
        self._transports = [ScriptTransport(replica) for replica in replicas]

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        return await self._rng.choice(self._transports).handle_async_request(request)


@pytest.mark.parametrize("seed", range(3))
async def test_replicas_behind_a_balancer_without_stickiness_are_not_hammered(seed: int) -> None:
    replicas = [Script(expiry="404"), Script(expiry="404")]
    config = {"url": "http://scripted/mcp", "http_transport": Balancer(seed, *replicas), "mode": "legacy"}
    answered, failed = 0, 0
    async with Manager({"srv": config}, clock=virtual_clock(seed)) as manager:
        losses = Seen(manager["srv"])
        started = anyio.current_time()
        while anyio.current_time() - started < 60:
            try:
                await manager.call_tool("srv", "add", {"a": 1, "b": 1}, timeout=20)
                answered += 1
            except Exception:
                failed += 1
            await anyio.sleep(1)
    initializes = sum(replica.count("initialize") for replica in replicas)
    # A call is refused by chance; retried once, it is answered three times out of four.
    assert answered > failed
    # And it may have to wait for a probe, of which there is one in 3 s.
    assert answered >= 15
    assert initializes <= 25
    told = [str(change.failure) for change in losses.changes if change.event is Event.LOST]
    assert any("several replicas behind a balancer without sticky sessions" in each for each in told)


@pytest.mark.parametrize("wait", [2, 5])
async def test_a_probes_retry_after_is_a_floor_for_the_dial(wait: int, era: Era) -> None:
    script = Script(era=era)
    async with played(script, clock=virtual_clock(6)) as (connection, _):
        script.inject(faults.bad_gateway())
        script.inject(faults.unavailable(wait), method="ping" if era == "legacy" else "server/discover")
        armed = script.inject(faults.unavailable(wait), method="tools/list")
        started = anyio.current_time()
        assert text_of(await connection.call_tool("add", {"a": 1, "b": 1})) == "2"
        assert wait <= anyio.current_time() - started <= wait + 0.1
        assert (armed.used, connection.epoch) == (1, 2)


@pytest.mark.parametrize("status", [429, 503])
async def test_a_dial_refused_with_retry_after_is_not_repeated_before(status: int, era: Era) -> None:
    script = Script(era=era)
    fault = faults.rate_limited(9) if status == 429 else faults.unavailable(9)
    script.inject(fault, method=None, times=1)
    async with Connection(
        {"url": "http://scripted/mcp", "http_transport": ScriptTransport(script)}, clock=virtual_clock(7)
    ) as connection:
        assert 9 <= anyio.current_time() - (connection._lifecycle.schedule.series.began) <= 11
        assert connection.epoch == 1


async def test_without_waiting_calls_dials_slow_down_to_a_minute() -> None:
    script = Script()
    async with played(script, clock=virtual_clock(8), policy=Policy(patience=100_000)) as (connection, transport):
        transport.down = True
        transport.drop()
        await settle()
        connection._lifecycle.report(connection.epoch, connection._diagnosis.classify(gone()))
        started, before = anyio.current_time(), transport.refused
        await anyio.sleep(60)
        assert transport.refused - before <= 8
        await anyio.sleep(3600 - 60)
        # 60 s +- 20 % between two of them by then.
        assert (3600 - 150) / 72 <= transport.refused - before <= 8 + 3600 / 48
        assert anyio.current_time() - started == pytest.approx(3600)


def gone() -> Any:
    from mcpconn import Evidence

    return Evidence(exception=anyio.EndOfStream(), from_wire=False, phase="idle")


async def test_expired_sessions_are_replaced_fast() -> None:
    script = Script()
    async with played(script) as (connection, _):
        for _ in range(2):
            script.forget_sessions()
            started = anyio.current_time()
            await connection.call_tool("charge")
            assert anyio.current_time() == started


async def test_waiting_counts_towards_the_deadline(era: Era) -> None:
    script = Script(era=era)
    async with played(script, clock=virtual_clock(9)) as (connection, transport):
        transport.down = True
        transport.drop()
        started = anyio.current_time()

        async def back() -> None:
            await anyio.sleep(4)
            transport.down = False
            script.inject(faults.hang())

        async with anyio.create_task_group() as group:
            group.start_soon(back)
            with pytest.raises(CallTimeout) as caught:
                await connection.call_tool("charge", timeout=10)
        assert 10 <= anyio.current_time() - started <= 10.5
        assert caught.value.outcome == "unknown"


async def test_no_standalone_stream_is_healthy() -> None:
    script = Script(get_stream="405")
    async with played(script, warm=False) as (connection, _):
        requests = Requests(script)
        seen = Seen(connection)
        # 405 is final: the server has no such stream, and is not asked for it again.
        await requests.reach("GET", 1)
        assert text_of(await connection.call_tool("charge")) == "charged 1"
        await quiet(connection)
        assert script.count("GET") == 1
        assert seen.events == []
        assert script.count("initialize") == 1


@pytest.mark.parametrize("fault", [faults.bad_gateway(), faults.drop_before(), faults.unauthorized()])
async def test_a_standalone_stream_that_cannot_be_opened_is_no_fault_of_the_session(fault: faults.Fault) -> None:
    script = Script()
    script.inject(fault, method="GET", times=None)
    async with played(script, warm=False) as (connection, _):
        requests, seen = Requests(script), Seen(connection)
        # 405 is final: the server has no such stream, and is not asked for it again.
        await requests.reach("GET", 1)
        assert text_of(await connection.call_tool("charge")) == "charged 1"
        await quiet(connection)
        assert script.count("GET") == 1
        assert seen.events == []


async def test_a_server_that_never_had_a_stream_and_says_404_is_probed_and_kept() -> None:
    script = Script()
    script.inject(faults.not_found_html(), method="GET", times=None)
    async with played(script, warm=False) as (connection, _):
        requests, seen = Requests(script), Seen(connection)
        await requests.reach("GET", 2)
        assert text_of(await connection.call_tool("charge")) == "charged 1"
        await quiet(connection)
        assert set(seen.events) <= {"suspected"}
        assert connection.epoch == 1


@pytest.mark.parametrize(("stuck", "ended"), [(False, True), (True, False)])
async def test_ending_anothers_session_has_a_limit(stuck: bool, ended: bool) -> None:
    script = Script()
    async with played(script) as (connection, _), played(script) as (other, _):
        assert other.session_id is not None
        if stuck:
            script.inject(faults.hang(), method="DELETE")
        began = anyio.current_time()
        assert await connection.end_session(other.session_id, other.protocol_version) is ended
        assert anyio.current_time() - began == (connection.policy.connect_timeout if stuck else 0)
        assert (other.session_id in script.sessions) is not ended
