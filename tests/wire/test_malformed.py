"""Malformed and hostile responses: over either engine, a caller is told the same of each, and it is true."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import suppress

import anyio
import pytest
from mcp import MCPError

from mcpconn import Connection
from mcpconn.testing import HttpServer, Script
from mcpconn.testing.history import History
from mcpconn.testing.scripted.faults import Exchange, Fault
from mcpconn.testing.scripted.steps import Close, Raw, Reply, Send, Step
from tests.support import SAFETY, UNFINISHED_STREAMS, text_of
from tests.wire.malformed import CASES, Case
from tests.wire.sockets import Name

pytestmark = [pytest.mark.anyio, UNFINISHED_STREAMS]


@pytest.fixture(scope="module", params=["direct", "httpx"])
def engine(request: pytest.FixtureRequest) -> Name:
    return request.param  # type: ignore[no-any-return]


def fault(case: Case) -> Fault:
    """Answers as the case says."""

    def steps(exchange: Exchange) -> Iterator[Step]:
        answer = b""
        if case.ran:
            answer = b"".join(step.data for step in exchange.answer.steps if isinstance(step, Send))
        yield Raw(case.make(answer))
        if case.close:
            yield Close()

    return Fault(case.name, lambda exchange: Reply(None, (), steps(exchange)), after=case.ran)


def test_there_are_enough_of_them() -> None:
    assert len(CASES) >= 150
    assert len({case.name for case in CASES}) == len(CASES)


@pytest.fixture(scope="module")
async def shop(anyio_backend: object, engine: Name) -> AsyncIterator[tuple[Script, Connection]]:
    """One server and one connection for all cases: none may spoil the next. The event loop is named so that each has
    its own."""
    script = Script()
    async with (
        HttpServer(script) as server,
        Connection({"url": server.url, "engine": engine}, name="shop") as connection,
    ):
        yield script, connection


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
async def test_a_caller_is_told_the_truth(case: Case, shop: tuple[Script, Connection]) -> None:
    script, connection = shop
    history = History(prefix=f"{case.name} ")
    script.inject(fault(case))
    with anyio.fail_after(SAFETY):
        with suppress(MCPError), history.call("charge", {"amount": 5}) as call:
            call.answer = await connection.call_tool("charge", call.arguments)
        # Whatever it was, the next call is answered, and nobody else's bytes are taken for its answer.
        with history.call("charge", {"amount": 7}) as following:
            following.answer = await connection.call_tool("charge", following.arguments)
    assert call.outcome == case.outcome, call.error
    assert case.outcome != "answered" or text_of(call.answer) == "charged 5"
    assert text_of(following.answer) == "charged 7"
    history.check(script)
