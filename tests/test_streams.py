"""Event streams: the standalone one, and answers that can be resumed."""

from __future__ import annotations

import os
import socket
from typing import Any, Literal

import anyio
import psutil
import pytest

from mcpconn import Connection, OutcomeUnknown, State
from mcpconn.testing import HttpServer, Script
from mcpconn.testing.scripted import faults
from mcpconn.testing.scripted.steps import Reply, Send
from tests.support import (
    SAFETY,
    UNFINISHED_STREAMS,
    Arrivals,
    Openings,
    Seen,
    quiet,
    served,
    sockets_closed,
    text_of,
)

pytestmark = [pytest.mark.anyio, UNFINISHED_STREAMS]


@pytest.mark.parametrize("cut", [faults.cut_stream(), faults.cut_stream(clean=True), faults.cut_stream(reset=True)])
@pytest.mark.parametrize("tool", ["add", "charge"])
async def test_an_answer_cut_after_an_event_id_is_resumed(tool: str, cut: faults.Fault) -> None:
    script = Script(answer="sse", event_ids=True, retry_ms=10)
    async with served(script) as (connection, _):
        seen, ran, posts = Seen(connection), script.executions[tool], script.count("tools/call")
        # The answer is recorded by the server, which plays it again to the GET that names the last event.
        script.inject(recorded(cut))
        result = await connection.call_tool(tool, {"a": 2, "b": 3, "amount": 5})
        assert text_of(result) in ("5", "charged 5")
        assert script.executions[tool] - ran == 1
        assert script.count("tools/call") - posts == 1
        assert seen.events == []
        assert connection.status()["counts"].get("replayed", 0) == 0


def recorded(cut: faults.Fault) -> faults.Fault:
    """The same cut, by a server that works the answer out all the same, and keeps it."""

    def plan(exchange: faults.Exchange) -> Any:
        kept = list(exchange.answer.steps)
        assert kept
        return cut.plan(exchange)

    return faults.Fault(cut.name, plan, after=True)


async def test_an_answer_that_cannot_be_resumed_is_lost_like_any_other() -> None:
    script = Script(answer="sse", event_ids=True, retry_ms=10)
    async with served(script) as (connection, _):
        script.inject(recorded(faults.cut_stream()), tool="charge")
        script.inject(faults.bad_gateway(), method="GET", times=None)
        with pytest.raises(OutcomeUnknown, match="event stream ended before the answer"):
            await connection.call_tool("charge")
        await quiet(connection)
        assert script.executions["charge"] == 1
        assert (connection.state, connection.epoch) == (State.READY, 1)


@pytest.mark.parametrize("era", ["legacy", "modern"])
async def test_progress_reaches_the_caller_over_an_event_stream(era: Literal["legacy", "modern"]) -> None:
    script = Script(era=era, answer="sse")
    async with served(script) as (connection, _):
        reports: list[float] = []

        async def progress(progress: float, total: float | None, message: str | None) -> None:
            reports.append(progress)

        result = await connection.call_tool("progress", {"steps": 3}, progress_callback=progress)
        assert text_of(result) == "3 steps done"
        assert reports == [1, 2, 3]


@pytest.mark.parametrize("era", ["legacy", "modern"])
async def test_a_call_with_progress_is_not_retried_when_refused(
    era: Literal["legacy", "modern"],
) -> None:
    script = Script(era=era, answer="sse")
    async with served(script) as (connection, _):

        def plan(exchange: faults.Exchange) -> Any:
            steps = iter(exchange.answer.steps)
            answer = exchange.answer
            # The first report, and then the end of the stream.
            return type(answer)(answer.status, answer.headers, (step for step, _ in zip(steps, range(2), strict=False)))

        script.inject(faults.Fault("cut after progress", plan, after=True), times=1)
        seen: list[float] = []

        async def progress(progress: float, total: float | None, message: str | None) -> None:
            seen.append(progress)

        with pytest.raises(OutcomeUnknown):
            await connection.call_tool("progress", {"steps": 3}, progress_callback=progress, idempotent=False)
        assert seen == [1]
        assert script.executions["progress"] == 1


@pytest.mark.parametrize("era", ["legacy", "modern"])
@pytest.mark.parametrize(("answer", "event_ids"), [("json", False), ("sse", False), ("sse", True)])
async def test_a_cancelled_call_frees_its_socket(
    answer: Literal["json", "sse"], event_ids: bool, era: Literal["legacy", "modern"]
) -> None:
    script = Script(era=era, answer=answer, event_ids=event_ids, retry_ms=1)
    with anyio.fail_after(SAFETY):
        async with HttpServer(script) as server, Connection(server.url) as connection:
            await connection.call_tool("add", {"a": 1, "b": 1})
            await quiet(connection)
            arrivals = Arrivals(script)
            for number in range(10):
                async with anyio.create_task_group() as group:
                    group.start_soon(connection.call_tool, "slow_charge", {"seconds": 1000})
                    await arrivals.reach(number + 1)
                    group.cancel_scope.cancel()
            await connection.call_tool("add", {"a": 1, "b": 1})
            # The standing stream, and sockets that are free.
            await sockets_closed(server, but=3)
            assert connection.epoch == 1


def count_tasks() -> int:
    """Tasks that run now, without the one that sweeps idle sockets: it runs only while there are some."""
    return sum("Sweeping" not in (task.name or "") for task in anyio.get_running_tasks())


@pytest.mark.parametrize("engine", ["direct", "httpx"])
@pytest.mark.parametrize("era", ["legacy", "modern"])
async def test_a_stream_that_was_cut_holds_one_socket_and_leaves_none(
    era: Literal["legacy", "modern"], engine: str
) -> None:
    script = Script(era=era)
    with anyio.fail_after(SAFETY):
        async with HttpServer(script) as server:
            async with Connection({"url": server.url, "engine": engine, "catalog": "eager"}) as connection:
                await quiet(connection)
                opened = Openings(connection)
                for number in (1, 2):
                    await opened.reach(number)
                    tasks = count_tasks()
                    await server.reset_connections()
                await opened.reach(3)
                await sockets_closed(server, but=2)
                assert script.streams.count == 1
                assert count_tasks() <= tasks
                assert text_of(await connection.call_tool("charge")) == "charged 1"
                assert connection.epoch == 1
            await sockets_closed(server, but=0)


@pytest.mark.skipif(not hasattr(socket, "TCP_USER_TIMEOUT"), reason="the system has no such option")
@pytest.mark.parametrize("engine", ["direct", "httpx"])
async def test_the_system_watches_a_streams_socket(engine: str) -> None:
    async with served(Script(), config={"engine": engine}) as (connection, server):
        await Openings(connection).reach(1)
        of_the_client = [each for each in psutil.Process().net_connections("tcp") if each.raddr[1:] == (server.port,)]
        assert of_the_client
        for each in of_the_client:
            with socket.socket(fileno=os.dup(each.fd)) as copy:
                assert copy.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
                # Milliseconds. A peer that has vanished is noticed within a minute.
                assert copy.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 60_000


@pytest.mark.parametrize("engine", ["direct", "httpx"])
async def test_an_event_stream_in_crumbs_is_refused_and_not_resumed(engine: str) -> None:
    script = Script(answer="sse", event_ids=True)

    def crumbs(exchange: faults.Exchange) -> Reply:
        body = exchange.opening + b"data: " + b"x" * 20_000
        return Reply(200, faults.SSE_HEADERS, [Send(body[at : at + 1]) for at in range(len(body))])

    async with served(script, config={"engine": engine}) as (connection, _):
        opened = script.count("GET")
        script.inject(faults.Fault("crumbs", crumbs), tool="charge")
        with pytest.raises(OutcomeUnknown, match="chunks of less than 16 bytes"):
            await connection.call_tool("charge")
        assert script.count("GET") == opened
