"""What the headers of a refusal say reaches the person."""

from __future__ import annotations

from typing import Any, Literal

import anyio
import httpx2
import pytest

from mcpconn import Connection, FailureKind
from mcpconn.errors import CallFailed, ConnectionFailed
from mcpconn.redact.redactor import Redactor
from mcpconn.testing import HttpServer, Reply, Script, Send
from mcpconn.testing.scripted import faults
from mcpconn.wire.hints import LIMIT, hint
from tests.support import SAFETY
from tests.wire.test_reachability import ENGINES, ONCE, failing, unset

__all__ = ["unset"]

Engine = Literal["direct", "httpx"]
SECRET = "tok-1234567890-abcdef"


def given(status: int, *headers: tuple[str, str]) -> str | None:
    return hint(httpx2.Response(status, headers=list(headers)), Redactor([SECRET]))


@pytest.mark.parametrize(
    ("challenge", "says"),
    [
        ("Bearer", "it wants Bearer credentials"),
        ('Basic realm="internal-name"', "it wants Basic credentials"),
        ('Bearer error="invalid_token"', "invalid_token"),
        (
            'Bearer realm="x", error="invalid_token", error_description="The access token expired", scope="a b"',
            "invalid_token: The access token expired; scope a b",
        ),
        ('Bearer error="insufficient_scope", scope="files:write"', "insufficient_scope; scope files:write"),
        ("Bearer error=invalid_token,scope=a", "invalid_token; scope a"),
        ('Bearer error_description="say \\"please\\", then wait"', 'say "please", then wait'),
        ('Bearer scope="a b", resource_metadata="https://x/y"', "scope a b; it wants Bearer credentials"),
        (f'Bearer error="invalid_token", error_description="{SECRET} is not known"', "invalid_token: *** is not known"),
        ('Bearer error_description="a\tb"', "a b"),
        ("", None),
    ],
)
def test_a_challenge_is_told_in_words(challenge: str, says: str | None) -> None:
    assert given(401, ("www-authenticate", challenge)) == says
    assert given(407, ("proxy-authenticate", challenge)) == says
    assert given(400, ("www-authenticate", challenge)) is None


def test_several_challenges_are_all_told() -> None:
    both = [("www-authenticate", "Negotiate"), ("www-authenticate", 'Bearer error="invalid_token"')]
    assert given(401, *both) == "it wants Negotiate credentials; invalid_token"


def test_what_is_allowed_is_told() -> None:
    assert given(405, ("allow", "GET, DELETE")) == "it allows GET, DELETE"
    assert given(405) is None
    assert given(404, ("allow", "GET")) is None


def test_a_secret_is_hidden_before_the_cut() -> None:
    for padding in range(LIMIT - 60, LIMIT):
        said = given(401, ("www-authenticate", f'Bearer error_description="{"." * padding}{SECRET}"'))
        assert said is not None
        assert "1234" not in said
        assert len(said) <= LIMIT + 3


def refusing(status: int, **headers: str) -> faults.Fault:
    fields = tuple((name.replace("_", "-"), value) for name, value in headers.items())
    return faults.Fault(f"{status}", lambda attempt: Reply(status, fields, (Send(b""),)))


@pytest.mark.anyio
@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(
    ("status", "headers", "says"),
    [
        (
            401,
            {"www_authenticate": 'Bearer error="invalid_token", error_description="it has expired", scope="a b"'},
            "the server refused the credentials (HTTP 401, invalid_token: it has expired; scope a b)",
        ),
        (403, {"www_authenticate": 'Bearer error="insufficient_scope", scope="x"'}, "insufficient_scope; scope x"),
        (405, {"allow": "GET"}, "it allows GET"),
        (302, {"location": "https://login.example/start?state=secret-state"}, "to https://login.example/start"),
        (307, {"location": "http://elsewhere.example/mcp"}, "to http://elsewhere.example/mcp"),
        (407, {"proxy_authenticate": "Basic"}, "the proxy requires other credentials (HTTP 407, it wants Basic"),
    ],
)
async def test_it_is_in_the_error_of_a_dial(engine: Engine, status: int, headers: Any, says: str) -> None:
    script = Script()
    script.inject(refusing(status, **headers), method=None, times=None)
    async with HttpServer(script) as server:
        error = await failing(server.url, engine)
    assert says in str(error)
    assert "secret-state" not in str(error)


@pytest.mark.anyio
async def test_it_is_in_the_error_of_a_call() -> None:
    script = Script()
    async with HttpServer(script) as server:
        with anyio.fail_after(SAFETY):
            async with Connection({"url": server.url}, name="srv", policy=ONCE) as connection:
                script.inject(
                    refusing(403, www_authenticate='Bearer error="insufficient_scope", scope="x"'), method="tools/call"
                )
                with pytest.raises(CallFailed, match="insufficient_scope; scope x") as caught:
                    await connection.call_tool("add", {"a": 1, "b": 1})
    assert caught.value.failure.kind is FailureKind.AUTH
    assert not isinstance(caught.value, ConnectionFailed)


@pytest.mark.anyio
@pytest.mark.parametrize(
    "page",
    [
        b"<html><head><title>400 The plain HTTP request was sent to HTTPS port</title></head></html>",
        b"Reason: You're speaking plain HTTP to an SSL-enabled server port.<br />",
        b"Client sent an HTTP request to an HTTPS server.\n",
    ],
)
async def test_a_server_wanting_tls_is_understood(page: bytes) -> None:
    script = Script()
    reply = Reply(400, (("content-type", "text/html"),), (Send(page),))
    script.inject(faults.Fault("plain", lambda attempt: reply), method=None, times=None)
    async with HttpServer(script) as server:
        error = await failing(server.url, "direct")
    assert "is its URL https:// and not http:// ?" in str(error)
