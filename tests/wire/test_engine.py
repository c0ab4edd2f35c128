"""The engines under the evidence client, byte by byte: `httpx` is what `direct` has to match."""

from __future__ import annotations

import gzip
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Literal

import anyio
import httpx2
import pytest

from mcpconn import ConfigError, ServerConfig
from mcpconn.wire.engine.pool import Engine
from mcpconn.wire.fairness import STEPS, TINY_LIMIT
from mcpconn.wire.library import Library
from mcpconn.wire.network import Network
from mcpconn.wire.proxied import Proxied
from tests.certificates import certificate
from tests.support import SAFETY, UNFINISHED_STREAMS, Neighbour
from tests.wire.sockets import OK, Name, Reply, Server, client, free_port, listening

pytestmark = [pytest.mark.anyio, UNFINISHED_STREAMS]


@pytest.fixture(params=["direct", "httpx"])
def engine(request: pytest.FixtureRequest) -> Name:
    return request.param  # type: ignore[no-any-return]


# -- what is sent and what is read


async def test_a_request_is_sent_as_it_was_built(engine: Name) -> None:
    async with listening(Reply()) as server, client(engine) as http:
        response = await http.post(server.url + "?a=1%202", content=b"abc", headers={"X-One": "1"})
    assert (response.status_code, response.text) == (200, "hello")
    head = server.heads[0].split(b"\r\n")
    assert head[0] == b"POST /mcp?a=1%202 HTTP/1.1"
    assert {b"X-One: 1", b"Content-Length: 3", f"Host: 127.0.0.1:{server.port}".encode()} <= set(head)
    assert server.bodies == [b"abc"]


async def test_the_direct_engine_sends_a_small_request_in_one_packet() -> None:
    async with listening(Reply(read=False)) as server, client("direct") as http:
        await http.post(server.url, content=b"abc")
    assert server.bodies == [b"abc"]


BODIES = {
    "length": (b"content-length: 5\r\n\r\nhello", "keep"),
    "chunked": (b"transfer-encoding: chunked\r\n\r\n2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n", "keep"),
    "until the end": (b"\r\nhello", "close"),
}


@pytest.mark.parametrize("framing", BODIES)
async def test_every_framing_of_a_body_is_read(framing: str, engine: Name) -> None:
    rest, then = BODIES[framing]
    async with listening(Reply(b"HTTP/1.1 200 OK\r\n" + rest, then)) as server, client(engine) as http:  # type: ignore[arg-type]
        assert (await http.get(server.url)).content == b"hello"


async def test_a_compressed_body_is_read(engine: Name) -> None:
    packed = gzip.compress(b"hello")
    reply = b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: %d\r\n\r\n" % len(packed)
    async with listening(Reply(reply + packed)) as server, client(engine) as http:
        assert (await http.get(server.url)).content == b"hello"


async def test_large_bodies_go_both_ways(engine: Name) -> None:
    size = 3_000_000
    reply = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % size
    async with listening(Reply(reply + b"b" * size)) as server, client(engine) as http:
        response = await http.post(server.url, content=b"a" * size)
    assert server.bodies == [b"a" * size]
    assert response.content == b"b" * size


async def test_a_stream_is_read_while_it_is_sent(engine: Name) -> None:
    head = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nfirst\r\n"
    async with listening(Reply(head, "hang")) as server, client(engine) as http:
        async with http.stream("GET", server.url) as response:
            async for chunk in response.aiter_bytes():
                assert chunk == b"first"
                await server.hanging.wait()
                break
        await server.gone.wait()


async def test_an_early_hint_is_no_answer(engine: Name) -> None:
    hint = b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n"
    async with listening(Reply(hint + OK)) as server, client(engine) as http:
        assert (await http.get(server.url)).status_code == 200


async def test_cookies_are_kept_for_balancers(engine: Name) -> None:
    cookie = b"HTTP/1.1 200 OK\r\nset-cookie: node=7\r\ncontent-length: 0\r\n\r\n"
    async with listening(Reply(cookie), Reply()) as server, client(engine) as http:
        await http.get(server.url)
        await http.get(server.url)
    assert b"cookie: node=7" in server.heads[1].lower()


async def test_an_answer_before_nonsense_counts() -> None:
    # httpx2's engine gives its caller each chunk before it looks at the next one.
    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
    async with (
        listening(Reply(head + b"d\r\ndata: hello\n\n\r\nnonsense\r\n", "close")) as server,
        client("direct") as http,
        http.stream("GET", server.url) as response,
    ):
        chunks = response.aiter_bytes()
        assert await chunks.__anext__() == b"data: hello\n\n"
        with pytest.raises(httpx2.RemoteProtocolError):
            await chunks.__anext__()


async def test_a_server_that_never_comes_to_the_point_is_given_up() -> None:
    hint = b"HTTP/1.1 103 Early Hints\r\n\r\n"
    async with listening(Reply(hint * 101 + OK)) as server, client("direct") as http:
        with pytest.raises(httpx2.RemoteProtocolError, match="informational"):
            await http.get(server.url)


# -- bodies in tiny pieces


def crumbs(count: int) -> bytes:
    """A response whose body comes in so many chunks of one byte."""
    return b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n" + b"1\r\na\r\n" * count + b"0\r\n\r\n"


async def test_reading_crumbs_lets_others_run(engine: Name) -> None:
    count = 5000
    neighbour = Neighbour()
    async with (
        listening(Reply(crumbs(count))) as server,
        client(engine) as http,
        anyio.create_task_group() as group,
        http.stream("GET", server.url) as response,
    ):
        await server.sent.wait()
        group.start_soon(neighbour.run)
        body = b"".join([piece async for piece in response.aiter_raw()])
        group.cancel_scope.cancel()
    assert body == b"a" * count
    assert neighbour.turns >= count // STEPS // 2


async def test_a_body_in_crumbs_is_refused(engine: Name) -> None:
    async with listening(Reply(crumbs(2 * TINY_LIMIT), "close")) as server, client(engine) as http:
        with pytest.raises(httpx2.DecodingError, match="chunks of less than 16 bytes"):
            await http.get(server.url)


# -- sockets


async def test_a_socket_is_used_again(engine: Name) -> None:
    async with listening(Reply(), Reply()) as server, client(engine) as http:
        await http.get(server.url)
        await http.get(server.url)
    assert server.accepted == 1


async def test_concurrent_requests_share_no_socket(engine: Name) -> None:
    async with listening(*[Reply()] * 5) as server, client(engine) as http, anyio.create_task_group() as group:
        for _ in range(5):
            group.start_soon(http.get, server.url)
    assert server.accepted == 5


async def test_a_stale_socket_is_not_used_again(engine: Name) -> None:
    async with listening(Reply(), Reply()) as server, client(engine, expiry=0.0) as http:
        await http.get(server.url)
        await http.get(server.url)
    assert server.accepted == 2


async def test_a_socket_that_the_server_closed_meanwhile_is_not_used_again(engine: Name) -> None:
    async with listening(Reply(then="close"), Reply()) as server, client(engine) as http:
        await http.get(server.url)
        await server.gone.wait()
        assert (await http.get(server.url)).text == "hello"
    assert server.accepted == 2


async def test_a_server_saying_close_is_believed(engine: Name) -> None:
    close = b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
    async with listening(Reply(close), Reply()) as server, client(engine) as http:
        await http.get(server.url)
        await server.gone.wait()
        await http.get(server.url)
    assert server.accepted == 2


async def test_cancelled_requests_close_sockets(engine: Name) -> None:
    async with listening(Reply(b"", "hang")) as server, client(engine) as http:
        async with anyio.create_task_group() as group:
            group.start_soon(http.get, server.url)
            await server.hanging.wait()
            group.cancel_scope.cancel()
        await server.gone.wait()


async def test_closing_a_client_closes_sockets(engine: Name) -> None:
    async with listening(Reply()) as server:
        async with client(engine) as http:
            await http.get(server.url)
        await server.gone.wait()


# -- failures: before anything was written, and after

CUT = {
    "no answer": Reply(b"", "close"),
    "half a head": Reply(b"HTTP/1.1 200 OK\r\ncontent-le", "close"),
    "half a body": Reply(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhello", "close"),
    "half a chunk": Reply(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n9\r\nhello", "close"),
    "no HTTP": Reply(b"220 mail.example.com ESMTP\r\n", "close"),
}
BEFORE = (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.UnsupportedProtocol, httpx2.LocalProtocolError)


@pytest.mark.parametrize("how", CUT)
async def test_a_short_answer_is_a_protocol_error(how: str, engine: Name) -> None:
    async with listening(CUT[how]) as server, client(engine) as http:
        with pytest.raises(httpx2.RemoteProtocolError) as caught:
            await http.get(server.url)
    assert not isinstance(caught.value, BEFORE)


async def test_a_server_that_wants_another_protocol_is_a_protocol_error() -> None:
    # httpx2 offers such a socket to its caller. Nobody here would take it.
    switch = Reply(b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\n\r\n")
    async with listening(switch) as server, client("direct") as http:
        with pytest.raises(httpx2.RemoteProtocolError):
            await http.get(server.url)


@pytest.mark.parametrize("sent", [b"", b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhello"], ids=["head", "body"])
async def test_a_reset_after_sending_is_read_error(sent: bytes, engine: Name) -> None:
    async with listening(Reply(sent, "reset")) as server, client(engine) as http:
        with pytest.raises(httpx2.ReadError) as caught:
            await http.get(server.url)
    # Of the socket that broke nothing is in the chain: it would pass for the end of the session.
    assert caught.value.__cause__ is None or engine == "httpx"


async def test_a_refusal_of_half_a_request_is_read(engine: Name) -> None:
    refusal = b"HTTP/1.1 413 Too Large\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
    async with listening(Reply(refusal, "hang", read=False)) as server, client(engine) as http:
        assert (await http.post(server.url, content=b"a" * 30_000)).status_code == 413


LARGE = b"a" * 6_000_000


@pytest.mark.parametrize("status", [401, 413, 429, 503])
@pytest.mark.parametrize("then", ["close", "stall"])
@pytest.mark.parametrize("secure", [False, True], ids=["plain", "tls"])
async def test_large_requests_can_be_refused_early(
    status: int, then: Literal["close", "stall"], secure: bool, engine: Name
) -> None:
    # The close comes with a reset, because there is something that nobody has read.
    refusal = b"HTTP/1.1 %d No\r\ncontent-length: 2\r\nconnection: close\r\n\r\nno" % status
    tls, trusting = certificate() if secure else (None, None)
    async with listening(Reply(refusal, then, read=False), tls=tls) as server, client(engine, tls=trusting) as http:
        response = await http.post(server.url, content=LARGE)
        assert (response.status_code, response.text) == (status, "no")


async def test_a_large_request_is_written_to_its_end_although_an_answer_has_begun(engine: Name) -> None:
    begun = b"HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n"
    async with listening(Reply(b"hello", early=begun)) as server, client(engine) as http:
        assert (await http.post(server.url, content=LARGE)).text == "hello"
        assert len(server.bodies[0]) == len(LARGE)


async def test_a_refusing_port_is_a_connect_error(engine: Name) -> None:
    port = await free_port()
    async with client(engine) as http:
        with pytest.raises(httpx2.ConnectError, match=r"."):
            await http.get(f"http://127.0.0.1:{port}/")


async def test_an_unknown_host_is_a_connect_error(engine: Name) -> None:
    async with client(engine) as http:
        with pytest.raises(httpx2.ConnectError):
            await http.get("http://nobody.invalid/")


async def test_a_header_that_would_be_two_is_refused_before_it_is_written(engine: Name) -> None:
    async with listening(Reply()) as server, client(engine) as http:
        with pytest.raises(httpx2.LocalProtocolError):
            await http.get(server.url, headers={"x": "a\r\ny: b"})
        assert server.heads == []


async def test_schemes_other_than_http_are_refused(engine: Name) -> None:
    async with client(engine) as http:
        with pytest.raises(httpx2.UnsupportedProtocol):
            await http.get("ftp://127.0.0.1/")


async def test_a_server_that_does_not_answer_in_time_is_a_read_timeout(engine: Name) -> None:
    async with listening(Reply(b"", "hang")) as server:
        async with client(engine, timeout=httpx2.Timeout(None, read=0.05)) as http:
            with pytest.raises(httpx2.ReadTimeout):
                await http.get(server.url)
        await server.gone.wait()


async def test_a_server_that_does_not_read_in_time_is_a_write_timeout(engine: Name) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        # More than sockets hold; and not all at once, which uvloop would take without a wait.
        for _ in range(20):
            yield b"a" * 1_000_000

    with socket.socket() as server:
        # The system accepts, and nobody reads.
        server.bind(("127.0.0.1", 0))
        server.listen()
        async with client(engine, timeout=httpx2.Timeout(None, write=0.05)) as http:
            with anyio.fail_after(SAFETY), pytest.raises(httpx2.WriteTimeout):
                await http.post(f"http://127.0.0.1:{server.getsockname()[1]}/", content=pieces())


async def test_a_connect_that_takes_too_long_is_a_connect_timeout(engine: Name) -> None:
    full = socket.socket()
    waiting: list[socket.socket] = []
    try:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        for _ in range(4):
            # The queue of a listener that accepts nobody is soon full; then a connect gets no answer.
            waiting.append(socket.socket())
            waiting[-1].setblocking(False)
            waiting[-1].connect_ex(full.getsockname())
        async with client(engine, timeout=httpx2.Timeout(None, connect=0.1)) as http:
            with anyio.fail_after(SAFETY), pytest.raises(httpx2.ConnectTimeout):
                await http.get(f"http://127.0.0.1:{full.getsockname()[1]}/")
    finally:
        for each in (full, *waiting):
            each.close()


# -- TLS


@asynccontextmanager
async def secured(engine: Name, *replies: Reply, trusted: bool = True) -> AsyncIterator[tuple[Server, Any]]:
    serving, trusting = certificate()
    context = trusting if trusted else ssl.create_default_context()
    async with listening(*replies, tls=serving) as server, client(engine, tls=context) as http:
        yield server, http


async def test_a_server_with_a_trusted_certificate_is_spoken_to(engine: Name) -> None:
    async with secured(engine, Reply(), Reply()) as (server, http):
        assert (await http.get(server.url)).text == "hello"
        assert (await http.get(server.url)).text == "hello"


async def test_a_certificate_that_is_not_trusted_is_a_connect_error(
    engine: Name,
) -> None:
    async with secured(engine, trusted=False) as (server, http):
        with pytest.raises(httpx2.ConnectError) as caught:
            await http.get(server.url)
    assert "the certificate is not trusted: self-signed certificate" in str(caught.value)
    assert isinstance(caught.value.__cause__, ssl.SSLCertVerificationError)


async def test_a_plain_server_is_a_connect_error(engine: Name) -> None:
    _, trusting = certificate()
    async with listening() as server, client(engine, tls=trusting) as http:
        server.greeting = b"220 mail.example.com ESMTP\r\n"
        with pytest.raises(httpx2.ConnectError):
            await http.get(server.url.replace("http:", "https:"))


async def test_plain_http_makes_no_tls_context() -> None:
    network = Network()
    async with listening(Reply()) as server, httpx2.AsyncClient(transport=network.transport(server.url)) as http:
        assert (await http.get(server.url)).text == "hello"
    assert "tls" not in vars(network)


# -- which engine


def transport(monkeypatch: pytest.MonkeyPatch, engine: str, **environment: str) -> httpx2.AsyncBaseTransport:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    return Network().transport("http://server.example/mcp", engine)


async def test_the_engine_is_the_one_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(transport(monkeypatch, "direct"), Engine)
    assert isinstance(transport(monkeypatch, "httpx"), Library)


async def test_proxies_are_left_to_httpx(monkeypatch: pytest.MonkeyPatch) -> None:
    proxy = "http://proxy.example:3128"
    assert isinstance(transport(monkeypatch, "direct", HTTP_PROXY=proxy), Proxied)
    assert isinstance(transport(monkeypatch, "direct", HTTP_PROXY=proxy, NO_PROXY="server.example"), Engine)


async def test_an_unknown_engine_is_refused() -> None:
    with pytest.raises(ConfigError, match="engine must be one of 'direct' or 'httpx'"):
        ServerConfig(name="srv", url="http://server.example/mcp", engine="curl")  # type: ignore[arg-type]
