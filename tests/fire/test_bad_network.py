"""A real client, a real server, and a bad network between them: no caller is told anything untrue.

Calls carry ids, and the history is compared with what the server ran (`mcpconn.testing.history`).
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from itertools import cycle
from typing import Any, Literal

import anyio
import pytest
from mcp import MCPError

from mcpconn import CallTimeout, Manager, OutcomeUnknown, Policy, State
from mcpconn.core.backoff import Backoff
from mcpconn.testing import FaultProxy, HttpServer, Received, Script
from mcpconn.testing.history import Call, History
from mcpconn.testing.scripted import faults
from tests.support import BUSY, SAFETY, UNFINISHED_STREAMS, Seen, quiet, text_of, warmed

pytestmark = [pytest.mark.anyio, UNFINISHED_STREAMS]

Era = Literal["legacy", "modern"]
# What waits in real time here waits briefly.
POLICY = Policy(
    probe_timeout=0.5, drain_timeout=1, backoff=Backoff(initial=0.01, maximum=0.05), max_message_size=1_000_000
)
MANY = 5 * SAFETY
"""Seconds for a test of dozens of calls, each of which may take all of its own time on a busy machine."""


@pytest.fixture(params=["legacy", "modern"])
def era(request: pytest.FixtureRequest) -> Era:
    return request.param  # type: ignore[no-any-return]


@dataclass
class Fire:
    """A server behind a bad network, one beside it that is fine, and what their callers were told."""

    script: Script
    proxy: FaultProxy
    server: HttpServer
    manager: Manager
    history: History
    wait_for_dials: Script

    async def call(self, tool: str = "charge", **options: Any) -> Call:
        """Call through the bad network. What comes of it is recorded, not raised."""
        safe = tool == "add"
        call = self.history.call(tool, {"a": 1, "b": 2}, safe=safe)
        try:
            with call:
                call.answer = await self.manager.call_tool("bad", call.tool, call.arguments, **options)
        except MCPError:
            pass
        return call


@asynccontextmanager
async def fire(
    era: Era = "legacy", *, answer: Any = "json", safety: float = SAFETY, policy: Policy = POLICY, **script: Any
) -> AsyncIterator[Fire]:
    """Both servers connected and in use. At the end the good one has noticed nothing, and the history is true."""
    behind, calm = Script(era=era, answer=answer, **script), Script(era=era)
    with anyio.fail_after(safety):
        async with HttpServer(behind) as server, HttpServer(calm) as other, FaultProxy(server) as proxy:  # noqa: SIM117 - the manager leaves first
            async with Manager({"bad": proxy.url, "good": other.url}, policy=policy) as manager:
                await warmed(manager["bad"])
                await warmed(manager["good"])
                seen, here = Seen(manager["good"]), Fire(behind, proxy, server, manager, History(), calm)
                async with anyio.create_task_group() as group:
                    group.start_soon(visit, manager)
                    yield here
                    group.cancel_scope.cancel()
                assert seen.events == [], "the other connection noticed something"
                assert set(manager["good"].status()["counts"]) <= {
                    "calls",
                    "outcome.answered",
                    "outcome.cancelled",
                    "event.connect",
                    "event.established",
                }
        here.history.check(behind, lossy=True)


async def visit(manager: Manager) -> None:
    """Somebody uses the other connection all the while."""
    number = 0
    while True:
        number += 1
        assert text_of(await manager.call_tool("good", "add", {"a": number, "b": 0}, timeout=5)) == str(number)
        await anyio.sleep(0.01)


async def recovered(here: Fire) -> None:
    """With the network restored, calls are answered again."""
    assert (await here.call("charge", timeout=10)).outcome == "answered"
    await quiet(here.manager["bad"])
    assert here.manager["bad"].state is State.READY


async def test_a_slow_network_costs_time_and_nothing_else(era: Era) -> None:
    async with fire(era) as here:
        here.proxy.latency = 0.03
        for tool in ("add", "charge"):
            assert (await here.call(tool)).outcome == "answered"
        assert here.manager["bad"].epoch == 1


@pytest.mark.parametrize("answer", ["json", "sse"])
async def test_an_answer_cut_after_any_number_of_bytes_is_never_taken_for_another(answer: str, era: Era) -> None:
    async with fire(era, answer=answer, safety=MANY, policy=replace(POLICY, probe_timeout=5)) as here:
        outcomes = []
        # Every length up to the whole answer; in steps that meet each part of the head and of the body.
        for size in range(0, 400, 7):
            here.proxy.truncate = size
            outcomes.append((await here.call("charge", timeout=3)).outcome)
            here.proxy.truncate = None
            await warmed(here.manager["bad"])
        assert {"unknown", "answered"} <= set(outcomes) <= {"unknown", "answered", "not_run"}
        assert outcomes[0] == "unknown"
        assert outcomes[-1] == "answered"
        await recovered(here)


async def test_a_reset_of_every_socket_is_survived_by_what_may_run_twice(era: Era) -> None:
    async with fire(era) as here:
        calls: list[Call] = []

        async def call(tool: str) -> None:
            calls.append(await here.call(tool))

        async with anyio.create_task_group() as group:
            reached = anyio.Event()
            here.script.on_execute = lambda run: reached.set() if len(here.script.calls) >= 11 else None
            here.script.inject(faults.hang_after(), times=10)
            for number in range(10):
                group.start_soon(call, "add" if number % 2 else "charge")
            await reached.wait()
            here.proxy.reset()
        for each in calls:
            assert each.outcome == ("answered" if each.safe else "unknown"), each
        await recovered(here)
        assert here.manager["bad"].status()["counts"].get("event.lost", 0) <= 1


async def test_resets_again_and_again_are_survived(era: Era) -> None:
    async with fire(era, safety=MANY) as here:
        # Not by the clock: on a busy machine nothing would ever come through.
        gaps, left = cycle([1, 2, 3, 5, 8, 13]), 1

        def reset(request: Received) -> None:
            nonlocal left
            left -= 1
            if left == 0:
                left = next(gaps)
                here.proxy.reset()

        here.script.on_request = reset
        for number in range(25):
            await here.call("add" if number % 2 else "charge", timeout=2)
        here.script.on_request = None
        assert len({call.outcome for call in here.history.calls}) > 1
        await recovered(here)


async def test_a_peer_that_lost_its_power_costs_one_deadline(era: Era) -> None:
    async with fire(era) as here:
        here.proxy.half_open()
        here.proxy.silent = True
        call = await here.call("charge", timeout=0.3)
        assert isinstance(call.error, CallTimeout)
        assert call.outcome == "unknown"
        here.proxy.silent = False
        await recovered(here)


async def test_a_server_whose_end_is_announced_late_costs_nothing(era: Era) -> None:
    async with fire(era) as here:
        here.proxy.slow_close = 5
        await here.server.reset_connections()
        assert (await here.call("add", timeout=5)).outcome == "answered"
        here.proxy.slow_close = 0
        await recovered(here)


async def test_an_answer_that_trickles_is_given_up_at_the_deadline(era: Era) -> None:
    async with fire(era) as here:
        # Half a minute for the answer.
        here.proxy.bandwidth = 20
        began = anyio.current_time()
        call = await here.call("charge", timeout=0.4)
        assert isinstance(call.error, (CallTimeout, OutcomeUnknown))
        assert anyio.current_time() - began < 0.4 + BUSY
        here.proxy.bandwidth = None
        await recovered(here)


async def test_a_network_that_refuses_is_waited_out_and_then_calls_are_answered(era: Era) -> None:
    async with fire(era) as here:
        here.proxy.refusing = True
        here.proxy.reset()
        async with anyio.create_task_group() as group:
            waiting = []

            async def call() -> None:
                waiting.append(await here.call("add", timeout=10))

            for _ in range(5):
                group.start_soon(call)
            lost = anyio.Event()
            end = here.manager.subscribe(lambda change: lost.set() if change.failure is not None else None)
            await lost.wait()
            end()
            here.proxy.refusing = False
        assert [each.outcome for each in waiting] == ["answered"] * 5
        await recovered(here)
