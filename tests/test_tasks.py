"""Begin in one task, end in another: what fixtures, `gather` and web frameworks do to a context manager."""

from __future__ import annotations

import asyncio
import math
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import anyio
import pytest

from mcpconn import Connection, ConnectionClosed, ConnectionFailed, Manager, NotRunning, Policy, State
from mcpconn.testing import STDIO_SERVER, HttpServer, Script, ScriptTransport
from mcpconn.testing.clock import virtual_backend
from mcpconn.testing.scripted import faults
from tests.support import SAFETY, UNFINISHED_STREAMS, text_of

pytestmark = [pytest.mark.anyio, UNFINISHED_STREAMS]

CHILD = {"command": sys.executable, "args": [str(STDIO_SERVER)]}
ADD = ("add", {"a": 1, "b": 1})
Either = Manager | Connection


def virtual(backend: str) -> Any:
    return pytest.mark.parametrize("anyio_backend", [virtual_backend(backend)], ids=[backend])


def real(backend: str) -> Any:
    return pytest.mark.parametrize("anyio_backend", [(backend, {})], ids=[backend])


def entry(script: Script) -> dict[str, Any]:
    return {"url": "http://scripted/mcp", "http_transport": ScriptTransport(script)}


def made(kind: str, script: Script | None = None, **more: Any) -> Either:
    config = entry(script or Script())
    return Manager({"srv": config}, **more) if kind == "manager" else Connection(config, name="srv", **more)


async def added(it: Either) -> str:
    return text_of(await (it.call_tool("srv", *ADD) if isinstance(it, Manager) else it.call_tool(*ADD)))


def state_of(it: Either) -> State:
    return it["srv"].state if isinstance(it, Manager) else it.state


KINDS = pytest.mark.parametrize("kind", ["manager", "connection"])


# -- asyncio: any task may end it


@KINDS
@virtual("asyncio")
async def test_entered_and_left_in_different_tasks(kind: str) -> None:
    it = made(kind)
    await asyncio.create_task(it.__aenter__())
    assert await added(it) == "2"
    await asyncio.create_task(it.__aexit__(None, None, None))
    assert state_of(it) is State.CLOSED


@virtual("asyncio")
async def test_several_are_entered_by_gather() -> None:
    scripts = [Script() for _ in range(5)]
    connections = [Connection(entry(script)) for script in scripts]
    await asyncio.gather(*(connection.__aenter__() for connection in connections))
    assert [text_of(await connection.call_tool(*ADD)) for connection in connections] == ["2"] * 5
    await asyncio.gather(*(connection.__aexit__(None, None, None) for connection in reversed(connections)))
    assert {connection.state for connection in connections} == {State.CLOSED}
    assert [script.sessions for script in scripts] == [set()] * 5


@KINDS
@virtual("asyncio")
async def test_started_here_and_closed_there_and_more_than_once(kind: str) -> None:
    it = made(kind)
    await it.aclose()  # never started: there is nothing to end
    assert await it.start() is it
    assert await added(it) == "2"
    await asyncio.gather(*(asyncio.create_task(it.aclose()) for _ in range(3)))
    await it.aclose()
    assert state_of(it) is State.CLOSED
    for again in (it.start, it.__aenter__):
        with pytest.raises(NotRunning, match="cannot reenter"):
            await again()


@virtual("asyncio")
async def test_closing_waits_for_running_calls() -> None:
    script = Script()
    manager = await Manager({"srv": entry(script)}).start()
    await manager.wait_ready()
    call = asyncio.create_task(manager.call_tool("srv", "slow_charge", {"seconds": 3}))
    await anyio.sleep(1)
    began = anyio.current_time()
    await manager.aclose()
    assert anyio.current_time() - began == pytest.approx(2)
    assert text_of(await call) == "slept 3"


@virtual("asyncio")
async def test_a_connection_that_cannot_be_opened_is_closed_again() -> None:
    script = Script()
    script.inject(faults.unauthorized(), method=None, times=None)
    connection = Connection(entry(script))
    with pytest.raises(ConnectionFailed):
        await connection.start()
    assert connection.state is State.CLOSED
    await connection.aclose()


@KINDS
@virtual("asyncio")
async def test_a_callback_that_closes_is_not_kept_waiting_for_itself(kind: str) -> None:
    script = Script()
    closed = asyncio.Event()

    async def close(message: Any) -> None:
        await it.aclose()
        closed.set()

    it = made(kind, script, message_handler=close)
    await it.start()
    await added(it)
    with anyio.fail_after(SAFETY):
        while not closed.is_set():
            script.notify("notifications/tools/list_changed")
            await anyio.sleep(1)
        await it.aclose()
    assert state_of(it) is State.CLOSED


# -- cancellation


class Mine(Exception):
    pass


@KINDS
@pytest.mark.parametrize("native", [True, False], ids=["task", "scope"])
@virtual("asyncio")
async def test_a_cancelled_block_stays_cancelled(kind: str, native: bool) -> None:
    it, inside, reached = made(kind), asyncio.Event(), False

    async def host() -> None:
        nonlocal reached
        async with it:
            await added(it)
            inside.set()
            await anyio.sleep(math.inf)
        reached = True

    if native:
        task = asyncio.create_task(host())
        await inside.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    else:
        async with anyio.create_task_group() as group:
            group.start_soon(host)
            await inside.wait()
            group.cancel_scope.cancel()
    assert not reached
    assert state_of(it) is State.CLOSED


@KINDS
@virtual("asyncio")
async def test_a_host_cancelled_while_it_leaves_leaves_nothing_behind(kind: str) -> None:
    script = Script()
    it = made(kind, script, policy=Policy(drain_timeout=10))
    call: asyncio.Task[Any] | None = None
    with anyio.CancelScope() as scope:
        async with it:
            await added(it)
            connection = it["srv"] if isinstance(it, Manager) else it
            call = asyncio.create_task(connection.call_tool("slow_charge", {"seconds": 30}))
            await anyio.sleep(1)
            scope.deadline = anyio.current_time() + 2
    assert scope.cancelled_caught
    assert state_of(it) is State.CLOSED
    assert call is not None
    with pytest.raises(Exception, match="may have run"):
        await call


@KINDS
@virtual("asyncio")
async def test_a_blocks_exception_comes_out(kind: str) -> None:
    error = Mine()
    with pytest.raises(Mine) as caught:
        async with made(kind) as it:
            await added(it)
            raise error
    assert caught.value is error
    assert state_of(it) is State.CLOSED


@KINDS
@virtual("asyncio")
async def test_a_cancelled_start_leaves_nothing(kind: str) -> None:
    script = Script()
    script.inject(faults.hang(), method=None, times=None)
    it = made(kind, script)
    task = asyncio.create_task(it.start())
    await anyio.sleep(0 if kind == "manager" else 3)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await it.aclose()
    assert [each.get_name() for each in asyncio.all_tasks() if "mcpconn" in each.get_name()] == []


# -- the end of the loop


def ended_without_closing(how: Callable[[Any], None]) -> Manager:
    manager = Manager({"one": CHILD, "two": CHILD})

    async def main() -> None:
        await manager.start()
        await manager.wait_ready()
        children.extend(connection_child(manager[name]) for name in manager)

    children: list[Any] = []
    how(main())
    assert len(children) == 2
    assert [child.returncode is None for child in children] == [False, False]
    return manager


def connection_child(connection: Connection) -> Any:
    """The child process of a connection, as psutil sees it."""
    import psutil

    commands = [child for child in psutil.Process().children() if str(STDIO_SERVER) in child.cmdline()]
    assert connection.state is State.READY
    return Watched(commands)


class Watched:
    """Children that ran at some time."""

    def __init__(self, processes: list[Any]) -> None:
        self.processes = processes

    @property
    def returncode(self) -> int | None:
        return None if any(process.is_running() for process in self.processes) else 0


def test_a_loop_that_ends_ends_the_children() -> None:
    manager = ended_without_closing(asyncio.run)
    assert {connection.state for connection in manager.values()} == {State.CLOSED}

    async def later() -> None:
        with pytest.raises(NotRunning, match="the manager was left"):
            await manager.call_tool("one", *ADD)
        with pytest.raises((NotRunning, ConnectionClosed)):
            await manager["one"].call_tool(*ADD)
        await manager.aclose()

    asyncio.run(later())


# -- trio has no such task


@KINDS
@real("trio")
async def test_trio_is_told_what_to_do_instead(kind: str) -> None:
    it = made(kind)
    for refused in (it.start, it.aclose):
        with pytest.raises(RuntimeError, match=r"`async with`.*`await serve\(nursery\)`"):
            await refused()
    async with it:
        assert await added(it) == "2"
        with pytest.raises(RuntimeError, match="`async with`"):
            await it.aclose()
    assert state_of(it) is State.CLOSED


@KINDS
@pytest.mark.parametrize("end", ["aclose", "cancel"])
@pytest.mark.parametrize(
    "anyio_backend", [virtual_backend("trio"), virtual_backend("asyncio")], ids=["trio", "asyncio"]
)
async def test_it_is_served_in_a_hosts_nursery(kind: str, end: str, anyio_backend: Any) -> None:
    script = Script()
    it = made(kind, script)
    async with anyio.create_task_group() as group:
        assert await it.serve(group) is it
        assert await added(it) == "2"
        if end == "aclose":
            await it.aclose()
        else:
            group.cancel_scope.cancel()
    assert state_of(it) is State.CLOSED
    # A cancelled host does not wait for goodbyes.
    assert end == "cancel" or script.sessions == set()


@real("trio")
async def test_a_trio_nursery_serves_too() -> None:
    import trio

    async with trio.open_nursery() as nursery:
        manager = await Manager({"srv": entry(Script())}).serve(nursery)
        assert await added(manager) == "2"
        await manager.aclose()


# -- frameworks


@asynccontextmanager
async def lifespan(manager: Manager) -> AsyncIterator[None]:
    async with manager:
        yield


@real("asyncio")
async def test_two_tasks_may_drive_a_lifespan() -> None:
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(HttpServer(Script()))
        manager = Manager({"srv": {"url": server.url}})
        context = lifespan(manager)
        await asyncio.create_task(context.__aenter__())
        answers = await asyncio.gather(*(asyncio.create_task(added(manager)) for _ in range(5)))
        assert answers == ["2"] * 5
        await asyncio.create_task(context.__aexit__(None, None, None))
    assert manager["srv"].state is State.CLOSED


def test_a_fixture_may_end_in_another_task() -> None:
    """What pytest-asyncio does with an async generator: each half is a task of its own, on one loop."""

    async def fixture() -> AsyncIterator[Manager]:
        async with Manager({"srv": CHILD}) as manager:
            yield manager

    loop = asyncio.new_event_loop()
    try:
        generator = fixture()
        manager = loop.run_until_complete(generator.__anext__())
        assert loop.run_until_complete(added(manager)) == "2"
        with pytest.raises(StopAsyncIteration):
            loop.run_until_complete(generator.__anext__())
        assert manager["srv"].state is State.CLOSED
        assert asyncio.all_tasks(loop) == set()
    finally:
        loop.close()
