"""Upkeep of a session that nobody uses: lazy start, keepalive, idle timeout, maximum lifetime. Virtual time."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import pytest
import trio
from trio.testing import MockClock

from mcpconn import Connection, Manager, State
from mcpconn.runtime import upkeep
from mcpconn.testing import Script, ScriptTransport
from mcpconn.testing.scripted import faults
from tests.support import Seen, text_of

pytestmark = pytest.mark.filterwarnings("ignore:Async generator 'http(x|core)2:ResourceWarning")


def play(script: Script, act: Callable[[Connection], Awaitable[None]], **config: Any) -> Connection:
    """Run `act` on a connection to the script, in virtual time."""
    connection = Connection(
        {"url": "http://scripted/mcp", "http_transport": ScriptTransport(script), **config}, name="srv"
    )

    async def main() -> None:
        async with connection:
            await act(connection)

    trio.run(main, clock=MockClock(autojump_threshold=0))
    return connection


def test_a_lazy_connection_dials_when_called() -> None:
    script = Script()

    async def act(connection: Connection) -> None:
        await anyio.sleep(1000)
        assert connection.state is State.IDLE
        assert not script.requests
        assert text_of(await connection.call_tool("add", {"a": 1, "b": 2})) == "3"

    play(script, act, lazy=True)


def test_lazy_connections_are_left_alone() -> None:
    script = Script()
    servers = {"a": {"url": "http://scripted/mcp", "http_transport": ScriptTransport(script), "lazy": True}}

    async def main() -> None:
        async with Manager(servers) as manager:
            await manager.wait_ready()
            await anyio.sleep(100)
            assert manager["a"].state is State.IDLE

    trio.run(main, clock=MockClock(autojump_threshold=0))
    assert not script.requests


def test_an_idle_session_is_closed_and_the_next_call_opens_another() -> None:
    script = Script()

    async def act(connection: Connection) -> None:
        await connection.call_tool("add", {"a": 1, "b": 2})
        await anyio.sleep(29)
        assert connection.state is State.READY
        await connection.call_tool("add", {"a": 1, "b": 2})
        await anyio.sleep(29)
        assert connection.state is State.READY
        await anyio.sleep(2)
        assert connection.state is State.IDLE
        assert script.count("DELETE") == 1
        assert text_of(await connection.call_tool("add", {"a": 1, "b": 2})) == "3"
        assert connection.epoch == 2

    play(script, act, idle_timeout=30)


def test_a_call_that_takes_longer_than_the_idle_timeout_is_not_disturbed() -> None:
    script = Script()

    async def act(connection: Connection) -> None:
        await connection.call_tool("slow", {"seconds": 100}, timeout=None)
        assert connection.epoch == 1
        await anyio.sleep(31)
        assert connection.state is State.IDLE

    play(script, act, idle_timeout=30)


def test_a_rested_connection_is_not_lazy() -> None:
    script = Script()

    async def act(connection: Connection) -> None:
        await anyio.sleep(31)
        assert connection.state is State.IDLE
        for _ in range(5):
            await connection.call_tool("add", {"a": 1, "b": 2})
            await anyio.sleep(24)
        # Its second session is over 100 s old, and was replaced before anybody called again.
        assert (connection.state, connection.epoch) == (State.READY, 3)

    play(script, act, idle_timeout=30, max_lifetime=100)


def test_a_session_is_replaced_at_its_maximum_lifetime_while_its_calls_finish() -> None:
    script = Script()

    async def act(connection: Connection) -> None:
        async with anyio.create_task_group() as group:
            answers: list[str] = []

            async def call(seconds: float) -> None:
                answers.append(text_of(await connection.call_tool("slow", {"seconds": seconds}, timeout=None)))

            await anyio.sleep(90)
            group.start_soon(call, 30)
            await anyio.sleep(15)
            assert connection.epoch == 2
            assert connection.state is State.READY
            assert not answers
            await call(1)
        assert len(answers) == 2
        assert script.count("initialize") == 2
        assert connection.last_failure is None

    play(script, act, max_lifetime=100)


def test_keepalive_probes_unused_sessions() -> None:
    script = Script()

    async def act(connection: Connection) -> None:
        await connection.call_tool("slow", {"seconds": 100}, timeout=None)
        assert script.count("ping") == 0
        await anyio.sleep(105)
        assert script.count("ping") == 10
        assert connection.epoch == 1

    play(script, act, keepalive=10)


def test_three_silent_keepalives_are_proof() -> None:
    script = Script()

    async def act(connection: Connection) -> None:
        seen = Seen(connection)
        await anyio.sleep(1)
        for method in ("ping", "tools/list"):
            script.inject(faults.hang(), method=method, times=2)
        # Two unanswered, one answered, then three unanswered: 10 s apart, each given up after 5 s.
        await anyio.sleep(45)
        assert script.count("ping") >= 3
        assert connection.epoch == 1
        for method in ("ping", "tools/list"):
            script.inject(faults.hang(), method=method, times=3)
        await anyio.sleep(60)
        assert connection.epoch == 2
        assert seen.events.count("lost") == 1

    play(script, act, keepalive=10)


def test_keepalive_notices_a_forgotten_session_before_a_call_does() -> None:
    script = Script(get_stream="405")

    async def act(connection: Connection) -> None:
        script.forget_sessions()
        await anyio.sleep(11)
        assert connection.epoch == 2
        assert connection.state is State.READY

    play(script, act, keepalive=10)


def test_keepalive_asks_a_server_without_ping_for_its_tools() -> None:
    script = Script()

    async def act(connection: Connection) -> None:
        await connection.catalog.refresh()
        listed = script.count("tools/list")
        script.inject(faults.rpc_error(-32601, "Method not found", ran=False), method="ping", times=None)
        await anyio.sleep(35)
        assert script.count("tools/list") == listed + 3
        assert connection.epoch == 1

    play(script, act, keepalive=10)


def test_modern_keepalive_asks_for_discovery() -> None:
    script = Script(era="modern")

    async def act(connection: Connection) -> None:
        before = script.count("server/discover")
        await anyio.sleep(35)
        assert script.count("server/discover") == before + 3
        assert connection.epoch == 1

    play(script, act, keepalive=10)


def test_one_call_at_a_time_for_a_server_that_cannot_take_more() -> None:
    script = Script()

    async def act(connection: Connection) -> None:
        began = anyio.current_time()
        async with anyio.create_task_group() as group:
            for _ in range(5):
                group.start_soon(connection.call_tool, "slow", {"seconds": 1})
        assert anyio.current_time() - began >= 5

    play(script, act, max_in_flight=1)


# -- keepalive, if nothing is said of it


def pings_in(script: Script, seconds: float, **more: Any) -> int:
    async def act(connection: Connection) -> None:
        await connection.call_tool("add", {"a": 1, "b": 1})
        await anyio.sleep(seconds)
        assert connection.epoch == 1

    play(script, act, **more)
    # One question for the era is asked at each dial.
    return script.count("ping") + script.count("server/discover") - 1


def test_a_session_that_can_be_forgotten_is_asked_about_once_a_minute() -> None:
    assert 8 <= pings_in(Script(get_stream="405"), 600) <= 13


@pytest.mark.parametrize(("servers", "most"), [(1, 6), (2, 3), (4, 2)])
def test_many_sessions_are_asked_about_less_often(servers: int, most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    # One every 200 s: in 1,000 s about five of all of them.
    monkeypatch.setattr(upkeep, "KEEPALIVES", 1 / 200)
    scripts = [Script(get_stream="405") for _ in range(servers)]

    async def main() -> None:
        entries = {
            f"s{number}": {"url": f"http://scripted{number}/mcp", "http_transport": ScriptTransport(script)}
            for number, script in enumerate(scripts)
        }
        async with Manager(entries) as manager:
            await manager.wait_ready()
            await anyio.sleep(1000)

    trio.run(main, clock=MockClock(autojump_threshold=0))
    counts = [script.count("ping") for script in scripts]
    assert max(counts) <= most
    assert sum(counts) >= 3


@pytest.mark.parametrize("script", [Script(era="modern"), Script(sessions=False)], ids=["modern", "no session id"])
def test_an_unforgettable_session_is_not_probed(script: Script) -> None:
    assert pings_in(script, 600) == 0


def test_keepalive_can_be_turned_off() -> None:
    assert pings_in(Script(get_stream="405"), 600, keepalive=False) == 0


def test_a_forgotten_session_is_replaced_before_a_call_meets_it() -> None:
    script = Script(get_stream="405")

    async def act(connection: Connection) -> None:
        await connection.call_tool("charge", {"amount": 1})
        script.forget_sessions()
        await anyio.sleep(75)
        assert connection.epoch == 2
        script.clear()
        await connection.call_tool("charge", {"amount": 1})
        assert connection.status()["counts"].get("replays", 0) == 0

    play(script, act)
    assert script.executions["charge"] == 2


@pytest.mark.parametrize("fault", [faults.hang(), faults.unavailable(), faults.drop_before()])
def test_a_third_unanswered_check_ends_the_session(fault: Any) -> None:
    script = Script(get_stream="405")

    async def act(connection: Connection) -> None:
        await connection.call_tool("add", {"a": 1, "b": 1})
        for method in ("ping", "tools/list"):
            script.inject(fault, method=method, times=None)
        await anyio.sleep(1.95 * 72)
        assert connection.epoch == 1
        await anyio.sleep(2 * 72)
        assert connection.epoch >= 2 or connection.state is not State.READY

    play(script, act)


def test_keepalive_does_not_hold_a_session_that_should_rest() -> None:
    script = Script(get_stream="405")

    async def act(connection: Connection) -> None:
        await connection.call_tool("add", {"a": 1, "b": 1})
        await anyio.sleep(200)
        assert connection.state is State.IDLE
        asked = script.count("ping")
        await anyio.sleep(600)
        assert (connection.state, script.count("ping")) == (State.IDLE, asked)

    play(script, act, idle_timeout=150)
