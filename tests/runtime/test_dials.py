"""What the connections of one manager have to do with each other's dials."""

from __future__ import annotations

from contextlib import AsyncExitStack

import anyio
import pytest

from mcpconn import Event, Policy, State
from mcpconn.runtime.dials import Dials
from mcpconn.testing.clock import settle
from tests.runtime.fakes import CUT, REFUSED, Rig, failing

pytestmark = pytest.mark.anyio


async def test_dials_at_once_keep_to_the_limits() -> None:
    dials = Dials(Policy(dials_per_origin=2, dials=3))
    now, most = {"a": 0, "b": 0}, {"a": 0, "b": 0, "all": 0}

    async def dial(origin: str) -> None:
        async with dials.take(origin):
            now[origin] += 1
            most[origin] = max(most[origin], now[origin])
            most["all"] = max(most["all"], sum(now.values()))
            await anyio.sleep(1)
            now[origin] -= 1

    async with anyio.create_task_group() as group:
        for number in range(20):
            group.start_soon(dial, "ab"[number % 2])
    assert most == {"a": 2, "b": 2, "all": 3}


async def test_a_dial_that_is_given_up_while_it_waits_gives_its_place_back() -> None:
    dials = Dials(Policy(dials_per_origin=1, dials=1))

    async def hold() -> None:
        async with dials.take("a"):
            await anyio.sleep(10)

    async def give_up(origin: str) -> None:
        with anyio.move_on_after(1) as scope:
            async with dials.take(origin):
                raise AssertionError("there was no place")
        assert scope.cancelled_caught

    async with anyio.create_task_group() as group:
        group.start_soon(hold)
        await settle()
        group.start_soon(give_up, "a")
        group.start_soon(give_up, "b")
    for origin in ("a", "b"):
        with anyio.fail_after(1):
            async with dials.take(origin):
                pass


async def test_idle_means_no_dial_and_no_waiter() -> None:
    dials = Dials(Policy(dials_per_origin=1, dials=1))
    # Nobody does: at once.
    await dials.wait_until_idle()

    async def dial() -> None:
        async with dials.take("a"):
            await anyio.sleep(1)

    began = anyio.current_time()
    async with anyio.create_task_group() as group:
        group.start_soon(dial)
        group.start_soon(dial)
        await settle()
        await dials.wait_until_idle()
        assert anyio.current_time() - began == pytest.approx(2)


async def test_a_server_found_again_is_dialled_by_all_it_refused() -> None:
    dials = Dials(Policy())
    rigs = [Rig(dials=dials, origin="host:1") for _ in range(3)]
    other = Rig(dials=dials, origin="host:2")
    async with AsyncExitStack() as stack:
        for rig in (*rigs, other):
            rig.dialer.always = failing(REFUSED)
            await stack.enter_async_context(rig.running())
        # Longer than patience: failed, and waiting for their cool-downs to end.
        await anyio.sleep(700)
        assert {rig.lifecycle.state for rig in (*rigs, other)} == {State.FAILED}
        for rig in rigs:
            rig.dialer.always = failing_never
        back = anyio.current_time()
        rigs[0].lifecycle.reconnect()
        await settle()
        assert anyio.current_time() == back
        assert {rig.lifecycle.state for rig in rigs} == {State.READY}
        assert other.lifecycle.state is State.FAILED


async def test_a_connections_own_trouble_keeps_its_backoff() -> None:
    dials = Dials(Policy())
    one, other = Rig(dials=dials), Rig(dials=dials)
    one.dialer.plans = [failing(REFUSED)]
    other.dialer.always = failing(CUT)
    async with one.running(), other.running():
        await one.ready()
        await settle()
        made = other.dialer.dials
        one.lifecycle.reconnect()
        await settle()
        assert one.events.count(Event.ESTABLISHED.value) == 2
        assert other.dialer.dials == made


async def failing_never(link: object) -> None:
    """A plan: the dial succeeds."""


async def test_an_ended_connection_hears_no_news() -> None:
    dials = Dials(Policy())
    heard: list[int] = []
    leave = [dials.join("a", lambda number=number: heard.append(number)) for number in range(2)]  # type: ignore[misc]
    dials.server_returned("a")
    leave[0]()
    dials.server_returned("a")
    leave[1]()
    leave[1]()
    dials.server_returned("a")
    assert heard == [0, 1, 1]
    assert not dials._members


class Others:
    """Another process, which dials in place of this one."""

    async def may_scout(self, origin: str) -> bool:
        return False

    async def returned(self, origin: str) -> None:
        """Nobody there wants to know."""


async def test_passing_hosts_do_not_add_up() -> None:
    dials = Dials(Policy())
    dials.elsewhere = Others()
    rig = Rig(dials=dials, origin="host:1", route=("host:1", "http://host:1/mcp"))
    rig.dialer.always = failing(REFUSED)
    async with rig.running():
        await anyio.sleep(10)
        assert list(dials._members) == list(dials._origins) == list(dials._returned) == ["host:1"]
    assert (dials._members, dials._origins, dials._returned) == ({}, {}, {})
