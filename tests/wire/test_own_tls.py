"""A server with a CA of its own, one that asks for a client certificate: real TLS in front of a real server."""

from __future__ import annotations

import os
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio
import pytest
from anyio.abc import ByteStream
from anyio.streams.tls import TLSAttribute, TLSListener

from mcpconn import ConfigError, Connection, ConnectionFailed, FailureKind, Policy, ServerConfig
from mcpconn.config import ServerConfig as Config
from mcpconn.testing import HttpServer, Script
from tests.certificates import Authority
from tests.support import SAFETY, UNFINISHED_STREAMS

pytestmark = [
    pytest.mark.anyio,
    UNFINISHED_STREAMS,
    # A TLS handshake that is cancelled leaves its socket to the garbage collector, in httpcore2 and in asyncio.
    pytest.mark.filterwarnings(
        "ignore:Exception ignored in. <(socket|function _Selector):pytest.PytestUnraisableExceptionWarning"
    ),
]
ENGINES = pytest.mark.parametrize("engine", ["direct", "httpx"])


@dataclass
class Front:
    """TLS in front of a server."""

    url: str
    clients: list[str] = field(default_factory=list)
    """The names in the certificates that clients showed, by connection."""


@asynccontextmanager
async def front(context: ssl.SSLContext) -> AsyncIterator[Front]:
    """A server with sessions, behind TLS."""

    async def relay(source: ByteStream, target: ByteStream) -> None:
        with suppress(anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError):
            while True:
                await target.send(await source.receive())
        with suppress(anyio.BrokenResourceError, anyio.ClosedResourceError):
            await target.aclose()

    async with HttpServer(Script()) as server, anyio.create_task_group() as group:
        listener = await anyio.create_tcp_listener(local_host="127.0.0.1", local_port=0)
        port = listener.extra(anyio.abc.SocketAttribute.local_port)
        shown = Front(f"https://127.0.0.1:{port}/mcp")

        async def serve(client: ByteStream) -> None:
            certificate: Any = client.extra(TLSAttribute.peer_certificate, None)
            names = [value for part in (certificate or {}).get("subject", ()) for _, value in part]
            shown.clients += names
            async with (
                client,
                await anyio.connect_tcp("127.0.0.1", server.port) as inner,
                anyio.create_task_group() as both,
            ):
                both.start_soon(relay, client, inner)
                await relay(inner, client)

        async def listen() -> None:
            async with listener:
                await TLSListener(listener, context, standard_compatible=False).serve(serve, group)

        group.start_soon(listen)
        yield shown
        group.cancel_scope.cancel()


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@ENGINES
@pytest.mark.parametrize("settings", ["ca_file", "verify"])
async def test_a_server_with_its_own_ca_is_reached(engine: Any, settings: str, authority: Authority) -> None:
    own: dict[str, Any] = {"ca_file": str(authority.file)} if settings == "ca_file" else {"verify": False}
    with anyio.fail_after(SAFETY):
        async with (
            front(authority.serving()) as server,
            Connection({"url": server.url, "engine": engine, **own}) as connection,
        ):
            result = await connection.call_tool("add", {"a": 1, "b": 2})
            assert not result.is_error


@ENGINES
@pytest.mark.parametrize("password", [None, "correct-horse"])
async def test_a_client_certificate_is_shown(engine: Any, password: str | None, authority: Authority) -> None:
    certificate, key = authority.issue("somebody", password=password)
    own = {
        "ca_file": authority.file,
        "client_cert": certificate,
        "client_key": key,
        "client_key_password": password,
    }
    with anyio.fail_after(SAFETY):
        async with front(authority.serving(ask_for_client=True)) as server:
            config = ServerConfig(url=server.url, engine=engine, **own)  # type: ignore[arg-type]
            async with Connection(config) as connection:
                await connection.call_tool("add", {"a": 1, "b": 2})
            assert set(server.clients) == {"somebody"}


@ENGINES
async def test_a_certificate_that_was_renewed_is_shown_at_the_next_connect(engine: Any, authority: Authority) -> None:
    certificate, key = authority.issue("first")
    own = {"ca_file": str(authority.file), "client_cert": str(certificate), "client_key": str(key)}
    with anyio.fail_after(SAFETY):
        async with (
            front(authority.serving(ask_for_client=True)) as server,
            Connection({"url": server.url, "engine": engine, **own}) as connection,
        ):
            assert set(server.clients) == {"first"}
            for renewed, file in zip(authority.issue("second"), (certificate, key), strict=True):
                file.write_bytes(renewed.read_bytes())
                os.utime(file, (1, 1))
            await connection._dialer._transport.aclose()  # type: ignore[union-attr]
            await connection.reconnect()
            await connection.call_tool("add", {"a": 1, "b": 2})
            assert "second" in server.clients


@ENGINES
async def test_files_that_vanish_before_the_first_dial_are_named(engine: Any, authority: Authority) -> None:
    own: dict[str, Any] = {"ca_file": str(authority.file)}
    connection = Connection({"url": "https://127.0.0.1:1/mcp", "engine": engine, **own}, policy=Policy(patience=0.1))
    authority.file.unlink()
    with anyio.fail_after(SAFETY):
        with pytest.raises(ConnectionFailed, match=r"ca_file .*authority\.pem: No such file") as caught:
            async with connection:
                raise AssertionError("never ready")
    assert caught.value.failure.kind is FailureKind.CONFIG


def test_files_that_cannot_be_used_are_refused_at_the_door(authority: Authority, tmp_path: Path) -> None:
    certificate, key = authority.issue("somebody", password="correct-horse")
    (tmp_path / "empty.pem").write_text("")
    cases: list[tuple[dict[str, Any], str, str]] = [
        ({"ca_file": tmp_path / "none.pem"}, "ca_file", r"none\.pem: No such file"),
        ({"ca_file": tmp_path / "empty.pem"}, "ca_file", "not a file of certificates"),
        ({"client_cert": certificate}, "client_cert", "not a certificate and its private key"),
        ({"client_cert": certificate, "client_key": key}, "client_cert", "the password of the key is wrong"),
        ({"client_cert": certificate, "client_key": key, "client_key_password": "guess-it"}, "client_cert", "wrong"),
        ({"client_key": key}, "client_key", "there is none"),
        ({"ca_file": authority.file, "verify": False}, "ca_file", "of no use"),
        ({"verify": "no"}, "verify", "must be true or false"),
    ]
    for settings, key_name, words in cases:
        with pytest.raises(ConfigError, match=words) as caught:
            Config(name="srv", url="https://host/mcp", **settings)
        assert caught.value.key == key_name
        assert "guess-it" not in str(caught.value)
    with pytest.raises(ConfigError, match="verify is for servers with a url"):
        ServerConfig(name="srv", command="npx", verify=False)
