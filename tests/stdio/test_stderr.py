"""Why a child died, as its stderr tells it: in the failure, in `status()` and in the log. Real processes."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import Any

import anyio
import pytest

from mcpconn import Connection, ConnectionFailed, FailureKind, Policy, State
from mcpconn.status import ConnectionStatus
from tests.stderr_samples import SAMPLES
from tests.stdio.programs import IMPATIENT, SCRIPT, shell
from tests.support import SAFETY

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(sys.platform == "win32", reason="signals and process groups are POSIX's"),
]


def dying(text: str, *, then: str = "sys.exit(1)", env: dict[str, str] | None = None) -> dict[str, Any]:
    """A program that prints `text` to stderr and ends, or does something else."""
    code = f"import os, sys; sys.stderr.write({text!r} + chr(10)); sys.stderr.flush(); {then}"
    return {"command": sys.executable, "args": ["-c", code], "env": env or {}}


async def failure_of(config: dict[str, Any], policy: Policy = IMPATIENT) -> tuple[str, ConnectionStatus]:
    connection = Connection(config, name="child", policy=policy)
    with anyio.fail_after(SAFETY), pytest.raises(ConnectionFailed) as caught:
        async with connection:
            raise AssertionError("never ready")
    assert caught.value.failure.kind in (FailureKind.TRANSPORT_LOST, FailureKind.TIMEOUT)
    return str(caught.value), connection.status()


@pytest.mark.parametrize(
    "name", ["node, a module is missing", "npx, no such package", "docker, no such image", "python, an exception group"]
)
async def test_a_failure_names_the_childs_reason(name: str) -> None:
    text, reason = SAMPLES[name]
    said, status = await failure_of(dying(text))
    assert f"exited with 1: {reason}" in said
    # The lines around it are there for whoever has to look closer.
    assert status["stderr"]
    assert all(line in text for line in status["stderr"])


async def test_a_silent_child_is_explained_too(tmp_path: Path) -> None:
    text, reason = SAMPLES["node, the source is quoted"]
    policy = Policy(patience=1e-6, min_attempts=1, connect_timeout=1, start_timeout=1, drain_timeout=0.1)
    (tmp_path / "text").write_text(text)
    # A shell and not Python, which may take longer to start than the dial may take.
    silent = shell(f"cat '{tmp_path / 'text'}' >&2; exec cat >/dev/null")
    said, status = await failure_of(silent, policy)
    assert reason in said
    assert status["stderr"]


async def test_each_line_is_logged_as_it_comes(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, logger="mcpconn.stderr")
    secret = "sk-live-4f9a8b7c6d5e"
    await failure_of(dying(f"loading\nkey {secret} refused", env={"API_KEY": secret}))
    lines = [record.getMessage() for record in caplog.records if record.name == "mcpconn.stderr"]
    assert "server.stderr connection=child line='loading'" in lines
    assert "server.stderr connection=child line='key *** refused'" in lines


async def test_without_listeners_no_formatting(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="mcpconn.stderr")
    await failure_of(dying("loading"))
    assert not [record for record in caplog.records if record.name == "mcpconn.stderr"]


async def test_a_childs_lines_are_in_status() -> None:
    code = f"import runpy, sys; print('listening', file=sys.stderr); sys.argv = [{SCRIPT!r}]; "
    config = {"command": sys.executable, "args": ["-c", code + f"runpy.run_path({SCRIPT!r}, run_name='__main__')"]}
    with anyio.fail_after(SAFETY):
        async with Connection(config, name="child") as connection:
            assert connection.state is State.READY
            assert connection.status()["stderr"] == ["listening"]


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"command": "no-such-program"}, "is it installed, and on the PATH of this process?"),
        ({"command": "/no/such/program"}, "there is no such program"),
        ({"command": "~/no/such/program"}, "there is no such program"),
        ({"command": f'"{sys.executable}"'}, "remove the quotes that are part of it"),
        ({"command": f"{sys.executable} -m x"}, "put '-m' and what follows into args"),
        ({"command": sys.executable, "cwd": "/no/such/folder"}, "the working directory does not exist"),
    ],
)
async def test_a_command_that_cannot_be_started_says_what_to_change(config: dict[str, Any], words: str) -> None:
    with anyio.fail_after(SAFETY), pytest.raises(ConnectionFailed) as caught:
        async with Connection(config, name="child", policy=IMPATIENT):
            raise AssertionError("never ready")
    assert caught.value.failure.kind is FailureKind.CONFIG
    assert words in str(caught.value)
    assert "~" not in str(caught.value)
