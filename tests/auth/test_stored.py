"""A login that a file asks for: its tokens are where every program of this user finds them. Real sockets."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import anyio
import pytest
from mcp.shared.auth import AuthorizationCodeResult

from mcpconn import ConfigError, Connection, ConnectionFailed, FailureKind, Manager, ServerConfig
from mcpconn.auth import Login, OAuth, token_file
from mcpconn.auth.stored import provider_of
from mcpconn.testing import Script
from tests.auth.servers import AuthServer, ServedAuth
from tests.support import SAFETY, text_of

pytestmark = pytest.mark.anyio

SECRET = "cl1ent-s3cret-0001"


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[AuthServer]:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    auth = AuthServer()
    with ServedAuth(auth, Script()):
        yield auth


def entry(server: AuthServer, auth: Any) -> dict[str, Any]:
    return {"url": f"{server.origin}/mcp", "auth": auth}


async def log_in(server: AuthServer, login: Login) -> list[str]:
    """As a person at a browser; returns the addresses they were sent to."""
    sent: list[str] = []

    async def redirect(url: str) -> None:
        sent.append(url)

    async def callback() -> AuthorizationCodeResult:
        asked = parse_qs(urlsplit(sent[-1]).query)
        return AuthorizationCodeResult(code=f"code:{asked.get('scope', [''])[0]}", state=asked["state"][0])

    provider = provider_of(login, f"{server.origin}/mcp", redirect=redirect, callback=callback)
    await OAuth(provider).refresh(None)
    return sent


@pytest.mark.parametrize("auth", ["oauth", {"client_id": "c", "client_secret": SECRET, "scopes": ["r"]}])
async def test_a_missing_login_says_how_to_log_in(server: AuthServer, auth: Any) -> None:
    with anyio.fail_after(SAFETY), pytest.raises(ConnectionFailed) as caught:
        async with Connection(entry(server, auth), name="srv"):
            raise AssertionError("never ready")
    assert caught.value.failure.kind is FailureKind.AUTH
    assert "log in with `mcpconn login`" in str(caught.value)
    # No client was registered for a login that nobody makes.
    assert server.counts["register"] == 0


@pytest.mark.parametrize("engine", ["direct", "httpx"])
async def test_stored_logins_are_used_and_renewed(server: AuthServer, engine: str) -> None:
    with anyio.fail_after(SAFETY):
        await log_in(server, Login())
        async with Connection({**entry(server, "oauth"), "engine": engine}, name="srv") as connection:
            assert text_of(await connection.call_tool("add", {"a": 1, "b": 2})) == "3"
            server.revoke_access()
            assert text_of(await connection.call_tool("add", {"a": 1, "b": 2})) == "3"
    assert server.counts["refresh_token"] == 1
    assert server.counts["register"] == 1


async def test_a_configured_client_is_used_and_its_secret_is_not_stored(server: AuthServer) -> None:
    login = Login(client_id="mine", client_secret=SECRET, scopes=["r", "w"])
    server.clients = {"mine"}
    with anyio.fail_after(SAFETY):
        (sent,) = await log_in(server, login)
        asked = parse_qs(urlsplit(sent).query)
        assert (asked["client_id"], asked["scope"]) == (["mine"], ["r w"])
        async with Connection(entry(server, login), name="srv") as connection:
            assert text_of(await connection.call_tool("add", {"a": 1, "b": 2})) == "3"
            server.revoke_access()
            assert text_of(await connection.call_tool("add", {"a": 1, "b": 2})) == "3"
            assert SECRET not in json.dumps(connection.status())
    assert server.counts["register"] == 0
    file = token_file(f"{server.origin}/mcp")
    assert SECRET not in file.read_text()
    assert file.stat().st_mode & 0o077 == 0


async def test_a_reload_of_the_same_login_leaves_its_connection_alone(server: AuthServer, tmp_path: Path) -> None:
    path = tmp_path / "mcp.json"
    content = {"mcpServers": {"srv": {**entry(server, {"CLIENT_ID": "c", "CLIENT_SECRET": SECRET})}}}
    path.write_text(json.dumps(content))
    async with Manager.from_file(path) as manager:
        before = manager["srv"]
        manager.reload(path)
        assert manager["srv"] is before


def test_a_login_shows_nothing_of_itself() -> None:
    login = Login(client_id="c", client_secret=SECRET)
    config = ServerConfig(url="https://a.example", auth=login)
    assert SECRET not in repr(login) + repr(config) + str(config)
    assert config.redactor(f"invalid client {SECRET}") == "invalid client ***"
    assert replace(config, name="other").auth == login


def test_each_server_has_its_own_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    files = {token_file(f"https://u:p@a.example/{path}#x") for path in ("one", "two", "two?tenant=1")}
    assert len(files) == 3
    assert token_file("https://u:p@a.example/one") == token_file("https://a.example/one")


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"client_id": 5}, "client_id must be a string"),
        ({"client_idd": "x"}, "did you mean 'client_id'?"),
        ({"scopes": ["a b"]}, "without spaces"),
        ({"scopes": [5]}, "scopes must be a list of strings"),
        ({"redirect_uri": "https://elsewhere.example/"}, "on this machine"),
        ({"redirect_uri": "http://127.0.0.1:99999/"}, "on this machine"),
    ],
)
def test_a_login_without_sense_is_named(given: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        ServerConfig(name="srv", url="https://a.example", auth=given)
    assert words in str(caught.value)
    assert "'srv'" in str(caught.value)
