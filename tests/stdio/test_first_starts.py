"""Starts that fail, or take their time: who waits for whom."""

from __future__ import annotations

import errno
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import anyio
import pytest

from mcpconn import CallTimeout, Connection, ConnectionFailed, FailureKind, Manager, Policy, State
from mcpconn.core.backoff import Backoff
from mcpconn.wire.child import CannotStart
from tests.stdio.programs import Told, server, shell
from tests.support import SAFETY, Seen, text_of, until

pytestmark = pytest.mark.anyio

QUICK = Policy(backoff=Backoff(initial=0.01, maximum=0.02))


def long_name(folder: Path) -> str:
    return str(folder / ("x" * 300))


def loop(folder: Path) -> str:
    (folder / "loop").symlink_to(folder / "loop")
    return str(folder / "loop")


def unreadable(folder: Path) -> str:
    path = folder / "server"
    path.write_text("#!/bin/sh\n")
    return str(path)


def no_program(folder: Path) -> str:
    path = folder / "server"
    path.write_bytes(b"\x01\x02\x03")
    path.chmod(0o755)
    return str(path)


def inside_a_file(folder: Path) -> str:
    return str(Path(unreadable(folder)) / "server")


def missing(folder: Path) -> str:
    return str(folder / "missing")


UNUSABLE: dict[str, Callable[[Path], str]] = {
    "ENOENT": missing,
    "EACCES": unreadable,
    "a directory": str,
    "ENOTDIR": inside_a_file,
    "ENOEXEC": no_program,
    "ELOOP": loop,
    "ENAMETOOLONG": long_name,
}


@pytest.mark.parametrize(
    ("what", "why"),
    [*(("command", why) for why in UNUSABLE), *(("cwd", why) for why in UNUSABLE if why != "a directory")],
)
async def test_a_command_or_directory_that_cannot_be_used_waits_for_a_person(
    what: str, why: str, tmp_path: Path
) -> None:
    path = UNUSABLE[why](tmp_path)
    config = {"command": path} if what == "command" else {**server(), "cwd": path}
    with anyio.fail_after(SAFETY):
        async with Manager({"srv": config}) as manager:
            with pytest.raises(ConnectionFailed, match="the command cannot be started") as caught:
                await manager.call_tool("srv", "add")
            assert (caught.value.failure.kind, caught.value.retry_in) == (FailureKind.CONFIG, None)
            assert manager["srv"].state is State.FAILED


def test_a_value_that_no_process_can_have_waits_for_a_person() -> None:
    assert CannotStart(ValueError("embedded null byte")).start_needs_person


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.EAGAIN, errno.ENOMEM, errno.ETXTBSY, errno.EIO])
def test_any_other_error_of_a_start_may_pass(number: int) -> None:
    assert not CannotStart(OSError(number, os.strerror(number))).start_needs_person


FULL = """
import os, resource, sys
import anyio
from mcpconn import Connection, Policy
from mcpconn.core.backoff import Backoff

async def main():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    taken = []
    def full(change):
        # Whatever the first dial met: there is room for the next.
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    policy = Policy(backoff=Backoff(initial=0.01, maximum=0.02))
    connection = Connection({"command": sys.executable, "args": [sys.argv[1]]}, policy=policy)
    changes = []
    def note(notice):
        if getattr(notice, "failure", None) is not None:
            changes.append((notice.event.value, notice.failure.kind.value, notice.failure.summary))
            full(notice)
    connection.journal.subscribe(note)
    used = len(os.listdir("/proc/self/fd"))
    resource.setrlimit(resource.RLIMIT_NOFILE, (used + int(sys.argv[3]), hard))
    async with connection:
        print(connection.state.value, changes)

anyio.run(main, backend=sys.argv[2])
"""


@pytest.mark.parametrize("room", [0, 3, 5])
def test_a_host_out_of_files_tries_again(room: int, anyio_backend_name: str) -> None:
    arguments = [sys.executable, "-c", FULL, server()["args"][0], anyio_backend_name, str(room)]
    run = subprocess.run(arguments, capture_output=True, text=True, timeout=60)
    said = (
        r"ready \[\('attempt_failed', 'unavailable', .no process can be started now \(\[Errno 24\] Too many open files"
    )
    assert re.match(said, run.stdout), run.stderr


@pytest.mark.parametrize("end", ["exit 1", "exit 127", "kill -SEGV $$"])
async def test_a_first_start_that_fails_is_tried_again_until_it_works(end: str, told: Told) -> None:
    # Twice out of reach, then there.
    config = shell(
        f"echo start >> {told.path}; echo >> {told.path}.n; [ $(wc -l < {told.path}.n) -gt 2 ] && exec $SERVER; {end}"
    )
    with anyio.fail_after(SAFETY):
        async with Connection(config, policy=QUICK) as connection:
            seen = connection.status()["transitions"]
            assert [each["event"] for each in seen] == ["connect", "attempt_failed", "attempt_failed", "established"]
            assert text_of(await connection.call_tool("add", {"a": 1, "b": 2})) == "3"


async def test_repeated_failed_starts_end_in_a_cool_down() -> None:
    policy = Policy(patience=0.2, min_attempts=2, backoff=QUICK.backoff, cool_down=0.05)
    with anyio.fail_after(SAFETY):
        async with Manager({"srv": shell("echo 'registry out of reach' >&2; exit 1")}, policy=policy) as manager:
            connection = manager["srv"]
            seen = Seen(connection)
            with pytest.raises(ConnectionFailed, match="exited with 1: registry out of reach") as caught:
                await connection.call_tool("add")
            assert caught.value.retry_in is not None
            # Not final: it is tried again.
            await until(connection, lambda: "retry" in seen.events)


async def test_a_first_start_has_its_own_time_and_later_ones_the_connect_timeout(told: Told) -> None:
    # Loads for two seconds at its first start, as npx does, and hangs at the second.
    config = shell(
        f"echo start >> {told.path}; echo >> {told.path}.n; n=$(wc -l < {told.path}.n); "
        f"[ $n -gt 1 ] && exec sleep 100; sleep 2; exec $SERVER"
    )
    with anyio.fail_after(SAFETY * 2):
        async with Connection(config, policy=Policy(connect_timeout=1, start_timeout=30)) as connection:
            seen = Seen(connection)
            connection._lifecycle.reconnect()
            await until(connection, lambda: "attempt_failed" in seen.events)
            assert connection.last_failure is not None
            assert "no handshake within 1 s" in connection.last_failure.summary


async def test_all_starts_that_come_to_nothing_share_the_time_for_the_first() -> None:
    policy = Policy(connect_timeout=0.5, start_timeout=1.5, backoff=QUICK.backoff)
    with anyio.fail_after(SAFETY * 2):
        async with Manager({"srv": {"command": "sleep", "args": ["100"]}}, policy=policy) as manager:
            connection = manager["srv"]
            seen = Seen(connection)
            await until(connection, lambda: seen.events.count("attempt_failed") >= 2)
            said = [change.failure.summary for change in seen.changes if change.failure is not None]
            assert said[0].startswith("no handshake within 1.5 s")
            assert said[1].startswith("no handshake within 0.5 s")


async def test_what_a_child_does_while_it_starts_is_told_without_its_secrets(told: Told) -> None:
    config = {
        **shell(f"echo 'npm error: token '$TOKEN >&2; echo start >> {told.path}; exec sleep 100"),
        "env": {"TOKEN": "sk-live-4f9a8b7c6d5e"},
    }
    with anyio.fail_after(SAFETY):
        async with Manager({"srv": config}, policy=Policy(drain_timeout=0.1)) as manager:
            connection = manager["srv"]
            await told.until(1)
            while connection._dialer._starting is None or not connection._dialer._starting[1].stderr.last:
                await anyio.lowlevel.checkpoint()
            progress = connection.status()["progress"]
            assert re.fullmatch(r"starting, \d s: npm error: token \*\*\*", str(progress))
            json.dumps(connection.status())
            with pytest.raises(
                CallTimeout, match=r"the connection is connecting: starting, \d s: npm error: token \*\*\*"
            ):
                await connection.call_tool("add", timeout=0.1)


async def test_a_start_that_takes_too_long_says_what_the_child_wrote_last() -> None:
    policy = Policy(connect_timeout=0.5, start_timeout=0.5, patience=1e-6, min_attempts=1)
    with anyio.fail_after(SAFETY):
        with pytest.raises(ConnectionFailed, match=r"no handshake within 0.5 s; on stderr: still loading"):
            async with Connection(shell("echo 'still loading' >&2; exec sleep 100"), policy=policy):
                raise AssertionError("never ready")


async def test_hanging_starts_delay_no_others(told: Told) -> None:
    policy = Policy(connect_timeout=0.5, start_timeout=60, dials_per_origin=2)
    hanging = {f"hanging{n}": shell(f"echo start >> {told.path}; exec sleep 100") for n in range(2)}
    with anyio.fail_after(SAFETY):
        async with Manager(hanging, policy=policy) as manager:
            await told.until(2)
            fine = manager.add("fine", shell("exec $SERVER"))
            await fine.wait_ready()
            assert manager["hanging0"].state is State.CONNECTING


async def test_a_crashing_child_is_not_started_every_second_because_a_call_waits(told: Told) -> None:
    config = shell(f"echo start >> {told.path}; exit 1")
    with anyio.fail_after(SAFETY):
        async with Manager({"srv": config}) as manager:
            with pytest.raises(CallTimeout):
                await manager.call_tool("srv", "add", timeout=3)
            # At once, after about 1 s, and after 1.6 s more.
            assert len(told.lines) <= 3
