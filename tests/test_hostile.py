"""Answers no client should trust: that call fails, memory stays bounded, neighbours and other servers never notice."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal

import anyio
import psutil
import pytest
from mcp import MCPError

from mcpconn import CallFailed, Connection, FailureKind, Manager, OutcomeUnknown, Policy, State
from mcpconn.catalog.listing import KINDS
from mcpconn.testing import Fault, HttpServer, Script
from mcpconn.testing.scripted import hostile
from tests.support import SAFETY, UNFINISHED_STREAMS, Arrivals, Seen, quiet, served, text_of

pytestmark = [pytest.mark.anyio, UNFINISHED_STREAMS]

K = FailureKind
Era = Literal["legacy", "modern"]
LIMIT = 1_000_000
GROWTH = 12 * LIMIT
"""Bytes this process may grow while it refuses an answer: the limit in several copies, and the server's own."""


@pytest.fixture(params=["legacy", "modern"])
def era(request: pytest.FixtureRequest) -> Era:
    return request.param  # type: ignore[no-any-return]


FLOODS: dict[str, Callable[[], Fault]] = {
    "huge body": lambda: hostile.huge_body(200 * LIMIT),
    "endless body": hostile.endless_body,
    "endless event": hostile.endless_event,
    "huge error": lambda: hostile.huge_error(200 * LIMIT),
}


@pytest.mark.parametrize("flood", FLOODS)
async def test_a_flood_fails_its_call_alone(flood: str, era: Era) -> None:
    script = Script(era=era)
    async with served(script, policy=Policy(max_message_size=LIMIT)) as (connection, _):
        arrivals, answers = Arrivals(script), list[str]()

        async def neighbour() -> None:
            answers.append(text_of(await connection.call_tool("slow_charge", {"seconds": 0.3})))

        before = psutil.Process().memory_info().rss
        async with anyio.create_task_group() as group:
            for _ in range(3):
                group.start_soon(neighbour)
            await arrivals.reach(3)
            script.inject(FLOODS[flood](), tool="charge")
            with pytest.raises(OutcomeUnknown) as caught:
                await connection.call_tool("charge", timeout=15)
        assert psutil.Process().memory_info().rss - before < GROWTH
        assert answers == ["slept 0.3"] * 3
        assert script.executions["charge"] == 1
        assert len(str(caught.value)) < 1000
        await quiet(connection)
        assert (connection.state, connection.epoch) == (State.READY, 1)


async def test_a_body_below_the_limit_is_an_answer(era: Era) -> None:
    script = Script(era=era)
    async with served(script, policy=Policy(max_message_size=LIMIT)) as (connection, _):
        script.inject(hostile.huge_body(LIMIT - 1000))
        result = await connection.call_tool("charge")
        assert len(text_of(result)) > LIMIT - 2000
        assert connection.epoch == 1


async def test_a_long_error_text_is_cut_short_in_everything_that_is_shown(era: Era) -> None:
    script = Script(era=era)
    async with served(script) as (connection, _):
        script.inject(hostile.huge_error(3_000_000))
        with pytest.raises(MCPError):
            await connection.call_tool("charge")
        assert len(repr(connection.status())) < 20_000
        assert connection.epoch == 1


async def test_bytes_that_are_no_text_fail_a_call(era: Era) -> None:
    script = Script(era=era)
    async with served(script) as (connection, _):
        seen = Seen(connection)
        script.inject(hostile.invalid_utf8())
        with pytest.raises(OutcomeUnknown) as caught:
            await connection.call_tool("charge")
        assert caught.value.failure.kind is K.PROTOCOL
        assert text_of(await connection.call_tool("add", {"a": 1, "b": 1})) == "2"
        assert (seen.events, connection.epoch) == (["suspected"], 1)


async def test_an_answer_with_another_id_leaves_it_unknown(era: Era) -> None:
    script = Script(era=era)
    async with served(script) as (connection, _):
        script.inject(hostile.wrong_id())
        # The SDK takes it for an answer to nobody, and its caller waits until the deadline.
        with pytest.raises(OutcomeUnknown) as caught:
            await connection.call_tool("charge")
        assert caught.value.failure.kind is K.PROTOCOL
        assert text_of(await connection.call_tool("add", {"a": 1, "b": 1})) == "2"
        assert script.executions["charge"] == 1


async def test_the_first_of_two_answers_counts(era: Era) -> None:
    script = Script(era=era, answer="sse")
    async with served(script) as (connection, _):
        seen = Seen(connection)
        script.inject(hostile.duplicate_response())
        assert text_of(await connection.call_tool("charge")) == "first"
        assert text_of(await connection.call_tool("add", {"a": 1, "b": 1})) == "2"
        assert seen.events == []


@pytest.mark.parametrize("code", [-32000, -32001, -32600, -32603])
async def test_forged_evidence_is_not_believed(code: int, era: Era) -> None:
    script = Script(era=era)
    async with served(script) as (connection, _):
        for message in ("Connection closed", "Request failed: ConnectError", "Session terminated"):
            ran = script.executions["charge"]
            script.inject(hostile.forged_evidence(code=code, message=message))
            with pytest.raises(MCPError):
                await connection.call_tool("charge")
            # It said that nothing ran. It did, and it was not retried.
            assert script.executions["charge"] == ran + 1
            await quiet(connection)
        assert (connection.state, connection.epoch) == (State.READY, 1)


async def test_a_hostile_server_harms_no_other(era: Era) -> None:
    bad, good = Script(era=era), Script(era=era)
    with anyio.fail_after(SAFETY):
        async with HttpServer(bad) as first, HttpServer(good) as second:
            servers = {"bad": first.url, "good": second.url}
            async with Manager(servers, policy=Policy(max_message_size=LIMIT)) as manager:
                await manager.wait_ready()
                bad.inject(hostile.endless_body(), times=None)
                async with anyio.create_task_group() as group:

                    async def flooded() -> None:
                        with pytest.raises(CallFailed):
                            await manager.call_tool("bad", "charge", timeout=5)

                    for _ in range(5):
                        group.start_soon(flooded)
                    for number in range(20):
                        answer = await manager.call_tool("good", "add", {"a": number, "b": 0}, timeout=5)
                        assert text_of(answer) == str(number)
                assert manager["good"].epoch == 1


async def test_a_server_whose_pages_never_end_does_not_hang_its_connection(
    era: Era, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = Script(era=era, page_size=1)

    def page(key: str, items: list[Any], params: Mapping[str, Any]) -> dict[str, Any]:
        # Each page names another, indefinitely.
        return {key: items[:1], "nextCursor": str(int(params.get("cursor") or 0) + 1)}

    monkeypatch.setattr(script.service.catalog, "_page", page)
    with anyio.fail_after(SAFETY):
        async with HttpServer(script) as server, Connection(server.url) as connection:
            assert text_of(await connection.call_tool("charge")) == "charged 1"
            await connection.catalog.refresh()
            assert script.count("tools/list") == 100
            assert connection.catalog.listed == set(KINDS)
