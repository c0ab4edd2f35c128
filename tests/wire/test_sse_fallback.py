"""The transport of 2024-11-05 is found without being named, as the specification says. Real sockets."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import anyio
import pytest

from mcpconn import Connection, ConnectionFailed, FailureKind, Policy, State
from mcpconn.core.backoff import Backoff
from mcpconn.testing import HttpServer, Script, SseScript, faults
from mcpconn.testing.scripted.steps import Feed, Follow, Message, Reply, Send, Step, body_reply
from tests.support import SAFETY, UNFINISHED_STREAMS, text_of, until

pytestmark = [pytest.mark.anyio, UNFINISHED_STREAMS]

ADD: Any = ("add", {"a": 1, "b": 1})
IMPATIENT = Policy(patience=0.01, min_attempts=1)


class OldServer(SseScript):
    """Refuses every POST until an event stream is open, as a server does whose messages go to another path."""

    def __init__(self, status: int = 405, *, endpoint: bytes | None = None) -> None:
        super().__init__()
        self.status = status
        self.endpoint = endpoint

    def forget(self) -> None:
        """Be restarted."""
        self._feed = None

    def _reply(self, http_method: str, message: Message, headers: Mapping[str, str]) -> Reply:
        if http_method == "POST" and self._feed is None:
            return body_reply(self.status, b"no such method here", "text/plain")
        return super()._reply(http_method, message, headers)

    def _open(self) -> Iterator[Step]:
        if self.endpoint is None:
            yield from super()._open()
        else:
            self._feed = Feed()
            yield Send(b"event: endpoint\r\ndata: " + self.endpoint + b"\r\n\r\n")
            yield Follow(self._feed)


@pytest.fixture(params=["direct", "httpx"])
def engine(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.mark.parametrize("status", [400, 404, 405])
@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_a_server_of_2024_is_found_by_url(status: int, mode: str, engine: str) -> None:
    script = OldServer(status)
    with anyio.fail_after(SAFETY):
        async with (
            HttpServer(script) as server,
            Connection({"url": server.url, "engine": engine, "mode": mode}) as connection,
        ):
            assert text_of(await connection.call_tool(*ADD)) == "2"
            posts = script.count("initialize")
            assert posts == 2
            # From now on it is known, and nothing is tried out on it.
            script.forget()
            await server.reset_connections()
            await until(connection, lambda: connection.epoch == 2)
            assert text_of(await connection.call_tool(*ADD)) == "2"
            assert script.count("initialize") == posts + 1


async def test_a_server_that_learned_the_present_transport_is_found_again() -> None:
    script = OldServer()
    with anyio.fail_after(SAFETY):
        async with HttpServer(script) as server, Connection(server.url) as connection:
            assert text_of(await connection.call_tool(*ADD)) == "2"
            new = Script(get_stream="405")
            server.script = new
            await server.reset_connections()
            await until(connection, lambda: connection.epoch == 2)
            assert text_of(await connection.call_tool(*ADD)) == "2"
            assert new.count("initialize") == 1


@pytest.mark.parametrize("status", [401, 403, 422, 500, 503])
async def test_other_refusals_do_not_try_it(status: int) -> None:
    script = OldServer(status)
    async with HttpServer(script) as server:
        with pytest.raises(ConnectionFailed) as caught:
            async with Connection(server.url, policy=IMPATIENT):
                pass
        assert caught.value.failure.evidence.http_status == status
        assert script.count("GET") == 0


async def test_a_transport_that_was_named_is_the_one_that_is_spoken() -> None:
    script = OldServer()
    async with HttpServer(script) as server:
        with pytest.raises(ConnectionFailed):
            async with Connection({"url": server.url, "transport": "http"}, policy=IMPATIENT):
                pass
    assert script.count("GET") == 0


async def test_where_neither_is_spoken_the_answer_to_the_post_is_told() -> None:
    script = Script()
    script.inject(faults.not_found_html(), times=None, method=None)
    script.inject(faults.server_error(), times=None, method="GET")
    async with HttpServer(script) as server:
        with pytest.raises(ConnectionFailed) as caught:
            async with Connection(server.url, policy=IMPATIENT):
                pass
    assert caught.value.failure.kind is FailureKind.CONFIG
    assert caught.value.failure.evidence.http_status == 404
    assert script.count("GET") == 1


async def test_messages_and_credentials_go_to_the_same_origin_only() -> None:
    other = Script()
    with anyio.fail_after(SAFETY):
        async with HttpServer(other) as elsewhere:
            script = OldServer(endpoint=elsewhere.url.encode())
            async with HttpServer(script) as server:
                with pytest.raises(ConnectionFailed):
                    async with Connection({"url": server.url, "auth": "secret-token"}, policy=IMPATIENT):
                        pass
    assert not other.requests


async def test_a_session_that_worked_over_http_is_never_tried_over_sse() -> None:
    script = Script(get_stream="405")
    with anyio.fail_after(SAFETY):
        quick = Policy(backoff=Backoff(initial=0.01))
        async with HttpServer(script) as server, Connection(server.url, policy=quick) as connection:
            assert text_of(await connection.call_tool(*ADD)) == "2"
            asked = script.count("GET")
            script.inject(faults.not_found_html(), times=1, method="initialize")
            script.forget_sessions()
            assert text_of(await connection.call_tool(*ADD)) == "2"
            assert connection.state is State.READY
            # Each new session asks once for its event stream.
            assert script.count("GET") - asked <= 1
