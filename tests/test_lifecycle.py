"""How it ends: closing in any situation, callers that leave, and what is left running. Over real sockets."""

from __future__ import annotations

import socket
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, Literal

import anyio
import psutil
import pytest
from anyio.lowlevel import checkpoint

from mcpconn import (
    CallFailed,
    CallTimeout,
    Connection,
    ConnectionClosed,
    Manager,
    Policy,
    State,
)
from mcpconn.testing import HttpServer, Received, Script
from mcpconn.testing.scripted import faults
from tests.support import (
    BUSY,
    SAFETY,
    UNFINISHED_STREAMS,
    Arrivals,
    Requests,
    Seen,
    idle,
    quiet,
    served,
    sockets_closed,
    text_of,
)

pytestmark = [pytest.mark.anyio, UNFINISHED_STREAMS]

Era = Literal["legacy", "modern"]


@pytest.fixture(params=["legacy", "modern"])
def era(request: pytest.FixtureRequest) -> Era:
    return request.param  # type: ignore[no-any-return]


@asynccontextmanager
async def nothing_left() -> AsyncIterator[None]:
    """Fails where the block leaves a task, a thread or a socket behind."""
    tasks, threads, sockets = set(anyio.get_running_tasks()), threads_of_ours(), sockets_of_this_process()
    yield
    # A task that has returned is taken off the list in the next round.
    await checkpoint()
    assert set(anyio.get_running_tasks()) - tasks == set()
    assert threads_of_ours() - threads == set()
    assert sockets_of_this_process() - sockets == set()


def threads_of_ours() -> set[threading.Thread]:
    """All but the event loop's own workers, which look up names and wait for more."""
    loops = ("Trio thread", "asyncio_", "AnyIO worker")
    return {thread for thread in threading.enumerate() if not thread.name.startswith(loops)}


def sockets_of_this_process() -> set[Any]:
    return {
        (connection.laddr, connection.raddr)
        for connection in psutil.Process().net_connections("tcp")
        if connection.status in (psutil.CONN_ESTABLISHED, psutil.CONN_CLOSE_WAIT, psutil.CONN_LISTEN)
    }


@asynccontextmanager
async def silent_server() -> AsyncIterator[str]:
    """The URL of a server that lets clients in and never says a word, not even at the end."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(128)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/mcp"


# -- closing


@pytest.mark.parametrize("answer", ["json", "sse"])
async def test_closing_with_calls_in_flight_ends_within_the_drain_timeout(
    answer: Literal["json", "sse"], era: Era
) -> None:
    script = Script(era=era, answer=answer)
    outcomes: list[str] = []
    with anyio.fail_after(SAFETY):
        async with nothing_left(), HttpServer(script) as server, anyio.create_task_group() as group:
            arrivals = Arrivals(script)
            async with Manager({"srv": server.url}, policy=Policy(drain_timeout=0.6)) as manager:

                async def call() -> None:
                    try:
                        outcomes.append(text_of(await manager.call_tool("srv", "slow_charge", {"seconds": 60})))
                    except CallFailed as error:
                        outcomes.append(error.outcome)

                for _ in range(5):
                    group.start_soon(call)
                await arrivals.reach(5)
                started = anyio.current_time()
            assert anyio.current_time() - started < 0.6 + BUSY
    assert outcomes == ["unknown"] * 5


async def test_closing_waits_for_calls_nearly_done(era: Era) -> None:
    script = Script(era=era)
    answers: list[str] = []
    with anyio.fail_after(SAFETY):
        async with nothing_left(), HttpServer(script) as server, anyio.create_task_group() as group:
            arrivals = Arrivals(script)
            async with Connection(server.url) as connection:

                async def call() -> None:
                    answers.append(text_of(await connection.call_tool("slow_charge", {"seconds": 0.2})))

                group.start_soon(call)
                await arrivals.reach(1)
            # All of them had finished when the block was left.
            assert answers == ["slept 0.2"]
            assert script.sessions == set()


async def test_closing_refuses_new_calls_at_once_and_those_that_wait(era: Era) -> None:
    script = Script(era=era)
    outcomes: list[str] = []
    with anyio.fail_after(SAFETY):
        async with nothing_left(), HttpServer(script) as server, anyio.create_task_group() as group:
            arrivals = Arrivals(script)
            async with Manager({"srv": {"url": server.url, "max_in_flight": 1}}) as manager:

                async def call() -> None:
                    try:
                        outcomes.append(text_of(await manager.call_tool("srv", "slow_charge", {"seconds": 0.2})))
                    except ConnectionClosed as error:
                        outcomes.append(error.outcome)

                await manager.wait_ready()
                await quiet(manager["srv"])
                for _ in range(3):
                    group.start_soon(call)
                await arrivals.reach(1)
            assert outcomes == ["not_run", "not_run", "slept 0.2"]
    assert script.executions["slow_charge"] == 1


async def test_closing_against_a_dead_server_ends_in_time(
    era: Era,
) -> None:
    script = Script(era=era)
    with anyio.fail_after(SAFETY):
        async with nothing_left(), HttpServer(script) as server:
            async with Manager({"srv": server.url}, policy=Policy(drain_timeout=1)) as manager:
                await manager.call_tool("srv", "add", {"a": 1, "b": 1})
                for method in (None, "DELETE", "notifications/cancelled"):
                    script.inject(faults.hang(), method=method, times=None)
                with pytest.raises(CallTimeout):
                    await manager.call_tool("srv", "charge", timeout=0.1)
                started = anyio.current_time()
            # The drain timeout; the SDK would wait for the DELETE for 30 s more.
            assert anyio.current_time() - started < 1 + BUSY


async def test_closing_while_a_server_is_dialled_that_never_answers_is_quick() -> None:
    with anyio.fail_after(SAFETY):
        async with nothing_left(), silent_server() as url:
            outcome: list[str] = []
            async with anyio.create_task_group() as group:
                async with Manager({"srv": url}) as manager:

                    async def call() -> None:
                        with pytest.raises(ConnectionClosed) as caught:
                            await manager.call_tool("srv", "add")
                        outcome.append(caught.value.outcome)

                    group.start_soon(call)
                    await until_waiting(manager["srv"], 1)
                    started = anyio.current_time()
                assert anyio.current_time() - started < BUSY
            assert outcome == ["not_run"]


async def test_closing_while_a_probe_is_under_way_is_quick_and_clean(
    era: Era, caplog: pytest.LogCaptureFixture
) -> None:
    script = Script(era=era)
    probe = "ping" if era == "legacy" else "server/discover"
    with anyio.fail_after(SAFETY):
        async with (
            nothing_left(),
            HttpServer(script) as server,
            Connection(server.url, policy=Policy(drain_timeout=1, probe_timeout=60)) as connection,
        ):
            await connection.call_tool("add", {"a": 1, "b": 1})
            probing = anyio.Event()
            script.inject(faults.hang(), method=probe, times=None)
            script.inject(faults.drop_before())

            def received(request: Received) -> None:
                if request.rpc_method == probe:
                    probing.set()

            script.on_request = received
            # The call waits up to 10 s for the probe, so it is cancelled; the probe is not.
            async with anyio.create_task_group() as group:
                group.start_soon(connection.call_tool, "charge")
                await probing.wait()
                group.cancel_scope.cancel()
            started = anyio.current_time()
        assert anyio.current_time() - started < 1 + BUSY
        assert connection.state is State.CLOSED
    assert "connection.crashed" not in caplog.text


async def test_closing_waits_for_no_listing(era: Era) -> None:
    script = Script(era=era)
    script.inject(faults.hang(), method="resources/list", times=None)
    with anyio.fail_after(SAFETY):
        async with nothing_left(), HttpServer(script) as server:
            requests = Requests(script)
            async with Connection({"url": server.url, "catalog": "eager", "drain_timeout": 60}) as connection:
                # The catalogue's own listing hangs; no caller does.
                await requests.reach("resources/list", 1)
                assert text_of(await connection.call_tool("charge")) == "charged 1"
                started = anyio.current_time()
            assert anyio.current_time() - started < BUSY


async def test_thirty_servers_are_closed_together() -> None:
    script = Script()
    with anyio.fail_after(SAFETY):
        async with nothing_left(), HttpServer(script) as server:
            async with Manager({f"s{number}": server.url for number in range(30)}) as manager:
                await manager.wait_ready()
                # One after the other they would take 15 seconds.
                script.inject(faults.slow(0.5), method="DELETE", times=None)
                started = anyio.current_time()
            assert anyio.current_time() - started < 0.5 + BUSY
            assert script.sessions == set()


# -- callers that leave


@pytest.mark.parametrize("answer", ["json", "sse"])
@pytest.mark.parametrize("moment", ["at once", "received", "running", "reconnecting", "probing", "waiting"])
async def test_a_cancelled_caller_leaves_nothing(moment: str, answer: Literal["json", "sse"], era: Era) -> None:
    script = Script(era=era, answer=answer)
    async with nothing_left(), served(script, config={"max_in_flight": 2}) as (connection, server):
        leave = anyio.Event()
        told: dict[str, Callable[[Received], bool]] = {
            "at once": lambda request: False,
            "received": lambda request: request.rpc_method == "tools/call",
            "running": lambda request: False,
            "reconnecting": lambda request: request.rpc_method in ("initialize", "server/discover"),
            "probing": lambda request: request.rpc_method in ("ping", "server/discover"),
            "waiting": lambda request: request.rpc_method == "tools/call",
        }
        script.on_request = lambda request: leave.set() if told[moment](request) else None
        if moment == "at once":
            leave.set()
        elif moment == "running":
            script.on_execute = lambda _: leave.set()
        elif moment == "reconnecting":
            # In the modern era there is no session: the socket is cut and the probe finds nobody.
            script.forget_sessions()
            script.inject(faults.drop_before(), tool="slow_charge", times=2)
        elif moment == "probing":
            script.inject(faults.drop_before(), tool="slow_charge", times=2)
        async with anyio.create_task_group() as group:
            # Two are let through at once; the third waits for them.
            for _ in range(3):

                async def call() -> None:
                    await connection.call_tool("slow_charge", {"seconds": 60}, idempotent=True)

                group.start_soon(call)
            await leave.wait()
            group.cancel_scope.cancel()
        script.clear()
        script.on_request = script.on_execute = None
        assert idle(connection)
        assert text_of(await connection.call_tool("charge")) == "charged 1"
        await quiet(connection)
        assert connection.state is State.READY
        assert idle(connection)
        # The standing stream, and sockets that are free.
        await sockets_closed(server, but=4)


async def test_a_caller_that_leaves_leaves_no_place_in_the_queue() -> None:
    script = Script()
    async with served(script) as (connection, server):
        await server.stop()
        async with anyio.create_task_group() as group:
            for _ in range(5):
                group.start_soon(connection.call_tool, "add", {"a": 1, "b": 1})
            await until_waiting(connection, 5)
            group.cancel_scope.cancel()
        assert idle(connection)
        script.forget_sessions()
        await server.start()
        assert text_of(await connection.call_tool("add", {"a": 1, "b": 1})) == "2"


async def until_waiting(connection: Connection, count: int) -> None:
    while connection._lifecycle.gate.waiting < count:
        await checkpoint()


# -- starting again


async def test_a_server_killed_and_restarted_between_calls_is_found_again(era: Era) -> None:
    script = Script(era=era)
    async with served(script) as (connection, server):
        for number in range(3):
            await server.stop()
            script.forget_sessions()
            await server.start()
            assert text_of(await connection.call_tool("charge", {"amount": number})) == f"charged {number}"
        assert script.executions["charge"] == 3
        assert connection.state is State.READY


async def test_a_restart_costs_the_modern_era_at_most_one_discovery() -> None:
    script = Script(era="modern")
    async with served(script) as (connection, server):
        before = script.count("server/discover")
        await server.stop()
        await server.start()
        assert text_of(await connection.call_tool("add", {"a": 1, "b": 1})) == "2"
        await quiet(connection)
        assert script.count("server/discover") - before <= 1


async def test_reconnecting_opens_one_session_whatever_the_state(era: Era) -> None:
    script = Script(era=era)
    async with served(script) as (connection, _server):
        seen = Seen(connection)
        await connection.reconnect()
        assert connection.epoch == 2
        async with anyio.create_task_group() as group:
            for _ in range(5):
                group.start_soon(connection.reconnect)
        assert 3 <= connection.epoch <= 7
        await quiet(connection)
        if era == "legacy":
            await until_sessions(script, 1)
        assert seen.events.count("lost") == 0


async def until_sessions(script: Script, count: int) -> None:
    """Wait until old sessions have been ended with a DELETE."""
    while len(script.sessions) > count:
        await checkpoint()


async def test_the_standalone_stream_of_an_old_session_is_closed() -> None:
    script = Script()
    async with served(script) as (connection, _server):
        for _ in range(2):
            script.forget_sessions()
            await connection.call_tool("charge")
        await quiet(connection)
        while script.streams.count > 1:
            await checkpoint()
        assert connection.epoch == 3
        assert len(connection._supervisor.dialling.sessions) == 1
