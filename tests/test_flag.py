"""`Flag`: an event that is there only while somebody waits for it."""

import anyio
import pytest

from mcpconn.flag import Flag

pytestmark = pytest.mark.anyio


async def test_setting_it_wakes_all_who_wait():
    flag, woken = Flag(), []

    async def wait(name: str) -> None:
        await flag.wait()
        woken.append(name)

    async with anyio.create_task_group() as group:
        group.start_soon(wait, "a")
        group.start_soon(wait, "b")
        await anyio.wait_all_tasks_blocked()
        assert not flag.is_set()
        assert not woken
        flag.set()
    assert sorted(woken) == ["a", "b"]
    assert flag.is_set()


async def test_a_set_flag_is_not_waited_for():
    flag = Flag()
    flag.set()
    with anyio.fail_after(1):
        await flag.wait()


async def test_a_wait_that_was_given_up_leaves_the_others_waiting():
    flag = Flag()

    async with anyio.create_task_group() as group:
        group.start_soon(flag.wait)
        await anyio.wait_all_tasks_blocked()
        with anyio.CancelScope() as scope:
            scope.cancel()
            await flag.wait()
        assert scope.cancelled_caught
        flag.set()


async def test_it_keeps_an_event_only_while_a_task_waits():
    flag = Flag()
    assert flag._event is None
    async with anyio.create_task_group() as group:
        group.start_soon(flag.wait)
        await anyio.wait_all_tasks_blocked()
        assert flag._event is not None
        group.cancel_scope.cancel()
    assert flag._event is None
