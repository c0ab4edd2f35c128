"""The token file: private, whole, and shared."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import anyio
import httpx2
import pytest
from mcp.client.auth import TokenStorage
from mcp.shared.auth import OAuthClientInformationFull, OAuthToken

from mcpconn import Connection, FailureKind, State
from mcpconn.auth import CredentialsUnavailable, FileTokenStorage, OAuth, TokenFileError
from mcpconn.auth.filelock import FileLock
from mcpconn.errors import ConnectionFailed
from mcpconn.testing import Script, ScriptTransport
from tests.auth.servers import ORIGIN, AuthServer, Guarded, ServedAuth
from tests.auth.test_oauth import Memory, Person, provider
from tests.support import SAFETY

pytestmark = pytest.mark.anyio

TOKENS = OAuthToken(access_token="access-secret", refresh_token="refresh-secret", expires_in=3600, scope="files")
CLIENT = OAuthClientInformationFull(client_id="client-1", client_secret="client-secret", issuer="http://issuer.example")

posix = pytest.mark.skipif(os.name != "posix", reason="modes of files are a matter of POSIX systems")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "deep" / "tokens.json"


async def test_the_next_program_finds_the_tokens(path: Path) -> None:
    storage: TokenStorage = FileTokenStorage(path)
    assert await storage.get_tokens() is None
    assert await storage.get_client_info() is None
    await storage.set_client_info(CLIENT)
    await storage.set_tokens(TOKENS)
    again = FileTokenStorage(path)
    tokens = await again.get_tokens()
    assert tokens is not None
    assert tokens.model_copy(update={"expires_in": 3600}) == TOKENS
    assert await again.get_client_info() == CLIENT


async def test_expires_in_counts_from_now(path: Path) -> None:
    storage = FileTokenStorage(path)
    await storage.set_tokens(TOKENS)
    data = json.loads(path.read_text())
    data["expires_at"] -= 3000
    path.write_text(json.dumps(data))
    tokens = await storage.get_tokens()
    assert tokens is not None
    assert 590 < (tokens.expires_in or 0) <= 600
    data["expires_at"] -= 3000
    path.write_text(json.dumps(data))
    tokens = await storage.get_tokens()
    assert tokens is not None
    assert tokens.expires_in == 0


async def test_tokens_without_an_end_have_none(path: Path) -> None:
    storage = FileTokenStorage(path)
    await storage.set_tokens(TOKENS)
    await storage.set_tokens(OAuthToken(access_token="endless"))
    tokens = await storage.get_tokens()
    assert tokens is not None
    assert (tokens.access_token, tokens.expires_in) == ("endless", None)


async def test_a_logout_forgets_the_tokens_and_keeps_the_registration(path: Path) -> None:
    storage = FileTokenStorage(path)
    await storage.set_client_info(CLIENT)
    await storage.set_tokens(TOKENS)
    await storage.clear()
    assert await storage.get_tokens() is None
    assert await storage.get_client_info() == CLIENT
    assert "secret" not in path.read_text().replace("client-secret", "").replace("client_secret", "")


@posix
async def test_only_the_owner_can_read_it(path: Path) -> None:
    before = os.umask(0)
    try:
        await FileTokenStorage(path).set_tokens(TOKENS)
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert {stat.S_IMODE(each.stat().st_mode) for each in path.parent.iterdir()} == {0o600}


@posix
async def test_a_file_that_others_could_read_is_private_after_the_next_write(path: Path) -> None:
    path.parent.mkdir()
    path.write_text("{}")
    path.chmod(0o644)
    await FileTokenStorage(path).set_tokens(TOKENS)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@posix
async def test_a_link_is_followed_and_stays_one(path: Path, tmp_path: Path) -> None:
    path.parent.mkdir()
    link = tmp_path / "link.json"
    link.symlink_to(path)
    await FileTokenStorage(link).set_tokens(TOKENS)
    assert link.is_symlink()
    assert json.loads(path.read_text())["tokens"]["access_token"] == "access-secret"


async def test_a_write_that_fails_leaves_the_old_tokens_and_nothing_else(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = FileTokenStorage(path)
    await storage.set_tokens(TOKENS)
    before = path.read_bytes()

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(CredentialsUnavailable, match="No space"):
        await storage.set_tokens(OAuthToken(access_token="new"))
    assert path.read_bytes() == before
    assert sorted(each.name for each in path.parent.iterdir()) == ["tokens.json", "tokens.json.lock"]


@pytest.mark.parametrize(
    "content",
    [
        '{"tokens": {"access_token": "access-sec',
        "",
        "[]",
        '"access-secret"',
        '{"tokens": "access-secret"}',
        '{"tokens": {"refresh_token": "refresh-secret"}}',
        '{"tokens": {"access_token": ["access-secret"]}}',
        "\x80\x81",
    ],
)
async def test_a_damaged_file_is_kept_and_named(path: Path, content: str) -> None:
    path.parent.mkdir()
    raw = content.encode("latin-1")
    path.write_bytes(raw)
    with pytest.raises(TokenFileError, match="restore it, or move it away") as caught:
        await FileTokenStorage(path).get_tokens()
    assert str(path) in str(caught.value)
    assert "secret" not in str(caught.value)
    assert path.read_bytes() == raw


async def test_a_damaged_file_is_not_overwritten(path: Path) -> None:
    path.parent.mkdir()
    path.write_text("{")
    with pytest.raises(TokenFileError):
        await FileTokenStorage(path).set_tokens(TOKENS)
    assert path.read_text() == "{"


async def test_a_damaged_registration_is_named_too(path: Path) -> None:
    path.parent.mkdir()
    path.write_text('{"client": {"client_secret": "client-secret"}}')
    with pytest.raises(TokenFileError) as caught:
        await FileTokenStorage(path).get_client_info()
    assert "client-secret" not in str(caught.value)


async def test_a_file_that_cannot_be_read_is_named(path: Path) -> None:
    path.mkdir(parents=True)
    with pytest.raises(TokenFileError, match="cannot be read"):
        await FileTokenStorage(path).get_tokens()


async def test_an_unusable_directory_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(TokenFileError, match="Not a directory"):
        await FileTokenStorage(tmp_path / "file" / "tokens.json").set_tokens(TOKENS)


async def test_writers_in_one_process_lose_nothing(path: Path) -> None:
    one, two = FileTokenStorage(path), FileTokenStorage(path)
    with anyio.fail_after(SAFETY):
        async with anyio.create_task_group() as group:
            for _ in range(4):
                group.start_soon(one.set_tokens, TOKENS)
                group.start_soon(two.set_client_info, CLIENT)
    assert await one.get_tokens() is not None
    assert await two.get_client_info() == CLIENT


async def test_who_holds_the_lock_may_enter_again_and_others_wait(tmp_path: Path) -> None:
    lock, other, order = FileLock(tmp_path / "lock"), FileLock(tmp_path / "lock"), []

    async def second(which: FileLock, name: str) -> None:
        async with which.held():
            order.append(name)

    with anyio.fail_after(SAFETY):
        async with anyio.create_task_group() as group, lock.held():
            async with lock.held():
                group.start_soon(second, other, "another lock")
                group.start_soon(second, lock, "another task")
                await anyio.wait_all_tasks_blocked()
            order.append("first")
    assert order[0] == "first"
    assert sorted(order[1:]) == ["another lock", "another task"]


async def test_a_wait_for_the_lock_can_be_ended(tmp_path: Path) -> None:
    lock, other = FileLock(tmp_path / "lock"), FileLock(tmp_path / "lock")
    async with lock.held():
        with anyio.move_on_after(0.02) as scope:
            async with other.held():
                raise AssertionError("two hold the lock")
        assert scope.cancelled_caught
    with anyio.fail_after(SAFETY):
        async with other.held():
            pass


async def test_a_damaged_file_is_named_until_it_is_fixed(path: Path) -> None:
    auth, script = AuthServer(), Script()
    path.parent.mkdir()
    path.write_text("{")
    entry = {
        "url": f"{ORIGIN}/mcp",
        "http_transport": Guarded(auth, ScriptTransport(script)),
        "auth": provider(FileTokenStorage(path)),
        "lazy": True,
    }
    with anyio.fail_after(SAFETY):
        async with Connection(entry, name="srv") as connection:
            with pytest.raises(ConnectionFailed) as caught:
                await connection.call_tool("add", {"a": 1, "b": 1})
            assert caught.value.failure.kind is FailureKind.AUTH
            assert str(path) in str(caught.value)
            path.unlink()
            await FileTokenStorage(path).set_tokens(OAuthToken.model_validate(auth.issue()))
            await connection.update_credentials()
            assert connection.state is State.READY


async def test_one_set_of_credentials_can_be_renewed_without_a_connection() -> None:
    person, server = Person(), AuthServer()
    with ServedAuth(server, Script()):
        own = OAuth(provider(Memory(), person, f"{server.origin}/mcp"))
        challenge = f'Bearer resource_metadata="{server.origin}/.well-known/oauth-protected-resource"'
        assert await own.refresh(challenge)
        async with httpx2.AsyncClient(headers=dict(await own.headers())) as client:
            refused = await client.post(f"{server.origin}/mcp", content=b"no message")
        # The guard has let it pass, and the MCP server has read it.
        assert (refused.status_code, person.logins) == (400, 1)
