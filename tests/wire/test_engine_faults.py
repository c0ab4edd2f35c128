"""Connections over either engine: what goes wrong is seen as the same fault, and dealt with in the same way."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import anyio
import pytest

from mcpconn import CallFailed, OutcomeUnknown, State
from mcpconn.testing import Script
from mcpconn.testing.scripted import faults, hostile
from tests.support import UNFINISHED_STREAMS, quiet, served, text_of
from tests.wire.sockets import Name

pytestmark = [pytest.mark.anyio, UNFINISHED_STREAMS]


@pytest.fixture(params=["direct", "httpx"])
def engine(request: pytest.FixtureRequest) -> Name:
    return request.param  # type: ignore[no-any-return]


FAULTS: dict[str, tuple[Callable[[], faults.Fault], bool]] = {
    "500": (faults.server_error, False),
    "reset before": (faults.drop_before, False),
    "reset after": (faults.drop_after, True),
    "stream cut": (faults.cut_stream, True),
    "stream ended": (lambda: faults.cut_stream(clean=True), True),
    "stream reset": (lambda: faults.cut_stream(reset=True), True),
    "garbage": (hostile.garbage, True),
}
"""Faults, and whether the tool has run."""


@pytest.fixture(params=["legacy", "modern"])
def era(request: pytest.FixtureRequest) -> Literal["legacy", "modern"]:
    return request.param  # type: ignore[no-any-return]


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("answer", ["json", "sse"])
async def test_a_fault_is_the_same_on_both_engines(
    fault: str, answer: Literal["json", "sse"], era: Literal["legacy", "modern"], engine: Name
) -> None:
    make, ran = FAULTS[fault]
    script = Script(era=era, answer=answer)
    async with served(script, config={"engine": engine}) as (connection, _):
        script.inject(make())
        assert text_of(await connection.call_tool("add", {"a": 2, "b": 3})) == "5"
        script.inject(make())
        with pytest.raises(OutcomeUnknown):
            await connection.call_tool("charge", {"amount": 5})
        await quiet(connection)
        assert script.executions["charge"] == int(ran)
        assert (connection.state, connection.epoch) == (State.READY, 1)


async def test_a_refused_call_is_retried_on_both_engines(engine: Name) -> None:
    script = Script()
    async with served(script, config={"engine": engine}) as (connection, _):
        script.inject(faults.rate_limited(0.01))
        assert text_of(await connection.call_tool("charge", {"amount": 5})) == "charged 5"
        script.forget_sessions()
        assert text_of(await connection.call_tool("charge", {"amount": 5})) == "charged 5"
        assert (script.executions["charge"], connection.epoch) == (2, 2)


async def test_neighbours_survive_a_reset(engine: Name, era: Literal["legacy", "modern"]) -> None:
    script = Script(era=era)
    async with served(script, config={"engine": engine}) as (connection, _):
        held = script.inject(faults.slow(0.2), tool="add", times=5)
        running = anyio.Event()
        script.on_request = lambda _: running.set() if held.used == 5 else None
        answers: list[str] = []

        async def call() -> None:
            answers.append(text_of(await connection.call_tool("add", {"a": 2, "b": 3})))

        async with anyio.create_task_group() as group:
            for _ in range(5):
                group.start_soon(call)
            await running.wait()
            script.inject(faults.drop_before())
            with pytest.raises(CallFailed):
                await connection.call_tool("charge", {"amount": 1})
        assert answers == ["5"] * 5
        assert connection.epoch == 1
