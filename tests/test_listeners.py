"""Host code that is notified of something: whatever it raises or causes, the connection that tells it goes on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import anyio
import pytest

from mcpconn import Change, ConnectionClosed, Event, Manager, Policy, Rule, State
from mcpconn.core.failures import Delivery, FailureKind
from mcpconn.runtime.journal import Finished, Notice
from mcpconn.runtime.listeners import Listeners
from mcpconn.testing import Script, ScriptTransport
from mcpconn.testing.clock import settle, virtual_backend
from mcpconn.testing.scripted import faults
from tests.support import UNFINISHED_STREAMS, text_of

pytestmark = [pytest.mark.anyio, UNFINISHED_STREAMS]


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    return virtual_backend(request.param)


def entry(transport: ScriptTransport, **more: Any) -> dict[str, Any]:
    return {"url": "http://scripted/mcp", "http_transport": transport, **more}


PATIENT = Policy(patience=3, cool_down=5)
RAISED: list[Callable[[], BaseException]] = [asyncio.CancelledError, GeneratorExit, ValueError]

# -- what they raise


@pytest.mark.parametrize("make", RAISED)
async def test_what_a_listener_raises_ends_nothing(
    make: Callable[[], BaseException], caplog: pytest.LogCaptureFixture
) -> None:
    heard: list[Notice] = []

    def broken(_: Notice) -> None:
        raise make()

    one, two = Script(), Script()
    async with Manager({"one": entry(ScriptTransport(one)), "two": entry(ScriptTransport(two))}) as manager:
        manager.subscribe(broken)
        manager.observe(broken)
        manager["one"].journal.subscribe(broken)
        manager.observe(heard.append)
        for _ in range(2):
            assert text_of(await manager.call_tool("one", "add", {"a": 1, "b": 1})) == "2"
            assert text_of(await manager.call_tool("two", "add", {"a": 1, "b": 1})) == "2"
            one.forget_sessions()
        assert (manager["one"].state, manager["two"].state) == (State.READY, State.READY)
    calls = [notice.server for notice in heard if isinstance(notice, Finished) and notice.method == "tools/call"]
    assert sorted(calls) == ["one", "one", "two", "two"]
    assert "listener.raised" in caplog.text
    assert "crashed" not in caplog.text


async def test_a_listener_can_leave_the_program() -> None:
    manager = Manager({"srv": entry(ScriptTransport(Script()))})
    connection = manager["srv"]
    heard: list[Change] = []

    def leaving(_: Change) -> None:
        raise KeyboardInterrupt

    async with manager:
        await manager.wait_ready()
        manager.subscribe(leaving)
        manager.subscribe(heard.append)
        with pytest.raises(KeyboardInterrupt):
            connection.close()
        # All that had to follow has: the state, those who wait, and the listeners after it.
        assert connection.state is State.CLOSED
        assert [change.event for change in heard] == [Event.CLOSE]
        with anyio.fail_after(10):
            await connection.ended()


async def test_a_rule_that_raises_is_passed_over(caplog: pytest.LogCaptureFixture) -> None:
    def broken(_: Any) -> bool:
        raise ZeroDivisionError

    rule = Rule("odd", FailureKind.APPLICATION, Delivery.UNKNOWN, False, broken)
    script = Script()
    async with Manager({"srv": entry(ScriptTransport(script))}, rules=[rule]) as manager:
        await manager.wait_ready()
        script.forget_sessions()
        assert text_of(await manager.call_tool("srv", "charge")) == "charged 1"
        assert manager["srv"].epoch == 2
    assert "rule.raised" in caplog.text


# -- what they cause


async def until_suspected(manager: Manager, script: Script, transport: ScriptTransport) -> None:
    script.inject(faults.hang())
    with pytest.raises(Exception):  # noqa: B017, PT011 - a deadline or a closed connection: not what this is about
        await manager.call_tool("srv", "charge", timeout=1)


async def until_lost(manager: Manager, script: Script, transport: ScriptTransport) -> None:
    script.forget_sessions()
    with anyio.move_on_after(60):
        try:
            await manager.call_tool("srv", "charge")
        except ConnectionClosed:
            return


async def until_old(manager: Manager, script: Script, transport: ScriptTransport) -> None:
    await anyio.sleep(60)


async def until_reconnected(manager: Manager, script: Script, transport: ScriptTransport) -> None:
    try:
        await manager["srv"].reconnect()
    except ConnectionClosed:
        return


async def nothing(manager: Manager, script: Script, transport: ScriptTransport) -> None:
    await anyio.sleep(60)


Way = Callable[[Manager, Script, ScriptTransport], Any]
WAYS: list[tuple[Event, Way, dict[str, Any]]] = [
    (Event.CONNECT, nothing, {}),
    (Event.ESTABLISHED, nothing, {}),
    (Event.ATTEMPT_FAILED, nothing, {"down": True}),
    (Event.GIVE_UP, nothing, {"down": True}),
    (Event.RETRY, nothing, {"down": True}),
    (Event.SUSPECTED, until_suspected, {}),
    (Event.LOST, until_lost, {}),
    (Event.RECYCLE, until_old, {"max_lifetime": 30}),
    (Event.RECYCLE, until_old, {"idle_timeout": 30}),
    (Event.RECYCLE, until_reconnected, {}),
]


@pytest.mark.parametrize(
    "which", range(len(WAYS)), ids=[f"{event}-{way.__name__}-{'-'.join(d)}" for event, way, d in WAYS]
)
async def test_a_listener_may_close_at_any_event(which: int, caplog: pytest.LogCaptureFixture) -> None:
    event, way, details = WAYS[which]
    script, transport = Script(), ScriptTransport(Script())
    transport = ScriptTransport(script)
    details = dict(details)
    transport.down = details.pop("down", False)
    told: list[list[Event]] = [[], []]
    manager = Manager({"srv": entry(transport, **details), "other": entry(ScriptTransport(Script()))}, policy=PATIENT)
    connection = manager["srv"]

    def closing(change: Change) -> None:
        if change.server == "srv":
            told[0].append(change.event)
            if change.event is event:
                connection.close()

    def after(change: Change) -> None:
        if change.server == "srv":
            told[1].append(change.event)

    manager.subscribe(closing)
    manager.subscribe(after)
    async with manager:
        await manager["other"].wait_ready()
        if not transport.down:
            await connection.settled()
        await way(manager, script, transport)
        with anyio.fail_after(30):
            await connection.ended()
        assert connection.state is State.CLOSED
        with pytest.raises(ConnectionClosed):
            await manager.call_tool("srv", "charge")
        assert text_of(await manager.call_tool("other", "add", {"a": 1, "b": 1})) == "2"
    assert event in told[0]
    # Everyone hears of everything, and in the order in which it happened.
    assert told[0] == told[1]
    assert told[0][-1] is Event.CLOSE
    assert "crashed" not in caplog.text


async def test_a_listener_may_remove_its_server() -> None:
    script = Script()
    async with Manager({"srv": entry(ScriptTransport(script)), "other": entry(ScriptTransport(Script()))}) as manager:
        await manager.wait_ready()

        def remove(change: Change) -> None:
            if change.event is Event.LOST:
                manager.remove("srv")

        manager.subscribe(remove)
        script.forget_sessions()
        with pytest.raises(ConnectionClosed):
            await manager.call_tool("srv", "charge")
        assert list(manager) == ["other"]
        await settle()
        assert text_of(await manager.call_tool("other", "add", {"a": 1, "b": 1})) == "2"


# -- the set of them


def test_news_by_a_listener_come_second() -> None:
    listeners: Listeners[int] = Listeners()
    heard: list[tuple[str, int]] = []

    def causing(number: int) -> None:
        heard.append(("causing", number))
        if number < 3:
            listeners.tell(number + 1, lambda *_: None)

    listeners.subscribe(causing)
    listeners.subscribe(lambda number: heard.append(("after", number)))
    listeners.tell(1, lambda *_: None)
    assert heard == [(who, number) for number in (1, 2, 3) for who in ("causing", "after")]


def test_unsubscribed_listeners_hear_nothing() -> None:
    listeners: Listeners[int] = Listeners()
    heard: list[int] = []
    listeners.subscribe(lambda _: end())
    end = listeners.subscribe(heard.append)
    listeners.tell(1, lambda *_: None)
    assert heard == []
    end()
    assert bool(listeners)


def test_a_function_subscribed_twice_is_told_twice() -> None:
    listeners: Listeners[int] = Listeners()
    heard: list[int] = []
    first, second = listeners.subscribe(heard.append), listeners.subscribe(heard.append)
    first()
    first()
    listeners.tell(1, lambda *_: None)
    assert heard == [1]
    second()
    assert not listeners
