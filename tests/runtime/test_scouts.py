"""While a server refuses, its connections share one dial a second."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from itertools import pairwise
from typing import Any

import anyio
import pytest

from mcpconn import Policy, State, classify
from mcpconn.runtime.dials import Dials
from mcpconn.runtime.scouts import REMEMBERED, Route, Scouts
from mcpconn.testing.clock import settle
from tests.runtime.fakes import CUT, REFUSED, Rig, failing

pytestmark = pytest.mark.anyio

PLACE: Any = (("host:1", None), ("http://host:1/mcp", None))
ROUTE = Route(*PLACE)
MANY = 100


async def opened(link: object) -> None:
    """A plan: the dial succeeds."""


class Fleet:
    """Connections to one server that are lost at once, and each wanted by a caller."""

    def __init__(self, count: int) -> None:
        self.dials = Dials(Policy())
        self.rigs = [Rig(dials=self.dials, origin="host:1", route=PLACE) for _ in range(count)]
        self.at: list[float] = []
        """When the server was dialled."""

    def answers(self, plan: Any) -> None:
        async def noted(link: Any) -> None:
            self.at.append(anyio.current_time())
            await plan(link)

        for rig in self.rigs:
            rig.dialer.always = noted

    def states(self) -> set[State]:
        return {rig.lifecycle.state for rig in self.rigs}


@asynccontextmanager
async def refused(count: int, evidence: Any = REFUSED) -> AsyncIterator[Fleet]:
    """Connections whose server fails every dial so."""
    fleet = Fleet(count)
    fleet.answers(failing(evidence))
    async with AsyncExitStack() as stack:
        for rig in fleet.rigs:
            await stack.enter_async_context(rig.running())
        yield fleet


@pytest.mark.parametrize("evidence", [REFUSED, CUT], ids=["refused", "hung up"])
async def test_a_refusing_server_is_dialled_once_a_second(evidence: Any) -> None:
    async with refused(MANY, evidence) as fleet:
        await anyio.sleep(25)
        first = fleet.at[0]
        # Those in progress when the first one was refused could not know.
        assert sum(at < first + 0.5 for at in fleet.at) <= 8
        later = [at for at in fleet.at if at >= first + 0.5]
        assert later
        assert all(after - before >= 1 for before, after in pairwise(later))


async def test_all_follow_when_the_scout_gets_in() -> None:
    async with refused(MANY) as fleet:
        await anyio.sleep(20)
        before = len(fleet.at)
        fleet.answers(opened)
        for rig in fleet.rigs:
            rig.lifecycle.reconnect()
        back = anyio.current_time()
        await anyio.sleep(1.1)
        assert fleet.states() == {State.READY}
        assert len(fleet.at) == before + MANY
        assert fleet.at[-1] - back <= 1


async def test_sharers_of_a_dial_lose_patience_too() -> None:
    async with refused(MANY) as fleet:
        # Patience is 30 s; the last wait before its end is up to 15 s.
        await anyio.sleep(60)
        assert fleet.states() == {State.FAILED}
        assert all(rig.lifecycle.last_failure is not None for rig in fleet.rigs)
        assert all(rig.lifecycle.schedule.attempts >= 3 for rig in fleet.rigs)


async def test_a_closed_scout_hands_its_turn_on() -> None:
    scouts = Scouts(1.0)
    scouts.found(ROUTE, classify(REFUSED))
    turns: list[bool] = []

    async def dial(scope: anyio.CancelScope) -> None:
        with scope:
            async with scouts.turn(ROUTE) as turn:
                turns.append(turn.scout)
                await anyio.sleep_forever()

    first, second = anyio.CancelScope(), anyio.CancelScope()
    async with anyio.create_task_group() as group:
        group.start_soon(dial, first)
        await anyio.sleep(1.1)
        group.start_soon(dial, second)
        await settle()
        assert turns == [True]
        first.cancel()
        await settle()
        assert turns == [True, True]
        second.cancel()


@pytest.mark.parametrize(
    ("evidence", "other"),
    [(REFUSED, Route("host:2", "b")), (CUT, Route(ROUTE.port, "http://host:1/other"))],
    ids=["another port", "another URL of a port that answers"],
)
async def test_another_server_need_not_wait(evidence: Any, other: Route) -> None:
    scouts = Scouts(1.0)
    scouts.found(ROUTE, classify(evidence))
    assert scouts.refuses(ROUTE)
    began = anyio.current_time()
    async with scouts.turn(other) as turn:
        assert (turn.failure, turn.scout) == (None, False)
    assert anyio.current_time() == began


async def test_any_answer_ends_a_refusal() -> None:
    scouts = Scouts(1.0)
    scouts.found(ROUTE, classify(REFUSED))
    assert scouts.found(ROUTE, classify(CUT))
    assert scouts.found(ROUTE, None)
    assert not scouts.refuses(ROUTE)
    assert not scouts.found(ROUTE, None)


async def test_ended_refusals_are_forgotten() -> None:
    scouts = Scouts(1.0)
    for number in range(10):
        scouts.found(Route(number, str(number)), classify(REFUSED))
    await anyio.sleep(REMEMBERED + 2)
    scouts.found(ROUTE, classify(REFUSED))
    assert len(scouts._refusals) == 1


async def test_a_lone_connection_keeps_its_pace() -> None:
    async with refused(1) as fleet:
        await anyio.sleep(1.5)
        assert len(fleet.at) == 2


async def test_only_one_waiting_connection_has_a_timer(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a timer each, every one of a thousand would wake each second to find that another one dials."""
    scouts, timers = Scouts(1.0), []
    scouts.found(ROUTE, classify(REFUSED))
    real = anyio.CancelScope

    def scope(**arguments: Any) -> anyio.CancelScope:
        timers.append(arguments)
        return real(**arguments)

    async def wait() -> None:
        async with scouts.turn(ROUTE):
            await anyio.sleep(0.1)
            scouts.found(ROUTE, classify(REFUSED))

    async with anyio.create_task_group() as group:
        monkeypatch.setattr(anyio, "CancelScope", scope)
        for _ in range(MANY):
            group.start_soon(wait)
        await settle()
        assert len(timers) == 1
        monkeypatch.undo()


async def test_a_cancelled_connection_hands_its_timer_on() -> None:
    scouts, turns = Scouts(1.0), []
    scouts.found(ROUTE, classify(REFUSED))

    async def wait(scope: anyio.CancelScope, number: int) -> None:
        with scope:
            async with scouts.turn(ROUTE) as turn:
                turns.append((number, turn.scout))

    scopes = [anyio.CancelScope() for _ in range(3)]
    async with anyio.create_task_group() as group:
        for number, scope in enumerate(scopes):
            group.start_soon(wait, scope, number)
            await settle()
        scopes[0].cancel()
        await anyio.sleep(1.1)
        # The second took over the timer, and its turn, without a result, passes to the third.
        assert sorted(turns) == [(1, True), (2, True)]
