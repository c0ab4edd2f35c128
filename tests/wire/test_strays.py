"""Answers to no request on a shared stream, in virtual time: the only waiting request has a moment for its own."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from mcp.shared.message import SessionMessage
from mcp_types import JSONRPCResponse

from mcpconn.core.attempt import Attempt
from mcpconn.testing.clock import virtual_backend
from mcpconn.wire.messages import Unreadable
from mcpconn.wire.streams import STRAY, Inbox, WatchedRead
from mcpconn.wire.watch import Watch
from tests.wire.test_watch import error, notification, request

pytestmark = pytest.mark.anyio

STRAYS = [error(None, -32700, "Parse error"), error(99), error("somebody"), Unreadable("no answer", anonymous=True)]
ANSWER = SessionMessage(JSONRPCResponse(jsonrpc="2.0", id=7, result={}))


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    return virtual_backend(request.param)


class Session:
    """A session that sent request 7, and the messages that it is passed, with the time of each."""

    def __init__(self, method: str = "tools/call") -> None:
        self.watch = Watch(lambda _: None)
        self.inbox = Inbox()
        self.attempt = Attempt("call", written=True)
        self.watch.sent(request(7, method), self.attempt)
        self.passed: list[tuple[float, Any]] = []

    async def read(self) -> None:
        began = anyio.current_time()
        async for item in WatchedRead(self.inbox, self.watch):
            self.passed.append((round(anyio.current_time() - began, 3), item))

    @property
    def failed(self) -> list[float]:
        """When request 7 was answered with a failure."""
        given = [*STRAYS, ANSWER]
        return [at for at, item in self.passed if item not in given and getattr(item.message, "id", None) == 7]


@asynccontextmanager
async def session(method: str = "tools/call") -> AsyncIterator[Session]:
    made = Session(method)
    async with anyio.create_task_group() as group:
        group.start_soon(made.read)
        yield made
        made.inbox.end()
    made.inbox.close()


@pytest.mark.parametrize("stray", STRAYS)
@pytest.mark.parametrize("wait", [0, STRAY - 0.1])
async def test_an_answer_after_a_stray_is_the_calls(stray: Any, wait: float) -> None:
    async with session() as made:
        await made.inbox.put(stray)
        await anyio.sleep(wait)
        await made.inbox.put(ANSWER)
        await anyio.sleep(10 * STRAY)
    assert [item for _, item in made.passed] == [stray, ANSWER]
    assert (made.attempt.answered, made.attempt.exception) == (True, None)


@pytest.mark.parametrize("stray", STRAYS)
async def test_without_another_answer_the_call_ends(stray: Any) -> None:
    async with session() as made:
        await made.inbox.put(stray)
        await anyio.sleep(STRAY + 0.1)
        assert made.failed == [STRAY]
        # Too late, and its caller has gone.
        await made.inbox.put(ANSWER)
    assert isinstance(made.attempt.exception, Unreadable)


async def test_more_strays_and_other_messages_gain_no_time() -> None:
    async with session() as made:
        for _ in range(30):
            await made.inbox.put(error(99))
            await made.inbox.put(notification("notifications/message", level="info", data="x"))
            await anyio.sleep(0.1)
    assert made.failed == [STRAY]


async def test_progress_shows_that_the_request_was_understood() -> None:
    async with session() as made:
        await made.inbox.put(error(99))
        await made.inbox.put(notification("notifications/progress", progressToken=7, progress=1))
        await anyio.sleep(10 * STRAY)
        await made.inbox.put(ANSWER)
    assert made.failed == []
    assert made.attempt.answered


async def test_a_cancelled_request_is_no_longer_doubted() -> None:
    async with session() as made:
        await made.inbox.put(error(99))
        made.watch.waiting.give_up(7)
        later = Attempt("call", written=True)
        made.watch.sent(request(8), later)
        await anyio.sleep(STRAY - 0.1)
        await made.inbox.put(error(100))
        await anyio.sleep(0.2)
        # The time of the first one is not the next one's.
        assert later.exception is None
        await anyio.sleep(STRAY)
        assert later.exception is not None
    assert made.failed == []


async def test_a_call_made_meanwhile_does_not_save_the_doubted_one() -> None:
    async with session() as made:
        await made.inbox.put(error(None))
        made.watch.sent(request(8), Attempt("call", written=True))
        await anyio.sleep(STRAY + 0.1)
    assert made.failed == [STRAY]


async def test_the_question_for_the_era_has_no_time_to_lose() -> None:
    async with session("server/discover") as made:
        await made.inbox.put(error(None))
        await anyio.lowlevel.checkpoint()
    assert made.failed == [0]
