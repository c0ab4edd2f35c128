"""The gate before a connection."""

from __future__ import annotations

from collections.abc import Callable

import anyio
import pytest
from anyio.abc import TaskGroup
from anyio.lowlevel import checkpoint

from mcpconn.runtime.gate import Gate
from mcpconn.testing.clock import settle

pytestmark = pytest.mark.anyio


class Full(Exception):
    pass


class Refused(Exception):
    pass


def gate(*, max_in_flight: int = 2, max_waiting: int = 10, on_waiting: Callable[[], None] = lambda: None) -> Gate:
    return Gate(max_in_flight=max_in_flight, max_waiting=max_waiting, overloaded=Full, on_waiting=on_waiting)


class Callers:
    """Tasks that go through a gate, and what became of them."""

    def __init__(self, of: Gate, group: TaskGroup) -> None:
        self.gate = of
        self._through: list[str] = []
        self._refused: list[str] = []
        self.scopes: dict[str, anyio.CancelScope] = {}
        self._group = group

    # Sorted: trio runs tasks that were woken together in any order.

    @property
    def through(self) -> list[str]:
        """Who was let through."""
        return sorted(self._through)

    @property
    def refused(self) -> list[str]:
        """Who was turned away."""
        return sorted(self._refused)

    async def call(self, *names: str, again: bool = False) -> None:
        """Have callers try, one after another, until they wait or are through."""
        for name in names:
            self._group.start_soon(self._one, name, again)
            await settle()

    async def _one(self, name: str, again: bool) -> None:
        with anyio.CancelScope() as scope:
            self.scopes[name] = scope
            try:
                await self.gate.acquire(again=again)
            except (Full, Refused):
                self._refused.append(name)
                return
            self._through.append(name)


async def test_an_open_gate_keeps_to_its_limit() -> None:
    async with anyio.create_task_group() as group:
        callers = Callers(gate(max_in_flight=2), group)
        callers.gate.open()
        await callers.call("a", "b", "c", "d")
        assert callers.through == ["a", "b"]
        assert (callers.gate.in_flight, callers.gate.waiting) == (2, 2)
        callers.gate.release()
        await settle()
        assert callers.through == ["a", "b", "c"]
        callers.gate.release()
        callers.gate.release()
        await settle()
        assert callers.through == ["a", "b", "c", "d"]
        callers.gate.release()
        assert (callers.gate.in_flight, callers.gate.waiting) == (0, 0)


async def test_a_closed_gate_keeps_its_order() -> None:
    async with anyio.create_task_group() as group:
        callers = Callers(gate(), group)
        await callers.call("a", "b", "c")
        assert callers.through == []
        callers.gate.open()
        await settle()
        assert callers.through == ["a", "b"]
        callers.gate.release()
        await settle()
        assert callers.through == ["a", "b", "c"]


async def test_a_newcomer_does_not_overtake_those_let_through() -> None:
    async with anyio.create_task_group() as group:
        callers = Callers(gate(max_in_flight=1), group)
        await callers.call("a", "b")
        callers.gate.open()
        assert not callers.gate.try_acquire()
        await settle()
        assert callers.through == ["a"]
        callers.gate.release()
        assert not callers.gate.try_acquire()
        await settle()
        assert callers.through == ["a", "b"]


async def test_a_call_that_comes_again_goes_to_the_front_and_is_not_turned_away() -> None:
    async with anyio.create_task_group() as group:
        callers = Callers(gate(max_waiting=2), group)
        await callers.call("a", "b")
        await callers.call("late")
        assert callers.refused == ["late"]
        await callers.call("again", again=True)
        assert (callers.gate.waiting, callers.refused) == (3, ["late"])
        callers.gate.open()
        await settle()
        assert callers.through == ["a", "again"]
        callers.gate.release()
        await settle()
        assert callers.through == ["a", "again", "b"]


async def test_repeated_calls_keep_their_order() -> None:
    async with anyio.create_task_group() as group:
        callers = Callers(gate(max_in_flight=1, max_waiting=2), group)
        await callers.call("new")
        await callers.call("first", "second", "third", again=True)
        # A permit that was granted and revoked leaves its caller in front.
        callers.gate.open()
        callers.gate.close()
        await settle()
        callers.gate.open()
        let_through = []
        for _ in range(4):
            await settle()
            let_through += [name for name in callers.through if name not in let_through]
            callers.gate.release()
        assert let_through == ["first", "second", "third", "new"]


async def test_a_refusing_gate_refuses_everybody() -> None:
    async with anyio.create_task_group() as group:
        callers = Callers(gate(), group)
        await callers.call("a", "b")
        callers.gate.refuse(Refused)
        await settle()
        assert callers.refused == ["a", "b"]
        await callers.call("c")
        assert callers.refused == ["a", "b", "c"]
        assert (callers.gate.in_flight, callers.gate.waiting) == (0, 0)
        callers.gate.close()
        await callers.call("d")
        assert (callers.refused, callers.gate.waiting) == (["a", "b", "c"], 1)
        callers.gate.open()
        await settle()
        assert callers.through == ["d"]


async def test_a_closing_gate_takes_back_permits_in_order() -> None:
    async with anyio.create_task_group() as group:
        callers = Callers(gate(), group)
        await callers.call("a", "b", "c")
        callers.gate.open()
        callers.gate.close()
        assert (callers.gate.in_flight, callers.gate.waiting) == (0, 3)
        await settle()
        assert callers.through == []
        callers.gate.open()
        await settle()
        assert callers.through == ["a", "b"]
        assert (callers.gate.in_flight, callers.gate.waiting) == (2, 1)
        callers.gate.release()
        await settle()
        assert callers.through == ["a", "b", "c"]


async def test_a_refusing_gate_refuses_the_woken() -> None:
    async with anyio.create_task_group() as group:
        callers = Callers(gate(), group)
        await callers.call("a", "b", "c")
        callers.gate.open()
        callers.gate.refuse(Refused)
        await settle()
        assert (callers.through, callers.refused) == ([], ["a", "b", "c"])
        assert (callers.gate.in_flight, callers.gate.waiting) == (0, 0)


async def test_a_caller_cancelled_while_waiting_leaves_no_place_in_the_queue() -> None:
    async with anyio.create_task_group() as group:
        callers = Callers(gate(), group)
        await callers.call("a", "b")
        callers.scopes["a"].cancel()
        await settle()
        assert callers.gate.waiting == 1
        callers.gate.open()
        await settle()
        assert (callers.through, callers.gate.in_flight) == (["b"], 1)


@pytest.mark.parametrize("moment", ["before it is let through", "after it was let through"])
async def test_a_cancellation_that_races_with_being_let_through_loses_no_permit(moment: str) -> None:
    async with anyio.create_task_group() as group:
        callers = Callers(gate(max_in_flight=1), group)
        await callers.call("a", "b")
        if moment.startswith("before"):
            callers.scopes["a"].cancel()
            callers.gate.open()
        else:
            callers.gate.open()
            callers.scopes["a"].cancel()
        await settle()
        # An event loop may let "a" run although it was cancelled in the same moment.
        if callers.through == ["a"]:
            callers.gate.release()
        await settle()
        assert "b" in callers.through
        assert (callers.gate.in_flight, callers.gate.waiting) == (1, 0)


@pytest.mark.parametrize("ending", ["close", "refuse"])
async def test_a_cancellation_that_races_with_the_gates_end_loses_no_permit(ending: str) -> None:
    async with anyio.create_task_group() as group:
        callers = Callers(gate(max_in_flight=1), group)
        await callers.call("a")
        callers.gate.open()
        callers.scopes["a"].cancel()
        if ending == "close":
            callers.gate.close()
        else:
            callers.gate.refuse(Refused)
        await settle()
        assert (callers.through, callers.gate.in_flight, callers.gate.waiting) == ([], 0, 0)


async def test_a_deadline_that_passes_while_the_gate_opens_loses_no_permit() -> None:
    one = gate(max_in_flight=1)
    for order in range(50):
        with anyio.move_on_after(0.0005 * (order % 3)):
            async with anyio.create_task_group() as group:

                async def opening(order: int = order) -> None:
                    for _ in range(order):
                        await checkpoint()
                    one.open()

                group.start_soon(opening)
                await one.acquire()
                one.release()
        one.close()
        assert (one.in_flight, one.waiting) == (0, 0)


async def test_the_owner_is_told_of_waiters() -> None:
    told: list[bool] = []
    async with anyio.create_task_group() as group:
        callers = Callers(gate(on_waiting=lambda: told.append(True)), group)
        await callers.call("a")
        assert told == [True]
        callers.gate.open()
        await callers.call("b")
        assert told == [True]
