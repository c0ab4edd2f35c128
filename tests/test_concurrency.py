"""Many calls at once on one connection, over real sockets."""

from __future__ import annotations

from collections import Counter
from typing import Any, Literal

import anyio
import pytest

from mcpconn import CallTimeout, Connection, OutcomeUnknown, Policy, State
from mcpconn.testing import Expiry, HttpServer, Received, Script
from mcpconn.testing.scripted import faults
from tests.support import SAFETY, UNFINISHED_STREAMS, Arrivals, Seen, idle, quiet, served, text_of

pytestmark = [pytest.mark.anyio, UNFINISHED_STREAMS]

Era = Literal["legacy", "modern"]


@pytest.fixture(params=["legacy", "modern"])
def era(request: pytest.FixtureRequest) -> Era:
    return request.param  # type: ignore[no-any-return]


async def together(connection: Connection, tool: str, count: int, **options: Any) -> Counter[str]:
    """The answers and errors of so many calls made at once."""
    outcomes: Counter[str] = Counter()

    async def one(number: int) -> None:
        try:
            answer = text_of(await connection.call_tool(tool, {"a": number, "b": 0, "amount": number}, **options))
        except Exception as error:
            outcomes[f"{type(error).__name__}: {error}"] += 1
        else:
            outcomes["answered" if answer.removeprefix("charged ") == str(number) else answer] += 1

    async with anyio.create_task_group() as group:
        for number in range(count):
            group.start_soon(one, number)
    return outcomes


@pytest.mark.parametrize(("expiry", "answer"), [("404", "json"), ("404", "sse"), ("200", "json"), ("400-no-id", "sse")])
@pytest.mark.parametrize("tool", ["add", "charge"])
async def test_twenty_calls_on_a_forgotten_session_cost_one_initialize(
    tool: str, expiry: Expiry, answer: Literal["json", "sse"]
) -> None:
    script = Script(expiry=expiry, answer=answer)
    async with served(script) as (connection, _):
        seen, ran = Seen(connection), script.executions[tool]
        script.forget_sessions()
        assert await together(connection, tool, 20) == {"answered": 20}
        assert script.count("initialize") == 2
        assert script.executions[tool] - ran == 20
        assert seen.events.count("lost") == seen.events.count("established") == 1
        await quiet(connection)
        assert idle(connection)


@pytest.mark.parametrize(("expiry", "tool", "at_once"), [("404", "charge", 100), ("200", "charge", 500)])
async def test_five_hundred_calls_on_a_forgotten_session_cost_one_initialize(
    expiry: Expiry, tool: str, at_once: int
) -> None:
    script = Script(expiry=expiry)
    # The probe's answer comes behind those of the 500; on a busy machine that is a while.
    config = {"max_in_flight": at_once, "probe_timeout": SAFETY}
    async with served(script, config=config) as (connection, _):
        ran = script.executions[tool]
        script.forget_sessions()
        assert await together(connection, tool, 500) == {"answered": 500}
        assert script.count("initialize") == 2
        assert script.executions[tool] - ran == 500
        assert connection.epoch == 2
        await quiet(connection)
        assert idle(connection)


async def test_calls_at_once_use_as_many_sockets_and_no_more_than_may_be_in_flight(era: Era) -> None:
    script = Script(era=era)
    async with served(script, config={"max_in_flight": 7}) as (connection, server):
        assert await together(connection, "charge", 50) == {"answered": 50}
        assert server.open_connections <= 7 + 1


@pytest.mark.parametrize("answer", ["json", "sse"])
@pytest.mark.parametrize("fault", ["reset before", "reset after", "cut", "502", "hang"])
async def test_ten_slow_calls_in_flight_are_not_hurt_by_a_neighbours_fault(
    fault: str, answer: Literal["json", "sse"], era: Era
) -> None:
    script = Script(era=era, answer=answer)
    async with served(script) as (connection, _):
        arrivals = Arrivals(script)
        answers: list[str] = []

        async def slow() -> None:
            answers.append(text_of(await connection.call_tool("slow_charge", {"seconds": 0.3})))

        async with anyio.create_task_group() as group:
            for _ in range(10):
                group.start_soon(slow)
            await arrivals.reach(10)
            made = {
                "reset before": faults.drop_before,
                "reset after": faults.drop_after,
                "cut": faults.cut_stream,
                "502": faults.bad_gateway,
                "hang": faults.hang,
            }[fault]()
            script.inject(made, tool="charge")
            with pytest.raises((OutcomeUnknown, CallTimeout)):
                await connection.call_tool("charge", timeout=0.15)
        assert answers == ["slept 0.3"] * 10
        assert script.executions["slow_charge"] == 10
        assert connection.epoch == 1


@pytest.mark.parametrize("answer", ["json", "sse"])
async def test_calls_in_flight_on_the_old_session_drain_while_the_next_is_dialled(
    answer: Literal["json", "sse"],
) -> None:
    script = Script(answer=answer)
    async with served(script) as (connection, _):
        arrivals = Arrivals(script)
        answers: list[str] = []

        async def slow() -> None:
            answers.append(text_of(await connection.call_tool("slow_charge", {"seconds": 1.5})))

        async with anyio.create_task_group() as group:
            for _ in range(10):
                group.start_soon(slow)
            await arrivals.reach(10)
            script.forget_sessions()
            assert text_of(await connection.call_tool("charge")) == "charged 1"
            # The new session is in use, and the old one still has its ten.
            assert (connection.epoch, answers) == (2, [])
            assert len(connection._supervisor.dialling.sessions) == 2
        assert answers == ["slept 1.5"] * 10
        assert script.executions["slow_charge"] == 10
        assert script.count("initialize") == 2
        # A session that the server does not know is not ended with a DELETE.
        assert script.count("DELETE") == 0


async def test_calls_in_flight_finish_when_the_caller_asks_for_a_new_session(era: Era) -> None:
    script = Script(era=era)
    async with served(script) as (connection, _):
        arrivals = Arrivals(script)
        answers: list[str] = []
        goodbye = anyio.Event()

        def received(request: Received) -> None:
            if request.http_method == "DELETE":
                goodbye.set()

        script.on_request = received

        async def slow() -> None:
            answers.append(text_of(await connection.call_tool("slow_charge", {"seconds": 0.2})))

        async with anyio.create_task_group() as group:
            group.start_soon(slow)
            await arrivals.reach(1)
            await connection.reconnect()
            assert (connection.epoch, answers) == (2, [])
            assert not goodbye.is_set()
        assert answers == ["slept 0.2"]
        if era == "legacy":
            # The old session was fine: it is ended as the specification wishes.
            await goodbye.wait()
            assert len(script.sessions) == 1


async def test_a_slow_server_delays_no_other(era: Era) -> None:
    slow_script, script = Script(era=era), Script(era=era)
    async with served(slow_script) as (slow, _), served(script) as (connection, _):
        slow_script.inject(faults.hang(), times=None)
        async with anyio.create_task_group() as group:

            async def stuck() -> None:
                await slow.call_tool("charge", timeout=None)

            for _ in range(100):
                group.start_soon(stuck)
            assert await together(connection, "charge", 20, timeout=SAFETY) == {"answered": 20}
            group.cancel_scope.cancel()
        assert connection.state is State.READY


async def test_a_hundred_resets_at_once_cause_one_probe_and_no_reconnect(era: Era) -> None:
    script = Script(era=era)
    async with served(script) as (connection, _):
        seen = Seen(connection)
        script.inject(faults.drop_before(), times=100, tool="charge")
        outcomes = await together(connection, "charge", 100)
        await quiet(connection)
        assert {text.partition(":")[0]: count for text, count in outcomes.items()} == {"OutcomeUnknown": 100}
        assert connection.epoch == 1
        assert set(seen.events) == {"suspected"}
        assert len(seen.events) <= 20


@pytest.mark.parametrize("rounds", [3])
async def test_sockets_that_fail_under_load_are_replaced(rounds: int, era: Era) -> None:
    script = Script(era=era)
    with anyio.fail_after(SAFETY):
        async with (
            HttpServer(script) as server,
            Connection(server.url, policy=Policy(replay_reserve=1000)) as connection,
        ):
            for _ in range(rounds):
                async with anyio.create_task_group() as group:
                    group.start_soon(together, connection, "add", 40)
                    await server.reset_connections()
                assert await together(connection, "add", 20) == {"answered": 20}
            assert connection.state is State.READY
