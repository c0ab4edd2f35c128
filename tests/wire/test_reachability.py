"""Servers that cannot be reached: where, why, and what to do, for whoever looks."""

from __future__ import annotations

import json
import logging
import socket
from pathlib import Path
from typing import Any, Literal

import anyio
import pytest

from mcpconn import Connection, FailureKind, Manager, Policy, handlers
from mcpconn.errors import CallFailed, ConnectionFailed
from mcpconn.testing import HttpServer, Script
from tests.certificates import Kind, made
from tests.support import SAFETY, text_of
from tests.wire.forward import ForwardProxy, TlsFront
from tests.wire.sockets import free_port

pytestmark = pytest.mark.anyio

Engine = Literal["direct", "httpx"]
ENGINES: list[Engine] = ["direct", "httpx"]
ONCE = Policy(patience=0.001, min_attempts=1)
VARIABLES = ("SSL_CERT_FILE", "SSL_CERT_DIR", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")


@pytest.fixture(autouse=True)
def unset(monkeypatch: pytest.MonkeyPatch) -> None:
    """No setting of the machine that runs the tests."""
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


async def failing(url: str, engine: Engine, policy: Policy = ONCE) -> ConnectionFailed:
    """Connect, which must fail, and not by waiting."""
    with anyio.fail_after(SAFETY):
        with pytest.raises(ConnectionFailed) as caught:
            async with Connection({"url": url, "engine": engine, "mode": "legacy"}, name="srv", policy=policy):
                pass
    return caught.value


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
async def test_a_refusing_port_is_named_everywhere(engine: Engine, host: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, logger="mcpconn")
    port = await free_port()
    expected = f"{host}:{port}: connection refused"
    entry = {"url": f"http://{host}:{port}/mcp", "engine": engine}
    with anyio.fail_after(SAFETY):
        async with Manager({"srv": entry}, policy=ONCE) as manager:
            with pytest.raises(CallFailed) as caught:
                await manager.call_tool("srv", "add", {"a": 1, "b": 2})
            answer = await handlers.list_tools(manager, "srv")({})
            shown = [str(caught.value), json.dumps(manager.status()), caplog.text, str(answer)]
    assert [expected in text for text in shown] == [True] * len(shown), shown
    assert not any("All connection attempts failed" in text or "Errno" in text for text in shown)
    assert caught.value.failure.kind is FailureKind.UNAVAILABLE


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(
    ("code", "says"),
    [
        (socket.EAI_NONAME, "gone.example: no such host; check the name in the URL, and whether DNS works here"),
        (socket.EAI_AGAIN, "gone.example: the name could not be looked up: temporary failure"),
    ],
)
async def test_a_name_that_is_not_known_is_named(
    engine: Engine, code: int, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = socket.getaddrinfo

    def resolve(host: Any, *args: Any, **options: Any) -> Any:
        if host in ("gone.example", b"gone.example"):
            raise socket.gaierror(code, "temporary failure")
        return real(host, *args, **options)

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    error = await failing("http://gone.example/mcp", engine)
    assert says in str(error)
    assert error.failure.kind is FailureKind.UNAVAILABLE


@pytest.mark.parametrize("engine", ENGINES)
async def test_tls_at_a_plain_port_is_a_wrong_url(engine: Engine) -> None:
    # Any web server will do: what it cannot read it answers with a page.
    with ForwardProxy() as server:
        error = await failing(f"https://127.0.0.1:{server.port}/mcp", engine, Policy())
    assert f"127.0.0.1:{server.port}: the server does not speak TLS at this port; is its URL http://" in str(error)
    assert (error.failure.kind, error.retry_in) == (FailureKind.CONFIG, None)


@pytest.mark.parametrize("engine", ENGINES)
async def test_plain_http_at_tls_is_a_wrong_url(engine: Engine) -> None:
    async with HttpServer(Script()) as server:
        with TlsFront(made()[0], server.port) as front:
            error = await failing(f"http://127.0.0.1:{front.port}/mcp", engine, Policy())
    assert "the server seems to speak TLS at this port; is its URL https://" in str(error)
    assert (error.failure.kind, error.retry_in) == (FailureKind.CONFIG, None)


@pytest.fixture
def trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Have the environment trust a certificate."""

    def trust(public: str) -> None:
        path = tmp_path / "trusted.pem"
        path.write_text(public)
        monkeypatch.setenv("SSL_CERT_FILE", str(path))

    return trust


@pytest.mark.parametrize("engine", ENGINES)
async def test_a_good_certificate_is_trusted_by_the_environment(engine: Engine, trusted: Any) -> None:
    serving, public = made()
    trusted(public)
    async with HttpServer(Script()) as server:
        with TlsFront(serving, server.port) as front, anyio.fail_after(SAFETY):
            entry = {"url": f"https://127.0.0.1:{front.port}/mcp", "engine": engine}
            async with Connection(entry, name="srv") as connection:
                assert text_of(await connection.call_tool("add", {"a": 1, "b": 1})) == "2"


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(
    ("kind", "is_trusted", "says"),
    [
        ("good", False, "self-signed certificate"),
        ("expired", True, "certificate has expired"),
        ("of another host", True, "IP address mismatch, certificate is not valid for '127.0.0.1'"),
    ],
)
async def test_a_bad_certificate_is_a_matter_of_configuration_at_once(
    engine: Engine, kind: Kind, is_trusted: bool, says: str, trusted: Any
) -> None:
    serving, public = made(kind)
    if is_trusted:
        trusted(public)
    async with HttpServer(Script()) as server:
        with TlsFront(serving, server.port) as front:
            # With all the patience there is: it must not be used.
            error = await failing(f"https://127.0.0.1:{front.port}/mcp", engine, Policy())
    assert (error.failure.kind, error.failure.proof, error.retry_in) == (FailureKind.CONFIG, True, None)
    expected = (
        f"the server's certificate is not trusted (127.0.0.1:{front.port}: the certificate is not trusted: {says}"
    )
    assert expected in str(error)
    assert error.outcome == "not_run"


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("SSL_CERT_FILE", None, "it does not exist"),
        ("SSL_CERT_FILE", "", "no certificates could be read from it"),
        ("SSL_CERT_FILE", "no certificate", "no certificates could be read from it"),
        ("SSL_CERT_DIR", None, "there is no such directory"),
        ("SSL_CERT_DIR", "", "there is no such directory"),
    ],
)
async def test_unreadable_certificates_are_named(
    engine: Engine, name: str, content: str | None, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "missing.pem"
    if content is not None:
        path.write_text(content)
    monkeypatch.setenv(name, str(path))
    error = await failing("https://127.0.0.1:9/mcp", engine, Policy())
    assert f"{name}={path}: {says}" in str(error)
    assert (error.failure.kind, error.retry_in) == (FailureKind.CONFIG, None)
    if engine == "direct":
        # Plain HTTP needs none. (httpx2's transport makes a context in any case.)
        async with HttpServer(Script()) as server, Connection({"url": server.url}, name="srv"):
            pass
