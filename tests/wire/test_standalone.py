"""The standalone event stream by itself: event ids, retry fields, what it delivers and what it drops."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

import anyio
import httpx2
import pytest

from mcpconn.core.attempt import Attempt
from mcpconn.core.failures import Evidence
from mcpconn.core.stream import JITTER, StreamState
from mcpconn.testing import clock
from mcpconn.wire.evidence_client import Refused
from mcpconn.wire.messages import Limits
from mcpconn.wire.standalone import StandaloneStream
from mcpconn.wire.watch import Watch

CHANGED = b'data: {"jsonrpc": "2.0", "method": "notifications/tools/list_changed"}\n\n'


class Body(httpx2.AsyncByteStream):
    def __init__(self, *chunks: bytes) -> None:
        self._chunks = chunks
        self.closed = False

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for chunk in self._chunks:
            yield chunk

    async def aclose(self) -> None:
        self.closed = True


class Server:
    """Answers one request after another: bytes of a stream, a status that refuses, or an error."""

    def __init__(self, *answers: bytes | int | Exception) -> None:
        self._answers = list(answers)
        self.asked: list[tuple[float, bytes | None]] = []
        """When, and after which event id."""
        self.bodies: list[Body] = []
        self.done = anyio.Event()

    async def open(self, event_id: bytes | None, attempt: Attempt) -> httpx2.Response:
        self.asked.append((anyio.current_time(), event_id))
        if not self._answers:
            self.done.set()
            await anyio.sleep_forever()
        answer = self._answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        if isinstance(answer, int):
            attempt.http_status = answer
            raise Refused(answer)
        body = Body(answer)
        self.bodies.append(body)
        return httpx2.Response(200, headers={"content-type": "text/event-stream"}, stream=body)


def play(*answers: bytes | int | Exception, check: Callable[[Server, list[Any], Watch, list[Evidence]], None]) -> None:
    """Run a stream against these answers, and check once all were taken."""

    async def main() -> None:
        server, delivered, signs = Server(*answers), list[Any](), list[Evidence]()
        watch = Watch(signs.append)

        async def deliver(item: Any) -> None:
            delivered.append(item.message.method)

        stream = StandaloneStream(watch, Limits(4096, 4096), deliver=deliver, open=server.open)
        assert watch.stream.state is StreamState.OPENING
        async with anyio.create_task_group() as group:
            group.start_soon(stream.run)
            await server.done.wait()
            group.cancel_scope.cancel()
        assert all(body.closed for body in server.bodies)
        check(server, delivered, watch, signs)

    for backend in ("asyncio", "trio"):
        clock.run(main, backend=backend)


def test_it_is_reopened_after_its_last_event() -> None:
    def check(server: Server, delivered: list[Any], watch: Watch, signs: list[Evidence]) -> None:
        assert [event_id for _, event_id in server.asked] == [None, b"7", b"7", b"9"]
        assert delivered == ["notifications/tools/list_changed"] * 2
        assert signs == []

    play(b"id: 7\n" + CHANGED, b": nothing\n\n", b"id: 9\n" + CHANGED, check=check)


def test_an_event_that_was_cut_in_the_middle_is_not_delivered() -> None:
    def check(server: Server, delivered: list[Any], watch: Watch, signs: list[Evidence]) -> None:
        assert delivered == ["notifications/tools/list_changed"]

    play(CHANGED[:-10], CHANGED, check=check)


@pytest.mark.parametrize("status", [400, 404, 410, 500])
def test_a_refused_event_id_is_not_repeated(status: int) -> None:
    def check(server: Server, delivered: list[Any], watch: Watch, signs: list[Evidence]) -> None:
        assert [event_id for _, event_id in server.asked] == [None, b"7", None]

    play(b"id: 7\n" + CHANGED, status, check=check)


def test_an_event_id_survives_a_server_that_cannot_be_reached() -> None:
    def check(server: Server, delivered: list[Any], watch: Watch, signs: list[Evidence]) -> None:
        assert [event_id for _, event_id in server.asked] == [None, b"7", b"7"]

    play(b"id: 7\n" + CHANGED, httpx2.ConnectError("refused"), check=check)


@pytest.mark.parametrize(("retry", "least"), [(b"0", 1.0), (b"50", 1.0), (b"20000", 20.0)])
def test_a_retry_field_only_lengthens_waits(retry: bytes, least: float) -> None:
    def check(server: Server, delivered: list[Any], watch: Watch, signs: list[Evidence]) -> None:
        first, second = (when for when, _ in server.asked)
        assert least <= second - first <= least * (1 + JITTER)

    play(b"retry: " + retry + b"\n\n", check=check)


def test_other_messages_are_dropped() -> None:
    def check(server: Server, delivered: list[Any], watch: Watch, signs: list[Evidence]) -> None:
        assert delivered == ["notifications/tools/list_changed"]
        assert watch.dropped == 2

    answer = b'data: {"jsonrpc": "2.0", "id": 1, "result": {}}\n\n'
    play(answer + b"data: [1, 2]\n\n" + CHANGED, check=check)


@pytest.mark.parametrize(
    ("answers", "signs"),
    [
        # On a session whose stream was never open, 404 alone is news, and only once.
        ((404, 404, 404), [404]),
        ((400, 410, 500), []),
        # Where it was open before, its refusal is; until it is open again, once.
        ((CHANGED, 400, 404), [400]),
        ((CHANGED, 410, CHANGED, 404), [410, 404]),
        # Credentials, limits, a stream that is still held: not about the session.
        ((CHANGED, 401, 403, 408, 409, 429, 503), []),
        ((CHANGED, httpx2.ConnectError("refused"), httpx2.ReadError("cut")), []),
    ],
)
def test_a_refusal_is_a_suspicion_at_most(answers: tuple[Any, ...], signs: list[int]) -> None:
    def check(server: Server, delivered: list[Any], watch: Watch, seen: list[Evidence]) -> None:
        assert [evidence.http_status for evidence in seen] == signs
        assert all(evidence.session_sent is None for evidence in seen)

    play(*answers, check=check)


def test_a_reason_quotes_no_error() -> None:
    def check(server: Server, delivered: list[Any], watch: Watch, signs: list[Evidence]) -> None:
        assert watch.stream.reason == "cut (ConnectError)"

    play(httpx2.ConnectError("token=secret"), check=check)


def test_a_lost_session_asks_no_more() -> None:
    async def main() -> None:
        server = Server(CHANGED)
        watch = Watch(lambda evidence: None)

        async def deliver(item: Any) -> None:
            watch.lost = True

        with anyio.fail_after(60):
            await StandaloneStream(watch, Limits(4096, 4096), deliver=deliver, open=server.open).run()
        assert len(server.asked) == 1

    clock.run(main)
