"""Children that do not take `server/discover` for what it is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anyio
import pytest

from mcpconn import Connection, ConnectionFailed, FailureKind, Manager, Policy
from mcpconn.cli.connect import check
from mcpconn.config import ServerConfig
from mcpconn.wire import discovery
from tests.stdio.programs import IMPATIENT, SCRIPT, Told, connected, python, server, shell
from tests.support import SAFETY, Seen, text_of

pytestmark = pytest.mark.anyio

SHORT = Policy(connect_timeout=4, start_timeout=4)
"""A dial has 4 s: half of them for the answer to `server/discover`, one once the child has written something."""


def counted(told: Told, *arguments: str) -> dict[str, Any]:
    """A server that tells each of its starts."""
    return shell(f"echo start >> {told.path}; exec $SERVER {' '.join(arguments)}")


async def test_a_child_that_exits_on_discovery_is_legacy(told: Told) -> None:
    config = counted(told, "--first", "exit")
    with anyio.fail_after(SAFETY):
        # One attempt is all it has.
        async with Connection(config, policy=IMPATIENT) as connection:
            seen = Seen(connection)
            assert connection.status()["era"] == "legacy"
            assert text_of(await connection.call_tool("add", {"a": 1, "b": 2})) == "3"
            assert len(told.lines) == 2
            # In doubt the next dial asks again; then it has been cut twice.
            await connection.reconnect()
            assert len(told.lines) == 4
            await connection.reconnect()
            assert len(told.lines) == 5
            assert "attempt_failed" not in seen.events


async def test_the_era_is_remembered_for_all_connections_of_a_manager(told: Told, tmp_path: Path) -> None:
    config = counted(told, "--first", "exit")
    with anyio.fail_after(SAFETY):
        async with Manager({"one": config}) as manager:
            await manager["one"].wait_ready()
            await manager["one"].reconnect()
            assert len(told.lines) == 4
            same = manager.add("two", config)
            await same.wait_ready()
            assert len(told.lines) == 5
            # Another directory is another server.
            other = manager.add("three", {**config, "cwd": str(tmp_path)})
            await other.wait_ready()
            assert len(told.lines) == 7


async def test_a_remembered_era_is_dropped_when_a_dial_with_it_fails(told: Told, tmp_path: Path) -> None:
    mode = tmp_path / "mode"
    mode.write_text("--first exit")
    config = shell(f"echo start >> {told.path}; exec $SERVER $(cat {mode})")
    with anyio.fail_after(SAFETY):
        async with Connection(config) as connection:
            await connection.reconnect()
            assert len(told.lines) == 4
            mode.write_text("--era modern")
            # Dialled as legacy, refused, and asked again in the same dial.
            await connection.reconnect()
            assert (connection.status()["era"], len(told.lines)) == ("modern", 6)


async def test_a_child_that_answers_everything_but_discover_is_initialized_as_it_is(told: Told) -> None:
    with anyio.fail_after(SAFETY):
        async with Connection(counted(told, "--first", "ignore"), policy=SHORT) as connection:
            assert connection.status()["era"] == "legacy"
            assert text_of(await connection.call_tool("add", {"a": 1, "b": 2})) == "3"
        assert len(told.lines) == 1


@pytest.mark.parametrize("where", ["1", "2"], ids=["stdout", "stderr"])
async def test_a_childs_banner_shortens_the_wait(where: str, told: Told, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(discovery, "MUTE", 2 * SAFETY)
    monkeypatch.setattr(discovery, "MUTE_AFTER_OUTPUT", 0.2)
    config = shell(f"echo start >> {told.path}; echo 'server on stdio' >&{where}; exec $SERVER --first ignore")
    with anyio.fail_after(SAFETY):
        # Of a dial without the banner, half is for the answer to `server/discover`: longer than the test may take.
        policy = Policy(connect_timeout=4 * SAFETY, start_timeout=4 * SAFETY)
        async with Connection(config, policy=policy) as connection:
            assert connection.status()["era"] == "legacy"
        assert len(told.lines) == 1


async def test_a_child_that_goes_mute_for_good_is_replaced_by_one_that_is_not_asked(told: Told) -> None:
    with anyio.fail_after(SAFETY):
        async with Connection(counted(told, "--first", "hang"), policy=SHORT) as connection:
            assert connection.status()["era"] == "legacy"
            assert text_of(await connection.call_tool("add", {"a": 1, "b": 2})) == "3"
        assert len(told.lines) == 2


async def test_a_child_that_loads_before_it_reads_is_not_taken_for_a_mute_one(told: Told) -> None:
    # Longer than the answer to discover is waited for; it has not read the question.
    config = shell(f"echo start >> {told.path}; sleep 3.2; exec $SERVER --era modern")
    with anyio.fail_after(SAFETY):
        async with Connection(config, policy=Policy(connect_timeout=6, start_timeout=6)) as connection:
            assert text_of(await connection.call_tool("add", {"a": 1, "b": 2})) == "3"
        assert len(told.lines) == 1


async def test_a_legacy_child_that_answers_late_is_known_to_be_legacy(
    told: Told, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(discovery, "MUTE", 0.2)
    sent = tmp_path / "sent"
    config = shell(f"echo start >> {told.path}; sleep 1.2; tee -a {sent} | $SERVER --ignore ping")
    with anyio.fail_after(SAFETY):
        async with Connection(config) as connection:
            assert connection.status()["era"] == "legacy"
            assert (sent.read_text().count('"server/discover"'), sent.read_text().count('"initialize"')) == (1, 1)
            await connection.reconnect()
            # It was not asked again.
            assert (sent.read_text().count('"server/discover"'), sent.read_text().count('"initialize"')) == (1, 2)
        assert len(told.lines) == 2


async def test_a_child_that_ends_before_it_reads_the_question_is_not_started_twice(told: Told) -> None:
    config = shell(f"echo start >> {told.path}; echo 'no such module' >&2; exit 1")
    with anyio.fail_after(SAFETY):
        with pytest.raises(ConnectionFailed, match="exited with 1: no such module"):
            async with Connection(config, policy=IMPATIENT):
                raise AssertionError("never ready")
        assert len(told.lines) == 1


async def test_a_modern_server_that_crashes_at_the_question_is_modern_the_next_time(told: Told) -> None:
    # The first start reads it and dies. As legacy it would be refused.
    config = shell(
        f"echo start >> {told.path}; [ $(wc -l < {told.path}.count 2>/dev/null || echo 0) -gt 0 ] && "
        f"exec $SERVER --era modern; echo >> {told.path}.count; read line; exit 1"
    )
    with anyio.fail_after(SAFETY):
        async with Connection(config) as connection:
            seen = Seen(connection)
            assert connection.status()["era"] == "modern"
            await connection.reconnect()
            assert connection.status()["era"] == "modern"
            assert seen.events == ["recycle", "connect", "established"]


async def test_a_refused_initialize_needs_a_person(told: Told) -> None:
    for code in ("-32600", "-32601", "-32602"):
        with anyio.fail_after(SAFETY):
            with pytest.raises(ConnectionFailed, match="refused the handshake") as caught:
                async with Connection(counted(told, "--refuse", code)):
                    raise AssertionError("never ready")
        assert (caught.value.failure.kind, caught.value.retry_in) == (FailureKind.PROTOCOL, None)
    assert len(told.lines) == 3


async def test_a_passing_failure_of_initialize_is_retried() -> None:
    with anyio.fail_after(SAFETY):
        with pytest.raises(ConnectionFailed) as caught:
            async with Connection(server("--refuse", "-32603"), policy=IMPATIENT):
                raise AssertionError("never ready")
    assert caught.value.retry_in is not None


async def test_check_finds_children_that_exit() -> None:
    config = ServerConfig.parse("odd", server("--first", "exit"))
    with anyio.fail_after(SAFETY):
        (result,) = await check({"odd": config})
    assert (result.ok, result.era) == (True, "legacy")


async def test_a_banner_on_stdout_does_not_keep_a_modern_child_from_being_modern() -> None:
    async with connected(python('print("ready on stdio", flush=True)', arguments=["--era", "modern"])) as connection:
        assert connection.status()["era"] == "modern"


def test_the_programs_are_there() -> None:
    assert Path(SCRIPT).is_file()
