"""Many connections in one manager: the mapping, its life, what it tells, and who is refused when."""

from __future__ import annotations

import gc
import json
import pickle
from contextlib import AsyncExitStack, aclosing
from typing import Any, ClassVar, Literal

import anyio
import pytest
from mcp import MCPError

from mcpconn import (
    CallFailed,
    CallTimeout,
    Change,
    ConfigError,
    Connection,
    ConnectionClosed,
    ConnectionFailed,
    Manager,
    McpConnError,
    NotReady,
    NotRunning,
    OutcomeUnknown,
    Overloaded,
    Policy,
    State,
    UnknownServer,
)
from mcpconn.testing import Script, ScriptTransport
from mcpconn.testing.clock import settle, virtual_backend
from mcpconn.testing.scripted import faults
from tests.support import UNFINISHED_STREAMS, text_of

pytestmark = [pytest.mark.anyio, UNFINISHED_STREAMS]


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    return virtual_backend(request.param)


def entry(script: Script, **more: Any) -> dict[str, Any]:
    """The configuration of a scripted server inside the process."""
    return {"url": "http://scripted/mcp", "http_transport": ScriptTransport(script), **more}


# -- the mapping


async def test_a_manager_is_a_mapping() -> None:
    manager = Manager({"a": entry(Script()), "b": entry(Script())})
    assert (len(manager), list(manager), "a" in manager, "x" in manager) == (2, ["a", "b"], True, False)
    assert isinstance(manager["a"], Connection)
    assert manager["a"].name == "a"
    assert repr(manager) == "<Manager {a: idle, b: idle}>"
    async with manager:
        await manager.wait_ready()
        assert repr(manager) == "<Manager {a: ready, b: ready}>"


async def test_a_server_that_is_not_there_is_a_key_error_that_lists_those_that_are() -> None:
    manager = Manager({"wpcom": entry(Script()), "fs": entry(Script())})
    for attempt in (lambda: manager["nope"], lambda: manager.remove("nope")):
        with pytest.raises(KeyError) as caught:
            attempt()
        assert isinstance(caught.value, UnknownServer)
        assert isinstance(caught.value, McpConnError)
        assert str(caught.value) == "no server named 'nope'; known servers: fs, wpcom"
    async with manager:
        with pytest.raises(UnknownServer):
            await manager.call_tool("nope", "add")
    with pytest.raises(UnknownServer, match="known servers: none"):
        Manager()["x"]
    assert manager.get("nope") is None


# -- before and after


async def test_calls_before_entering_are_refused() -> None:
    manager = Manager({"srv": entry(Script())})
    for call in (manager.call_tool("srv", "add"), manager.list_tools("srv"), manager["srv"].list_prompts()):
        with anyio.fail_after(1), pytest.raises(NotRunning, match="srv"):
            await call
    connection = Connection(entry(Script()), name="alone")
    with anyio.fail_after(1), pytest.raises(NotRunning, match="alone: enter the connection first"):
        await connection.wait_ready()
    with pytest.raises(NotRunning):
        await connection.reconnect()
    with pytest.raises(RuntimeError, match="alone: enter the connection first"):
        _ = connection.session


async def test_calls_after_leaving_are_refused() -> None:
    manager = Manager({"srv": entry(Script())})
    async with manager:
        await manager.call_tool("srv", "add", {"a": 1, "b": 1})
    with anyio.fail_after(1), pytest.raises(NotRunning, match="srv: the manager was left"):
        await manager.call_tool("srv", "add", {"a": 1, "b": 1})
    with anyio.fail_after(1), pytest.raises(ConnectionClosed, match="srv: the connection is closed"):
        await manager["srv"].call_tool("add", timeout=None)
    with pytest.raises(NotRunning, match="cannot reenter"):
        async with manager:
            raise AssertionError("entered twice")
    async with Connection(entry(Script()), name="alone") as connection:
        pass
    with anyio.fail_after(1), pytest.raises(ConnectionClosed):
        await connection.call_tool("add", timeout=None)
    with anyio.fail_after(1), pytest.raises(ConnectionClosed):
        await connection.reconnect()
    with pytest.raises(NotRunning):
        async with connection:
            raise AssertionError("entered twice")


async def test_entering_does_not_wait_for_servers() -> None:
    down, hanging, fine = ScriptTransport(Script()), Script(), Script()
    down.down = True
    hanging.inject(faults.hang(), method=None, times=None)
    servers = {
        "down": {"url": "http://down/mcp", "http_transport": down},
        "hanging": entry(hanging),
        **{f"fine{number}": entry(fine) for number in range(5)},
    }
    started = anyio.current_time()
    async with Manager(servers) as manager:
        assert anyio.current_time() == started
        for number in range(5):
            assert text_of(await manager.call_tool(f"fine{number}", "add", {"a": 1, "b": 1})) == "2"
        assert anyio.current_time() - started < 1
        assert manager["down"].state is State.CONNECTING
        await manager.wait_ready(timeout=100)
        assert manager["down"].state is manager["hanging"].state is State.FAILED


async def test_waiting_for_all_ends_at_its_timeout() -> None:
    script = Script()
    script.inject(faults.hang(), method=None, times=None)
    async with Manager({"hanging": entry(script)}) as manager:
        started = anyio.current_time()
        await manager.wait_ready(timeout=3)
        assert anyio.current_time() - started == 3


async def test_a_connection_used_alone_waits_until_ready() -> None:
    async with Connection(entry(Script())) as connection:
        assert (connection.state, connection.epoch) == (State.READY, 1)
    script = Script()
    script.inject(faults.unauthorized(), method=None, times=None)
    failing = Connection(entry(script), name="alone")
    # As it is, and in no exception group.
    with pytest.raises(ConnectionFailed, match="alone: the server refused the credentials"):
        async with failing:
            raise AssertionError("never ready")
    assert failing.state is State.CLOSED


class Mine(Exception):
    pass


@pytest.mark.parametrize("kind", ["manager", "connection"])
async def test_an_exception_leaves_a_block_as_is(kind: str) -> None:
    error = Mine("mine")
    with pytest.raises(Mine) as caught:
        async with AsyncExitStack() as stack:
            if kind == "manager":
                manager = await stack.enter_async_context(Manager({"srv": entry(Script())}))
                await manager.wait_ready()
            else:
                await stack.enter_async_context(Connection(entry(Script())))
            raise error
    assert caught.value is error


@pytest.mark.parametrize("kind", ["manager", "connection"])
async def test_a_cancelled_block_is_left(kind: str) -> None:
    connection: Connection | None = None
    with anyio.CancelScope() as scope:
        async with AsyncExitStack() as stack:
            if kind == "manager":
                manager = await stack.enter_async_context(Manager({"srv": entry(Script())}))
                connection = manager["srv"]
                await manager.wait_ready()
            else:
                connection = await stack.enter_async_context(Connection(entry(Script())))
            scope.cancel()
            await anyio.sleep(10)
            raise AssertionError("not cancelled")
    assert scope.cancelled_caught
    assert connection is not None
    assert connection.state is State.CLOSED


async def test_entering_can_be_given_up() -> None:
    script = Script()
    script.inject(faults.hang(), method=None, times=None)
    connection = Connection(entry(script))
    with anyio.move_on_after(1) as scope:
        async with connection:
            raise AssertionError("never ready")
    assert scope.cancelled_caught
    assert connection.state is State.CLOSED


# -- adding and removing


async def test_servers_come_and_go_at_run_time() -> None:
    one, two = Script(), Script()
    async with Manager({"one": entry(one)}) as manager:
        added = manager.add("two", entry(two))
        assert manager["two"] is added
        assert text_of(await manager.call_tool("two", "add", {"a": 1, "b": 1})) == "2"
        async with anyio.create_task_group() as group:
            group.start_soon(manager.call_tool, "two", "slow", {"seconds": 2})
            await settle()
            manager.remove("two")
            assert "two" not in manager
        # Its call in flight was answered before it ended.
        await settle()
        assert added.state is State.CLOSED
        assert two.executions["slow"] == 1
        assert two.sessions == set()
        manager.add("two", entry(Script()))
        assert text_of(await manager.call_tool("two", "add", {"a": 1, "b": 1})) == "2"
        with pytest.raises(ConfigError):
            manager.add("bad", {"url": "nope"})
        assert "bad" not in manager


# -- what is told


async def test_every_transition_is_told_in_order() -> None:
    script = Script()
    told: list[str] = []
    async with Manager({"srv": entry(script)}) as manager:
        end = manager.subscribe(lambda change: told.append(str(change)))
        await manager.call_tool("srv", "charge")
        script.forget_sessions()
        await manager.call_tool("srv", "charge")
        end()
        end()
        script.forget_sessions()
        await manager.call_tool("srv", "charge")
    lost = "the server no longer knows the session (HTTP 404, JSON-RPC -32600, Session not found)"
    assert told == [
        "srv: idle --connect--> connecting",
        "srv: connecting --established--> ready",
        f"srv: ready --lost--> reconnecting: {lost}",
        "srv: reconnecting --established--> ready",
    ]


async def test_a_raising_listener_affects_no_other(
    caplog: pytest.LogCaptureFixture,
) -> None:
    told: list[Change] = []

    def broken(change: Change) -> None:
        raise ValueError("listener")

    async with Manager({"srv": entry(Script())}) as manager:
        manager.subscribe(broken)
        manager.subscribe(told.append)
        assert text_of(await manager.call_tool("srv", "charge")) == "charged 1"
    assert [change.event.value for change in told] == ["connect", "established", "close"]
    assert "listener.raised" in caplog.text


async def test_changes_can_be_iterated_until_the_manager_is_left() -> None:
    events: list[str] = []

    async def read(manager: Manager) -> None:
        events.extend([f"{change.server} {change.event}" async for change in manager.changes()])

    async with anyio.create_task_group() as group, Manager({"srv": entry(Script())}) as manager:
        group.start_soon(read, manager)
        await settle()
        await manager.wait_ready()
    assert events[-2:] == ["srv established", "srv close"]


async def test_changes_begin_when_asked_for() -> None:
    manager = Manager({"srv": entry(Script())})
    changes = manager.changes()
    async with manager:
        await manager.wait_ready()
        later = manager.changes()
        await manager.remove("srv")
        manager.changes()  # nobody reads it: it is dropped, and told nothing
        assert len(manager._listeners._entries) == 2
    assert [change.event.value async for change in changes] == ["connect", "established", "close"]
    assert [change.event.value async for change in later] == ["close"]
    assert [change async for change in manager.changes()] == []
    assert not manager._listeners


async def test_a_reader_may_stop_reading_changes() -> None:
    async with Manager({"srv": entry(Script())}) as manager:
        async for change in manager.changes():
            assert change.event.value == "connect"
            break
        async with aclosing(manager.changes()) as changes:
            await changes.__anext__()
        assert [change async for change in changes] == []
        gc.collect()
        assert not manager._listeners


async def test_status_is_plain_data() -> None:
    script = Script()
    async with Manager({"srv": entry(script)}) as manager:
        await manager.call_tool("srv", "charge")
        script.forget_sessions()
        await manager.call_tool("srv", "charge")
        await settle()
        status = json.loads(json.dumps(manager.status()))["srv"]
    assert (status["state"], status["epoch"], status["era"]) == ("ready", 2, "legacy")
    assert status["server"] == {"name": "scripted", "version": "1"}
    assert (status["in_flight"], status["waiting"]) == (0, 0)
    assert status["last_failure"]["kind"] == "session_expired"
    assert status["last_failure"]["http_status"] == 404
    assert [change["event"] for change in status["transitions"]] == ["connect", "established", "lost", "established"]


# -- limits


async def test_dials_are_limited_each_and_in_all() -> None:
    script = Script()
    script.inject(faults.slow(1), method="initialize", times=None)
    transports = [Counting(script) for _ in range(30)]
    servers = {
        f"s{number}": {"url": f"http://host{number % 3}/mcp", "http_transport": transport, "mode": "legacy"}
        for number, transport in enumerate(transports)
    }
    Counting.reset()
    async with Manager(servers, policy=Policy(dials_per_origin=2, dials=5)) as manager:
        await manager.wait_ready()
        assert all(connection.state is State.READY for connection in manager.values())
    assert Counting.most_of_one == 2
    assert Counting.most_of_all <= 5


class Counting(ScriptTransport):
    """Counts initializes in progress, by host and in all."""

    now: ClassVar[dict[str, int]] = {}
    most_of_one = most_of_all = 0

    @classmethod
    def reset(cls) -> None:
        cls.now, cls.most_of_one, cls.most_of_all = {}, 0, 0

    async def handle_async_request(self, request: Any) -> Any:
        if b'"initialize"' not in await request.aread():
            return await super().handle_async_request(request)
        now, host = Counting.now, request.url.host
        now[host] = now.get(host, 0) + 1
        Counting.most_of_one = max(Counting.most_of_one, *now.values())
        Counting.most_of_all = max(Counting.most_of_all, sum(now.values()))
        try:
            response = await super().handle_async_request(request)
            await response.aread()
            return response
        finally:
            now[host] -= 1


async def test_a_server_that_hangs_keeps_no_other_server_from_being_dialled() -> None:
    stuck = Script()
    stuck.inject(faults.hang(), method=None, times=None)
    servers = {f"stuck{number}": entry(stuck) for number in range(10)}
    for number, config in enumerate(servers.values()):
        config["url"] = f"http://stuck/{number}"
    async with Manager({**servers, "fine": entry(Script())}, policy=Policy(dials=12)) as manager:
        started = anyio.current_time()
        await manager.call_tool("fine", "charge")
        assert anyio.current_time() == started


async def test_more_calls_than_may_wait_are_refused_and_the_others_are_answered() -> None:
    script = Script()
    outcomes: list[str] = []

    async def call(manager: Manager) -> None:
        try:
            outcomes.append(text_of(await manager.call_tool("srv", "slow_charge", {"seconds": 1})))
        except Overloaded as error:
            outcomes.append(error.outcome)

    async with Manager({"srv": entry(script, max_in_flight=2, max_waiting=3)}) as manager:
        await manager.wait_ready()
        await settle()
        async with anyio.create_task_group() as group:
            for _ in range(10):
                group.start_soon(call, manager)
    assert sorted(outcomes) == ["not_run"] * 5 + ["slept 1"] * 5
    assert script.executions["slow_charge"] == 5


async def test_a_caller_that_would_not_wait_needs_a_ready_one() -> None:
    script = Script()
    async with Manager({"srv": entry(script), "lazy": entry(Script(), lazy=True)}) as manager:
        with pytest.raises(NotReady, match="srv: the connection is idle"):
            await manager["srv"].call_tool("charge", wait=False)
        await manager.wait_ready()
        assert text_of(await manager.call_tool("srv", "charge", wait=False)) == "charged 1"
        with pytest.raises(NotReady, match="the connection is idle"):
            await manager.call_tool("lazy", "charge", wait=False)


# -- errors


async def test_errors_can_be_caught_by_what_they_are_and_survive_pickling() -> None:
    script = Script()
    caught: list[CallFailed] = []
    async with Manager({"srv": entry(script)}) as manager:
        await manager.wait_ready()
        script.inject(faults.drop_after())
        script.inject(faults.hang())
        script.inject(faults.forbidden())
        for timeout in (60, 1, 60):
            with pytest.raises(CallFailed) as failed:
                await manager.call_tool("srv", "charge", timeout=timeout)
            caught.append(failed.value)
    assert [type(error) for error in caught] == [OutcomeUnknown, CallTimeout, CallFailed]
    for error in caught:
        assert isinstance(error, McpConnError)
        assert isinstance(error, MCPError)
        assert error.error.message == str(error)
        copy = pickle.loads(pickle.dumps(error))
        assert type(copy) is type(error)
        assert str(copy) == str(error)
        assert (copy.server, copy.state, copy.attempts) == (error.server, error.state, error.attempts)
        assert (copy.outcome, copy.retry_in) == (error.outcome, error.retry_in)
        assert (copy.failure.kind, copy.failure.delivery) == (error.failure.kind, error.failure.delivery)
        assert repr(error).startswith(type(error).__name__)
    for other in (ConfigError("x", server="s", key="k"), UnknownServer("x", ("a",)), NotRunning("x")):
        assert str(pickle.loads(pickle.dumps(other))) == str(other)
    config = pickle.loads(pickle.dumps(ConfigError("x", server="s", key="k")))
    assert (config.server, config.key) == ("s", "k")


@pytest.mark.parametrize("era", ["legacy", "modern"])
async def test_sockets_go_with_the_manager(era: Literal["legacy", "modern"]) -> None:
    script = Script(era=era)
    manager = Manager({"srv": entry(script)})
    async with manager:
        await manager.call_tool("srv", "charge")
    assert script.sessions == set()
    assert script.streams.count == 0
