"""Calls from other threads into a loop, and tasks that are started for them. In real time: threads know no other."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextvars import ContextVar, copy_context
from functools import partial

import anyio
import anyio.lowlevel
import anyio.to_thread
import pytest

from mcpconn.runtime.native import _Letterbox, poster, starting
from tests.support import SAFETY

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


NAME: ContextVar[str] = ContextVar("name", default="nobody")


# -- posting


async def test_every_function_posted_by_many_threads_is_called() -> None:
    called: list[int] = []
    everything = anyio.Event()

    def call(number: int) -> None:
        called.append(number)
        if len(called) == 1000:
            everything.set()

    def post_all(first: int) -> None:
        for number in range(first, first + 100):
            post(partial(call, number))

    with poster() as post, anyio.fail_after(SAFETY):
        async with anyio.create_task_group() as group:
            for first in range(0, 1000, 100):
                group.start_soon(anyio.to_thread.run_sync, post_all, first)
        await everything.wait()
    assert sorted(called) == list(range(1000))


def test_threads_wake_the_loop_once_until_it_has_come() -> None:
    box = _Letterbox()
    wakes: list[int] = []
    called: list[int] = []
    box.wake = lambda: wakes.append(len(called))

    def post() -> None:
        for number in range(3):
            box(partial(called.append, number))

    in_a_thread(post)
    assert (wakes, called) == ([0], [])
    box.empty()
    assert called == [0, 1, 2]
    in_a_thread(post)
    assert wakes == [0, 3]


def test_the_main_thread_wakes_the_loop_itself() -> None:
    box, wakes = _Letterbox(), []
    box.wake = lambda: wakes.append(1)
    in_a_thread(lambda: box(int))
    box(int)
    assert wakes == [1, 1]


def test_after_a_failed_wake_up_the_next_thread_wakes_the_loop() -> None:
    box, wakes = _Letterbox(), []

    def fail() -> None:
        raise InterruptedError

    def post_twice() -> None:
        box.wake = fail
        with pytest.raises(InterruptedError):
            box(int)
        box.wake = lambda: wakes.append(1)
        box(int)

    in_a_thread(post_twice)
    assert wakes == [1]


def test_an_error_does_not_keep_the_next_function_from_being_called() -> None:
    box, called = _Letterbox(), []
    box.wake = box.empty
    box._calls.extend([lambda: called.append(1), lambda: 1 / 0, lambda: called.append(2)])
    with pytest.raises(ZeroDivisionError):
        box.empty()
    assert called == [1, 2]


def in_a_thread(func: Callable[[], object]) -> None:
    failed: list[BaseException] = []

    def run() -> None:
        try:
            func()
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(SAFETY)
    assert not failed, failed


# -- starting


async def test_a_task_runs_in_its_context_and_tells_when_it_has_ended() -> None:
    seen: list[str] = []
    ended = anyio.Event()

    async def task() -> None:
        with anyio.CancelScope():
            await anyio.lowlevel.checkpoint()
            seen.append(NAME.get())

    context = copy_context()
    context.run(NAME.set, "caller")
    with anyio.fail_after(SAFETY):
        async with starting() as start:
            start(context, task, ended.set)
            await ended.wait()
    assert seen == ["caller"]


async def test_the_block_waits_for_its_tasks() -> None:
    release, ended = anyio.Event(), []
    with anyio.fail_after(SAFETY):
        async with anyio.create_task_group() as group:
            async with starting() as start:
                start(copy_context(), release.wait, lambda: ended.append(1))
                group.start_soon(set_later, release)
            assert ended == [1]


async def set_later(event: anyio.Event) -> None:
    await anyio.sleep(0.01)
    event.set()


async def test_an_error_of_a_task_ends_the_block_and_is_raised() -> None:
    async def fail() -> None:
        raise ZeroDivisionError("on purpose")

    with pytest.raises(BaseException) as caught:  # noqa: PT011 - a group, or what is in it
        async with starting() as start:
            start(copy_context(), fail, int)
            await anyio.sleep(SAFETY)
    assert "on purpose" in repr(caught.value)
