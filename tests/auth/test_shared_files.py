"""Token files that programs share: the tests of all token stores, in real time, and what only files have."""

from __future__ import annotations

import json
import os
from pathlib import Path

import anyio
import pytest
from mcp.client.auth import TokenStorage
from mcp.shared.auth import OAuthToken

from mcpconn import Connection, FailureKind, State
from mcpconn.auth import CredentialsUnavailable, FileTokenStorage, Mark, TokenFileError, TokenStore
from mcpconn.auth.store import SdkStorage, store_of
from mcpconn.errors import ConnectionFailed
from tests.auth.servers import ORIGIN
from tests.auth.stores import SharedStore
from tests.auth.test_oauth import Memory, add, provider
from tests.auth.test_records import (
    CLIENT,
    RECORD,
    TOKENS,
    Fleet,
    test_a_record_follows_the_one_before_it_or_is_refused,
    test_an_empty_store_holds_generation_0,
    test_of_many_writers_one_succeeds,
    test_what_is_stored_is_loaded,
)
from tests.support import SAFETY

__all__ = [
    "test_a_record_follows_the_one_before_it_or_is_refused",
    "test_an_empty_store_holds_generation_0",
    "test_of_many_writers_one_succeeds",
    "test_what_is_stored_is_loaded",
]

pytestmark = pytest.mark.anyio


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "tokens.json"


@pytest.fixture
def store(path: Path) -> TokenStore:
    return FileTokenStorage(path)


async def test_the_sdks_storage_is_seen_as_a_store_and_stores_as_its_storage(path: Path) -> None:
    for storage in (FileTokenStorage(path), SharedStore()):
        sdks: TokenStorage = storage
        assert store_of(storage) is storage
        await sdks.set_client_info(CLIENT)
        await sdks.set_tokens(TOKENS)
        record = await storage.load()
        assert (record.generation, record.tokens, record.client) == (2, TOKENS, CLIENT)
        # Tokens that somebody brings are the issuer's with whom the client is registered.
        assert record.issuer == CLIENT.issuer
        tokens = await sdks.get_tokens()
        assert tokens is not None
        assert 3590 < (tokens.expires_in or 0) <= 3600
    assert isinstance(store_of(Memory()), SdkStorage)


async def test_ten_programs_spend_one_token(path: Path) -> None:
    first = Fleet(FileTokenStorage(path))
    await first.log_in()
    programs = []
    for _ in range(10):
        first.store = FileTokenStorage(path)
        programs.append(first.program())
    for program in programs:
        await program.headers(fetch=first.fetch)
    with anyio.fail_after(SAFETY):
        async with anyio.create_task_group() as group:
            for program in programs:
                group.start_soon(first.renew, program)
    assert first.refused == []
    assert (first.world.auth.counts["refresh_token"], first.world.auth.counts["reused"]) == (1, 0)
    assert {(await program.headers())["Authorization"] for program in programs} == {"Bearer access-0002-secret"}
    record = await first.store.load()
    assert (record.mark, record.rotates, record.issuer, record.server) == (None, True, ORIGIN, f"{ORIGIN}:80")


async def test_the_connection_says_that_a_login_is_needed_and_whose_mark_it_is(path: Path) -> None:
    fleet = Fleet(FileTokenStorage(path))
    await fleet.log_in()
    record = await fleet.store.load()
    assert await fleet.store.replace(record.successor(mark=Mark("elsewhere, process 7", 1.7e9)))
    entry = {"url": f"{ORIGIN}/mcp", "http_transport": fleet.world.transport, "auth": provider(fleet.store)}
    async with Connection(entry, name="srv") as connection:
        # The access token is good: nothing has to be renewed yet.
        assert await add(connection) == "2"
        fleet.world.auth.revoke_access()
        with pytest.raises(ConnectionFailed, match="elsewhere, process 7 began to renew") as caught:
            await add(connection)
        assert caught.value.failure.kind is FailureKind.AUTH
        await fleet.store.set_tokens(OAuthToken.model_validate(fleet.world.auth.issue()))
        await connection.update_credentials()
        assert connection.state is State.READY


async def test_an_emptied_store_means_a_logout(path: Path) -> None:
    fleet = Fleet(FileTokenStorage(path))
    await fleet.log_in()
    program = fleet.program()
    await fleet.renew(program)
    path.unlink()
    await fleet.renew(program)
    assert fleet.refused == ["login is not possible: the provider has no redirect handler"]
    assert not path.exists()


async def test_keys_of_later_versions_are_kept(path: Path) -> None:
    storage = FileTokenStorage(path)
    assert await storage.replace(RECORD)
    data = json.loads(path.read_text())
    path.write_text(json.dumps({**data, "later": {"a": 1}}))
    assert await storage.replace(RECORD.successor(mark=None))
    assert json.loads(path.read_text())["later"] == {"a": 1}
    assert "mark" not in json.loads(path.read_text())


async def test_files_of_earlier_versions_are_read(path: Path) -> None:
    path.write_text(json.dumps({"tokens": TOKENS.model_dump(mode="json"), "expires_at": 2e9}))
    record = await FileTokenStorage(path).load()
    assert (record.generation, record.tokens, record.expires_at, record.issuer) == (0, TOKENS, 2e9, None)


async def test_temporary_files_of_writers_that_were_killed_are_cleared(path: Path) -> None:
    left = [path.with_name(f".{path.name}.{name}.tmp") for name in ("abc", "def")]
    other = [path.with_name(name) for name in (".other.json.abc.tmp", "tokens.json.bak", ".tokens.jsonx.abc.tmp")]
    for each in (*left, *other):
        each.write_text("access-secret")
    await FileTokenStorage(path).get_tokens()
    assert not any(each.exists() for each in left), "a program that only reads clears them, too"
    assert all(each.exists() for each in other)
    for each in left:
        each.write_text("access-secret")
    await FileTokenStorage(path).set_tokens(TOKENS)
    assert not any(each.exists() for each in left)


async def test_a_writers_temporary_file_is_left(path: Path) -> None:
    writer, reader = FileTokenStorage(path), FileTokenStorage(path)
    await writer.set_tokens(TOKENS)
    async with writer.lock():
        temporary = path.with_name(f".{path.name}.abc.tmp")
        temporary.write_text("half of it")
        await reader.get_tokens()
        assert temporary.exists()


@pytest.mark.parametrize("name", ["to[k]ens*.json", "tokens?.json"])
async def test_names_with_wildcards_are_names(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    other = tmp_path / ".tokensX.json.abc.tmp"
    other.write_text("")
    left = tmp_path / f".{name}.abc.tmp"
    left.write_text("")
    await FileTokenStorage(path).set_tokens(TOKENS)
    assert (other.exists(), left.exists()) == (True, False)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="named pipes are a matter of POSIX systems")
async def test_a_pipe_for_a_file_does_not_block(path: Path) -> None:
    os.mkfifo(path)
    with anyio.fail_after(SAFETY):
        with pytest.raises(TokenFileError, match="no regular file"):
            await FileTokenStorage(path).get_tokens()


async def test_a_file_that_is_too_long_is_not_read(path: Path) -> None:
    path.write_bytes(b" " * (1024 * 1024 + 1))
    with pytest.raises(TokenFileError, match="too long for a token file"):
        await FileTokenStorage(path).get_tokens()


async def test_a_waiting_process_is_told_the_locks_holder(path: Path) -> None:
    holder, waiter = FileTokenStorage(path), FileTokenStorage(path)
    assert waiter.holder() is None
    async with holder.lock():
        assert waiter.holder() == f"process {os.getpid()}"
    assert waiter.holder() is None


async def test_a_lock_held_for_long_is_an_outage(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mcpconn.auth.storage.LOCK_PATIENCE", 0.05)
    holder, waiter = FileTokenStorage(path), FileTokenStorage(path)
    await holder.set_tokens(TOKENS)
    async with holder.lock():
        expected = f"tokens.json has been locked for 0.05 s by process {os.getpid()}"
        with pytest.raises(CredentialsUnavailable, match=expected):
            await waiter.set_tokens(TOKENS)
    await waiter.set_tokens(TOKENS)
