"""One server's costly answers hold up nobody else: other tasks have their turn every so many steps of the reader.

Counted in steps, not in seconds: a step is what the reader handles without waiting, an event of the HTTP parser or a
chunk of the library's. Deadlines are timers of the same loop, so what has its turn also has its deadline.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint

from mcpconn.testing import Exchange, Fault, Raw, Reply, Script, Step
from mcpconn.wire.engine.http1 import HttpSocket
from mcpconn.wire.fairness import STEPS
from mcpconn.wire.library import _Paced
from mcpconn.wire.messages import WINDOW, Limits, parse
from tests.support import SAFETY, UNFINISHED_STREAMS, Neighbour, served, text_of

pytestmark = [pytest.mark.anyio, UNFINISHED_STREAMS]

HEAD = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ncontent-type: %s\r\n\r\n"
EVENTS = b"text/event-stream"
TEXT = "a" * 5000


def answer(exchange: Exchange) -> bytes:
    result = {"content": [{"type": "text", "text": TEXT}], "resultType": "complete"}
    return json.dumps({"jsonrpc": "2.0", "id": exchange.request_id, "result": result}).encode()


def chunked(kind: bytes, *chunks: bytes) -> bytes:
    return HEAD % kind + b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\n\r\n"


def crumbs(kind: bytes, body: bytes) -> bytes:
    return chunked(kind, *(bytes([each]) for each in body))


ANSWERS: dict[str, Callable[[bytes], bytes]] = {
    "json in bytes": lambda body: crumbs(b"application/json", body),
    "an event in bytes": lambda body: crumbs(EVENTS, b"data: " + body + b"\n\n"),
    "many comments": lambda body: chunked(
        b"text/event-stream", *[b": alive and well\n\n"] * 3000, b"data: %s\n\n" % body
    ),
}


def costly(kind: str) -> Fault:
    def steps(exchange: Exchange) -> Iterator[Step]:
        yield from exchange.run()
        yield Raw(ANSWERS[kind](answer(exchange)))

    return Fault("a costly answer", lambda exchange: Reply(None, (), steps(exchange)), after=True)


class Turns:
    """The most steps that a reader has made between two turns of another task."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.steps = self.most = self.taken = 0
        next_event, next_part = HttpSocket._next_event, _Paced.__anext__

        def counted(socket: HttpSocket) -> Any:
            self.step()
            return next_event(socket)

        async def counted_part(body: _Paced) -> bytes:
            self.step()
            return await next_part(body)

        monkeypatch.setattr(HttpSocket, "_next_event", counted)
        monkeypatch.setattr(_Paced, "__anext__", counted_part)

    def step(self) -> None:
        self.steps += 1
        self.taken += 1
        self.most = max(self.most, self.steps)

    async def neighbour(self) -> None:
        while True:
            self.steps = 0
            await checkpoint()


@pytest.mark.parametrize("engine", ["direct", "httpx"])
@pytest.mark.parametrize("kind", ANSWERS)
async def test_costly_answers_let_others_run(kind: str, engine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    script = Script()
    async with served(script, config={"engine": engine}) as (connection, _):
        script.inject(costly(kind), tool="charge")
        turns = Turns(monkeypatch)
        async with anyio.create_task_group() as group:
            group.start_soon(turns.neighbour)
            assert text_of(await connection.call_tool("charge")) == TEXT
            group.cancel_scope.cancel()
    assert turns.taken > 3000
    # trio runs the tasks of a turn in any order, so two slices of the reader's may follow each other. A few steps more
    # are the head and the end of the body, which the reader does not count.
    assert turns.most <= 2 * STEPS + 8


@pytest.mark.parametrize("count", [3, 12])
async def test_counting_a_large_message_yields(count: int) -> None:
    # Its commas are all in a text, so that each of them has to be looked at.
    message = json.dumps({"jsonrpc": "2.0", "id": 1, "result": {"text": "," * (count * WINDOW)}}).encode()
    neighbour = Neighbour()
    with anyio.fail_after(SAFETY):
        async with anyio.create_task_group() as group:
            group.start_soon(neighbour.run)
            await checkpoint()
            before = neighbour.turns
            await parse(message, Limits(size=len(message), values=1000))
            group.cancel_scope.cancel()
    assert neighbour.turns - before >= count
