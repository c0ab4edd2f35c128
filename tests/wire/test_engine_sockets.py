"""Which socket a request gets: clean ones only, on every event loop, plain and with TLS."""

from __future__ import annotations

import socket
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import anyio
import httpx2
import pytest
from anyio.lowlevel import checkpoint

from mcpconn.testing.scripted.poison import refusal, response
from mcpconn.wire.engine import channel as channels
from mcpconn.wire.engine.pool import LARGE, Engine
from mcpconn.wire.extensions import HEADERS_STARTED, UNSAFE_KEY
from mcpconn.wire.library import Library
from tests.certificates import certificate
from tests.support import SAFETY
from tests.wire.sockets import OK, Reply, Server, listening

pytestmark = pytest.mark.anyio
LINUX = pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells what was acknowledged")

LOOPS = [pytest.param(("asyncio", {"use_uvloop": False}), id="asyncio"), pytest.param(("trio", {}), id="trio")]
if sys.platform != "win32":
    # Always, and not only in the matrix: it buffers in its own way.
    LOOPS.append(pytest.param(("asyncio", {"use_uvloop": True}), id="uvloop"))


@pytest.fixture(scope="module", params=LOOPS)
def anyio_backend(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.fixture(params=["plain", "tls"])
def secure(request: pytest.FixtureRequest) -> bool:
    return bool(request.param == "tls")


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@asynccontextmanager
async def serving(
    *replies: Reply, secure: bool = False, now: Callable[[], float] | None = None, expiry: float = 60.0
) -> AsyncIterator[tuple[Server, Engine]]:
    """A server with these replies, and an engine that trusts it."""
    tls, trusting = certificate() if secure else (None, None)

    def context() -> Any:
        return trusting

    async with listening(*replies, tls=tls) as server:
        engine = Engine(context, keepalive_expiry=expiry, now=now or anyio.current_time)
        try:
            yield server, engine
        finally:
            await engine.aclose()


async def ask(
    engine: httpx2.AsyncBaseTransport, server: Server, content: bytes = b"call", **extensions: Any
) -> httpx2.Response:
    """Make a request and read its answer."""
    request = httpx2.Request("POST", server.url, content=content, extensions=extensions)
    answer = await engine.handle_async_request(request)
    await answer.aread()
    return answer


def unsafe(engine: httpx2.AsyncBaseTransport, server: Server, content: bytes = b"call") -> Any:
    """The same for a call that nobody calls safe to repeat."""
    return ask(engine, server, content, **{UNSAFE_KEY: True})


LEFT_OVER = refusal(404, -32600, "Session not found")
BEHIND = {
    "a refusal": OK + LEFT_OVER,
    "an answer": OK + OK,
    "half a line": OK + b"HT",
    "a line end": OK + b"\r\n",
    "another chunk": b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n5\r\nagain\r\n",
    "a body too long": b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello world",
    "a body on a 204": b"HTTP/1.1 204 No Content\r\n\r\nhello",
    "a body on a 304": b"HTTP/1.1 304 Not Modified\r\ncontent-length: 5\r\n\r\nhello",
    "megabytes": OK + LEFT_OVER + b"x" * 3_000_000,
}


@pytest.mark.parametrize("what", BEHIND)
async def test_bytes_behind_a_response_close_it(what: str, secure: bool) -> None:
    async with serving(Reply(BEHIND[what]), Reply(), secure=secure) as (server, engine):
        await ask(engine, server)
        answer = await ask(engine, server)
        assert (answer.status_code, answer.text) == (200, "hello")
        assert server.accepted == 2


@pytest.mark.parametrize("what", ["bytes", "the end", "reset"])
async def test_bytes_on_an_idle_socket_end_it(what: str, secure: bool) -> None:
    then: Any = {"bytes": "more", "the end": "close", "reset": "reset"}[what]
    async with serving(Reply(then=then), Reply(), secure=secure) as (server, engine):
        await ask(engine, server)
        # The server's side of the socket is done; the loopback has delivered by then.
        await server.spoken.wait() if what == "bytes" else await server.gone.wait()
        assert (await ask(engine, server)).text == "hello"
        assert server.accepted == 2


async def test_a_clean_socket_is_used_again(secure: bool) -> None:
    async with serving(*[Reply()] * 20, secure=secure) as (server, engine):
        for _ in range(20):
            await unsafe(engine, server)
        assert server.accepted == 1
        assert repr(engine) == "<Engine sockets=1 idle=1>"


# -- between the look at a socket and the request on it


async def arrived(engine: Engine) -> None:
    """Wait until something waits to be read on the engine's only socket, without reading it."""
    (used,) = engine._sockets
    inner = getattr(used.channel, "_inner", used.channel)
    await inner.readable()


@LINUX
@pytest.mark.parametrize("bytes_", [LEFT_OVER, refusal(429), OK], ids=["404", "429", "200"])
async def test_a_response_sent_before_its_request_arrived_is_not_its_own(bytes_: bytes, secure: bool) -> None:
    async with serving(Reply(then="more", more=bytes_), Reply(), secure=secure) as (server, engine):

        async def speak(name: str, info: Any) -> None:
            assert name == HEADERS_STARTED
            server.speak.set()
            await arrived(engine)

        server.speak = anyio.Event()
        await ask(engine, server)
        with pytest.raises(httpx2.RemoteProtocolError, match="before the request had arrived"):
            await ask(engine, server, trace=speak)
        assert repr(engine) == "<Engine sockets=0 idle=0>"


@pytest.mark.parametrize(("bytes_", "believed"), [(refusal(429), False), (OK, True)], ids=["refusal", "answer"])
async def test_a_hasty_refusal_without_acks_is_not_believed(
    bytes_: bytes, believed: bool, secure: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(channels, "_unacknowledged", None)
    async with serving(Reply(then="more", more=bytes_), Reply(), secure=secure) as (server, engine):

        async def speak(name: str, info: Any) -> None:
            server.speak.set()
            await arrived(engine)

        server.speak = anyio.Event()
        await ask(engine, server)
        if believed:
            assert (await ask(engine, server, trace=speak)).text == "hello"
        else:
            with pytest.raises(httpx2.RemoteProtocolError):
                await ask(engine, server, trace=speak)
        assert repr(engine) == "<Engine sockets=0 idle=0>"


@pytest.mark.parametrize(
    "greeting", [LEFT_OVER, b"220 mail.example.com ESMTP\r\n"], ids=["refusal", "another protocol"]
)
async def test_a_server_speaking_first_is_not_used(greeting: bytes) -> None:
    async with serving(Reply()) as (server, engine):
        server.greeting = greeting
        original = engine._connect

        async def connect(*args: Any) -> Any:
            channel = await original(*args)
            await channel.readable()
            return channel

        engine._connect = connect
        with pytest.raises(httpx2.ConnectError, match="before the first request"):
            await ask(engine, server)
        assert server.heads == []


# -- how long sockets are trusted


async def test_an_unsafe_call_gets_a_socket_used_a_moment_ago_or_a_fresh_one() -> None:
    clock = Clock()
    async with serving(*[Reply()] * 4, now=clock) as (server, engine):
        await ask(engine, server)
        clock.now += 0.5
        await unsafe(engine, server)
        assert server.accepted == 1
        clock.now += 0.6
        await unsafe(engine, server)
        assert server.accepted == 2
        clock.now += 3
        # Both are idle still, and good enough for a call that can be retried.
        await ask(engine, server)
        assert server.accepted == 2


async def test_a_large_request_gets_a_fresh_socket() -> None:
    async with serving(*[Reply()] * 3) as (server, engine):
        await ask(engine, server)
        await ask(engine, server, b"x" * LARGE)
        assert server.accepted == 1
        await ask(engine, server, b"x" * (LARGE + 1))
        assert server.accepted == 2


@pytest.mark.parametrize(
    ("header", "trusted", "given_up"),
    [
        ("timeout=5", 4.0, 4.1),
        ("timeout=2, max=100", 1.0, 1.1),
        ("timeout=1", 0.5, 0.6),
        ("max=5,timeout=30", 29.0, 29.1),
        ('timeout="3"', 2.0, 2.1),
        ("TIMEOUT = 7", 6.0, 6.1),
        ("timeout=0", 0.0, 0.1),
        ("timeout=99999", 60.0, 60.1),
        ("timeout=soon", 8.0, 8.1),
        ("max=3", 8.0, 8.1),
    ],
)
async def test_a_keep_alive_header_is_believed(header: str, trusted: float, given_up: float) -> None:
    clock = Clock()
    reply = Reply(response(200, b"hello", {"keep-alive": header}))
    async with serving(*[reply] * 3, now=clock, expiry=8.0) as (server, engine):
        await ask(engine, server)
        clock.now += trusted
        await ask(engine, server)
        assert server.accepted == 1
        clock.now += given_up
        await ask(engine, server)
        assert server.accepted == 2


async def test_a_socket_that_died_in_use_teaches_how_long_others_live() -> None:
    clock = Clock()
    async with serving(Reply(), Reply(b"", "close"), *[Reply()] * 6, now=clock) as (server, engine):
        await ask(engine, server)
        clock.now += 2
        with pytest.raises(httpx2.RemoteProtocolError, match="disconnected"):
            await ask(engine, server)
        await ask(engine, server)
        clock.now += 1
        await ask(engine, server)
        assert server.accepted == 2
        clock.now += 1.1
        await ask(engine, server)
        assert server.accepted == 3
        # It may have been the end of the process: the lesson is forgotten.
        clock.now += 300
        await ask(engine, server)
        clock.now += 30
        await ask(engine, server)
        assert server.accepted == 4


async def test_a_socket_that_answered_before_it_died_teaches_nothing() -> None:
    clock = Clock()
    half = b"HTTP/1.1 200 OK\r\ncontent-len"
    async with serving(Reply(), Reply(half, "close"), *[Reply()] * 2, now=clock) as (server, engine):
        await ask(engine, server)
        clock.now += 2
        with pytest.raises(httpx2.RemoteProtocolError):
            await ask(engine, server)
        await ask(engine, server)
        clock.now += 30
        await ask(engine, server)
        assert server.accepted == 2


# -- idle sockets


async def test_closed_idle_sockets_are_swept() -> None:
    count = 20
    replies = [Reply(then="close") for _ in range(count)]
    async with serving(*replies, expiry=0.1) as (server, engine), anyio.create_task_group() as group:
        for _ in range(count):
            group.start_soon(ask, engine, server)
        while len(engine._idle) < count:
            await checkpoint()
        with anyio.fail_after(SAFETY):
            async with engine.tended():
                while engine._sockets:
                    await checkpoint()


async def test_sockets_are_swept_when_too_old() -> None:
    clock = Clock()
    async with serving(*[Reply()] * 2, now=clock, expiry=4.0) as (server, engine):
        await ask(engine, server)
        clock.now += 3
        assert engine.sweep() == pytest.approx(1.0)
        assert repr(engine) == "<Engine sockets=1 idle=1>"
        clock.now += 1
        assert engine.sweep() is None
        await server.gone.wait()


async def test_the_last_session_closes_sockets() -> None:
    async with serving(Reply()) as (server, engine):
        async with engine.tended():
            await ask(engine, server)
            async with engine.tended():
                await checkpoint()
            assert len(engine._idle) == 1
        await server.gone.wait()
        assert repr(engine) == "<Engine sockets=0 idle=0>"


async def test_the_library_sweeps_its_sockets_too(secure: bool) -> None:
    tls, trusting = certificate() if secure else (None, httpx2.create_ssl_context(verify=False))
    async with listening(Reply(then="leave"), tls=tls) as server:
        server.speak = anyio.Event()
        library = Library(trusting, keepalive_expiry=60)
        await ask(library, server)
        (connection,) = library._keeping._pool.connections
        assert await library.sweep() is True
        assert connection.is_idle()
        server.speak.set()
        await server.gone.wait()
        assert await library.sweep() is False
        assert connection.is_closed()
        await library.aclose()


async def test_the_library_gives_unsafe_calls_sockets_of_their_own() -> None:
    async with listening(*[Reply()] * 4) as server:
        library = Library(httpx2.create_ssl_context(verify=False), keepalive_expiry=60)
        await ask(library, server)
        await ask(library, server)
        assert server.accepted == 1
        await unsafe(library, server)
        await unsafe(library, server)
        assert server.accepted == 3
        await library.aclose()


# -- options


async def test_every_socket_asks_the_system_to_notice_a_dead_peer() -> None:
    from mcpconn.wire.network import SOCKET_OPTIONS

    async with listening(Reply()) as server:
        engine = Engine(keepalive_expiry=60, socket_options=SOCKET_OPTIONS)
        await ask(engine, server)
        (used,) = engine._sockets
        kept = used.channel._socket  # type: ignore[attr-defined]
        assert kept.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) != 0
        if sys.platform == "linux":
            assert kept.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 60_000
        await engine.aclose()
