"""A legacy client whose stream was cut gets its answer by Last-Event-ID, over a restart of the gateway as well."""

from __future__ import annotations

import time
from typing import Any

import anyio
import pytest
from mcp import Client
from mcp.server.streamable_http import EventMessage
from mcp.shared.message import ClientMessageMetadata
from mcp_types import (
    CallToolRequest,
    CallToolRequestParams,
    CallToolResult,
    JSONRPCError,
    JSONRPCNotification,
    JSONRPCRequest,
    JSONRPCResponse,
    TextContent,
)

from mcpconn.gateway import FileStore, MemoryStore
from mcpconn.gateway.clients import event_log
from mcpconn.gateway.clients.events import LONGEST, Events, SessionEvents
from mcpconn.gateway.clients.session_ids import Session
from mcpconn.gateway.outcomes import OUTCOME
from mcpconn.gateway.principals import ANONYMOUS
from mcpconn.gateway.requests import responses
from mcpconn.gateway.store import StoreUnavailable
from mcpconn.testing import FaultProxy, Script
from tests.gateway.conftest import Gateway, gateway

pytestmark = pytest.mark.anyio

ANSWER = JSONRPCResponse(jsonrpc="2.0", id=7, result={"content": []})
NEWS = JSONRPCNotification(jsonrpc="2.0", method="notifications/progress", params={})


@pytest.fixture(params=["memory", "file"])
async def store(request, tmp_path):
    made = MemoryStore() if request.param == "memory" else FileStore(tmp_path / "store.db")
    yield made
    await made.aclose()


CALL = JSONRPCRequest(jsonrpc="2.0", id=7, method="tools/call", params={"name": "pay"})
SESSION = Session("sid", ANONYMOUS, "")


def events_of(store: Any = None, **options: Any) -> SessionEvents:
    """The events of a session, in a process that has just begun."""
    return Events(store, **options).of(SESSION)


async def replayed(events: SessionEvents, after: str) -> list[EventMessage]:
    got: list[EventMessage] = []

    async def send(message: EventMessage) -> None:
        got.append(message)

    with anyio.fail_after(10):
        assert await events.replay_events_after(after, send) is None
    return got


async def test_what_came_after_is_sent_again(store):
    events = events_of(store)
    first = events.begin(CALL)
    await events.store_event("8", NEWS)
    second = await events.store_event("7", NEWS)
    await events.store_event("7", ANSWER)
    assert [each.message for each in await replayed(events, first)] == [NEWS, ANSWER]
    assert [each.message for each in await replayed(events, second)] == [ANSWER]


async def test_an_answer_outlives_the_process(store):
    first = events_of(store).begin(CALL)
    old = events_of(store)
    await old.store_event("7", ANSWER)
    assert [each.message for each in await replayed(events_of(store), first)] == [ANSWER]


async def test_a_replay_waits_for_the_answer(store):
    events = events_of(store)
    first = events.begin(CALL)
    got: list[EventMessage] = []

    async def replay() -> None:
        got.extend(await replayed(events, first))

    async with anyio.create_task_group() as group:
        group.start_soon(replay)
        await anyio.wait_all_tasks_blocked()
        await events.store_event("7", NEWS)
        await events.store_event("7", ANSWER)
    assert [each.message for each in got] == [NEWS, ANSWER]


async def test_a_call_that_died_with_its_process_is_unknown(store):
    first = events_of(store).begin(CALL)
    (said,) = await replayed(events_of(store), first)
    assert isinstance(said.message, JSONRPCResponse)
    assert said.message.id == 7
    assert said.message.result["_meta"][OUTCOME] == "unknown"
    assert "restarted" in said.message.result["content"][0]["text"]


async def test_a_running_process_is_waited_for(store):
    alive = True

    async def lives(owner: str) -> bool:
        assert owner == "old"
        return alive

    old = events_of(store, owner="old")
    first = old.begin(CALL)
    got: list[EventMessage] = []

    async def replay() -> None:
        got.extend(await replayed(events_of(store, owner="new", alive=lives), first))

    async with anyio.create_task_group() as group:
        group.start_soon(replay)
        await anyio.wait_all_tasks_blocked()
        await old.store_event("7", ANSWER)
    assert [each.message for each in got] == [ANSWER]


@pytest.mark.parametrize("last", ["99.12", "99.abc"])
async def test_a_forgotten_stream_is_answered(store, last):
    (said,) = await replayed(events_of(store), last)
    assert isinstance(said.message, JSONRPCError)
    assert str(said.message.id) == last.partition(".")[2]
    assert said.message.error.data == {OUTCOME: "unknown"}


@pytest.mark.parametrize("last", ["", "x", "1", ".7", "9" * 30 + ".7", "-1.7"])
async def test_an_id_that_is_none_is_refused(store, last):
    assert await replayed(events_of(store), last) == []


async def test_a_process_whose_clock_is_behind_is_heard(store, monkeypatch):
    before = events_of(store)
    last = await before.store_event("7", NEWS)
    monkeypatch.setattr(time, "time_ns", lambda: 1_000_000_000)
    after = events_of(store, alive=_alive)
    found: list[EventMessage] = []
    async with anyio.create_task_group() as group:

        async def answer() -> None:
            await anyio.wait_all_tasks_blocked()
            await after.store_event("7", ANSWER)

        group.start_soon(answer)
        found = await replayed(after, last.replace(".", f"-{before._all._owner}-cn."))
    assert [each.message for each in found] == [ANSWER]


async def _alive(owner: str) -> bool:
    return True


async def test_another_session_cannot_read_it(store):
    every = Events(store)
    events = every.of(SESSION)
    first = events.begin(CALL)
    await events.store_event("7", ANSWER)
    (said,) = await replayed(every.of(Session("another", ANONYMOUS, "")), first)
    assert said.message != ANSWER


async def test_a_long_answer_stays_in_the_process(store):
    long = JSONRPCResponse(jsonrpc="2.0", id=7, result={"text": "x" * LONGEST})
    events = events_of(store)
    first = events.begin(CALL)
    await events.store_event("7", long)
    assert [each.message for each in await replayed(events, first)] == [long]
    (said,) = await replayed(events_of(store), first)
    assert isinstance(said.message, JSONRPCResponse)
    assert said.message.result["_meta"][OUTCOME] == "ran"


async def test_a_store_that_fails_does_not_stop_a_session(store):
    class Failing(MemoryStore):
        async def append(self, *args: Any, **options: Any) -> int:
            raise StoreUnavailable("gone")

    events = events_of(Failing())
    first = events.begin(CALL)
    await events.store_event("7", ANSWER)
    assert [each.message for each in await replayed(events, first)] == [ANSWER]


class Counting(MemoryStore):
    """Counts its operations."""

    def __init__(self) -> None:
        super().__init__()
        self.operations = 0
        self.wrote = anyio.Event()

    async def append_all(self, *args: Any, **options: Any) -> None:
        self.operations += 1
        await super().append_all(*args, **options)
        self.wrote.set()


async def test_events_of_many_calls_are_written_in_one_step():
    kept = Counting()
    events = events_of(kept)
    async with events._all.running():
        for number in range(100):
            events.begin(CALL.model_copy(update={"id": number}))
            await events.store_event(str(number), ANSWER)
        assert kept.operations == 0
        assert len(await replayed(events, "0.7")) == 1, "what is not written yet is read from memory"
        with anyio.fail_after(10):
            await kept.wrote.wait()
    assert kept.operations == 1


async def test_what_is_not_written_yet_is_written_at_the_end(store):
    old = events_of(store)
    async with old._all.running():
        first = old.begin(CALL)
        await old.store_event("7", ANSWER)
    assert [each.message for each in await replayed(events_of(store), first)] == [ANSWER]


async def test_a_stuck_store_holds_up_no_call():
    class Stuck(MemoryStore):
        async def append_all(self, *args: Any, **options: Any) -> None:
            await anyio.sleep_forever()

    events = events_of(Stuck())
    async with events._all.running():
        first = events.begin(CALL)
        await events.store_event("7", ANSWER)
        await anyio.wait_all_tasks_blocked()
        assert [each.message for each in await replayed(events, first)] == [ANSWER]


async def test_an_answer_to_a_client_that_left_is_written_at_once(monkeypatch):
    monkeypatch.setattr(event_log, "DELAY", 3600.0)
    kept = Counting()
    events = events_of(kept)
    async with events._all.running():
        events.begin(CALL)
        events.left("7")
        await events.store_event("7", ANSWER)
        await anyio.wait_all_tasks_blocked()
        assert kept.operations == 1


# -- through the gateway


class _Port:
    def __init__(self, made: Gateway) -> None:
        self.port = int(made.url.split(":")[2].partition("/")[0])


async def test_a_cut_stream_is_taken_up_again(monkeypatch):
    monkeypatch.setattr(responses, "COME_BACK", 50)
    script = Script()
    async with (
        gateway(script) as made,
        FaultProxy(_Port(made)) as proxy,
        Client(proxy.url, mode="legacy") as client,
    ):
        await client.call_tool("a__add", {"a": 1, "b": 1})
        numbered = anyio.Event()

        async def number(event_id: str) -> None:
            numbered.set()

        async def cutting() -> None:
            # What its client has not read by then is lost with the connection.
            await numbered.wait()
            proxy.reset()

        params = CallToolRequestParams(name="a__slow_charge", arguments={"seconds": 0.2})
        async with anyio.create_task_group() as group:
            group.start_soon(cutting)
            result = await client.session.send_request(
                CallToolRequest(params=params),
                CallToolResult,
                metadata=ClientMessageMetadata(on_resumption_token_update=number),
            )
        assert isinstance(result.content[0], TextContent)
        assert result.content[0].text == "slept 0.2"
    assert script.executions["slow_charge"] == 1
