"""The command line as a process: in a terminal, interrupted, and without what it needs."""

from __future__ import annotations

import json
import os
import pty
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import REFUSED, stdio

Config = Callable[..., Path]
COMMAND = [sys.executable, "-m", "mcpconn.cli"]
SAFETY = 60.0

WITHOUT = """
import sys
sys.modules[{name!r}] = None
sys.argv = ["mcpconn", "check"]
from mcpconn.cli import main
sys.exit(main())
"""

GATED = """
import runpy, sys
open(sys.argv[1]).read()
sys.argv = sys.argv[2:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""
"""A server that begins when somebody has opened the pipe and closed it again."""


def gated(pipe: Path) -> dict[str, Any]:
    os.mkfifo(pipe)
    inner = stdio()
    return {"command": inner["command"], "args": ["-c", GATED, str(pipe), *inner["args"]]}


class Screen:
    """A terminal and the process in it."""

    def __init__(self, process: subprocess.Popen[str], master: int) -> None:
        self.process = process
        self._master = master
        self.text = ""

    def read_until(self, wanted: str) -> None:
        """Read what is written to the terminal until it holds `wanted`."""
        while wanted not in self.text:
            try:
                data = os.read(self._master, 65536)
            except OSError:
                data = b""
            assert data, f"the process ended without {wanted!r}: {self.text!r}"
            self.text += data.decode("utf-8", "replace")


@contextmanager
def terminal(*arguments: object, stream: str, columns: int = 100, **variables: str) -> Iterator[Screen]:
    """Run the command line with one of its streams, `stdout` or `stderr`, a terminal of 30 lines."""
    master, slave = pty.openpty()
    other = "stderr" if stream == "stdout" else "stdout"
    process = subprocess.Popen(
        [*COMMAND, *map(str, arguments)],
        stdin=subprocess.DEVNULL,
        env={**os.environ, "TERM": "xterm-256color", "COLUMNS": str(columns), "LINES": "30", **variables},
        text=True,
        **{stream: slave, other: subprocess.PIPE},  # type: ignore[call-overload]
    )
    os.close(slave)
    try:
        yield Screen(process, master)
    finally:
        process.kill()
        process.communicate(timeout=SAFETY)
        os.close(master)


def test_progress_is_shown_for_a_slow_server(config: Config, tmp_path: Path) -> None:
    pipe = tmp_path / "gate"
    path = config(quick=stdio(), slow=gated(pipe))
    with terminal("check", path, stream="stderr") as screen:
        screen.read_until("connecting: 1 of 2; waiting for slow")
        pipe.write_text("go", encoding="utf-8")
        out, _ = screen.process.communicate(timeout=SAFETY)
        assert screen.process.returncode == 0, out
        assert out.count("● ready") == 2


def test_no_progress_is_written_to_a_file(config: Config) -> None:
    run = subprocess.run([*COMMAND, "check", str(config(srv=stdio()))], capture_output=True, text=True, timeout=SAFETY)
    assert (run.returncode, run.stderr) == (0, "")


def test_ctrl_c_shows_no_traceback(config: Config, tmp_path: Path) -> None:
    path = config(slow=gated(tmp_path / "gate"))
    with terminal("check", path, stream="stderr") as screen:
        screen.read_until("waiting for slow")
        screen.process.send_signal(signal.SIGINT)
        out, _ = screen.process.communicate(timeout=SAFETY)
        assert (screen.process.returncode, out) == (130, "")
        assert "Traceback" not in screen.text


def test_what_is_known_is_kept_at_ctrl_c(config: Config, tmp_path: Path) -> None:
    path = config(quick=stdio(), bad={"url": "5"}, slow=gated(tmp_path / "gate"))
    with terminal("check", path, stream="stderr") as screen:
        assert screen.process.stdout is not None
        # Rows come as their servers do.
        begun = [screen.process.stdout.readline() for _ in range(3)]
        assert {row.split("\t")[0] for row in begun} == {"server", "quick", "bad"}
        screen.process.send_signal(signal.SIGINT)
        out, _ = screen.process.communicate(timeout=SAFETY)
    assert screen.process.returncode == 130
    assert "slow\t- unfinished" in out
    assert "bad: its configuration cannot be used" in out


def test_what_is_known_is_json_at_ctrl_c(config: Config, tmp_path: Path) -> None:
    path = config(bad={"url": "5"}, slow=gated(tmp_path / "gate"))
    with terminal("check", path, "--json", stream="stderr") as screen:
        screen.read_until("connecting: 1 of 2; waiting for slow")
        screen.process.send_signal(signal.SIGINT)
        out, _ = screen.process.communicate(timeout=SAFETY)
    assert screen.process.returncode == 130
    report = json.loads(out)
    assert report["ok"] is False
    assert (report["servers"]["bad"]["state"], report["servers"]["slow"]["state"]) == ("failed", "connecting")


def test_a_narrow_terminal_shows_whole_names(config: Config) -> None:
    name = "a-server-with-quite-a-long-name"
    with terminal("check", config(**{name: stdio()}), stream="stdout", columns=60) as screen:
        screen.read_until("ready")
    assert name in screen.text
    assert "…" not in screen.text


def test_an_ascii_terminal_gets_plain_signs(config: Config) -> None:
    with terminal("check", config(srv=stdio()), stream="stdout", LC_ALL="C") as screen:
        screen.read_until("+ ready")


def test_watch_shows_connections_to_the_end(config: Config) -> None:
    path = config(srv=stdio(), down=REFUSED)
    with terminal("watch", "--config", path, stream="stdout") as screen:
        screen.read_until("1 of 2 ready")
        assert "transitions" in screen.text
        screen.process.send_signal(signal.SIGINT)
        _, errors = screen.process.communicate(timeout=SAFETY)
        assert (screen.process.returncode, errors) == (0, "")


def test_a_traceback_is_shown_on_request(config: Config) -> None:
    arguments = [*COMMAND, "call", "down", "add", "--config", str(config(down=REFUSED))]
    quiet = subprocess.run(arguments, capture_output=True, text=True, timeout=SAFETY)
    assert quiet.returncode == 1
    assert quiet.stderr.count("\n") == 1
    loud = subprocess.run([*arguments, "--debug"], capture_output=True, text=True, timeout=SAFETY)
    assert loud.returncode == 1
    assert "Traceback (most recent call last)" in loud.stderr
    assert "mcpconn.errors.ConnectionFailed: down: the server cannot be reached" in loud.stderr
    assert "ERROR mcpconn connection.failed" in loud.stderr


def unread(*arguments: str | Path) -> tuple[int, str]:
    """The status and the errors of a command whose output nobody reads."""
    reader, writer = os.pipe()
    os.close(reader)
    try:
        run = subprocess.run(
            [*COMMAND, *map(str, arguments)], stdout=writer, stderr=subprocess.PIPE, text=True, timeout=SAFETY
        )
    finally:
        os.close(writer)
    return run.returncode, run.stderr


@pytest.mark.parametrize("command", ["--version", "--help", "diagram", "schema"])
def test_a_pipe_closed_early_is_no_error(command: str) -> None:
    assert unread(command) == (141, "")


def test_a_reader_of_one_row_ends_check_quietly(config: Config) -> None:
    assert unread("check", config(srv=stdio(), down=REFUSED)) == (141, "")


def test_an_error_that_nobody_reads_keeps_its_status() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    try:
        run = subprocess.run([*COMMAND, "check", "nope.json"], stderr=writer, timeout=SAFETY)
    finally:
        os.close(writer)
    assert run.returncode == 2


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has a device that is always full")
def test_a_full_disk_is_one_line() -> None:
    with Path("/dev/full").open("w", encoding="utf-8") as full:
        run = subprocess.run([*COMMAND, "diagram"], stdout=full, stderr=subprocess.PIPE, text=True, timeout=SAFETY)
    assert run.returncode == 1
    assert run.stderr == "error: [Errno 28] No space left on device\n"


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_a_closed_standard_stream_is_no_bug(closed: str, config: Config) -> None:
    command = " ".join(map(shlex.quote, [*COMMAND, "check", str(config(srv=stdio()))]))
    run = subprocess.run(["/bin/sh", "-c", f"{command} {closed}"], capture_output=True, text=True, timeout=SAFETY)
    assert (run.returncode, run.stderr) == (0, "")


@pytest.mark.parametrize("name", ["typer", "rich"])
def test_a_missing_extra_says_the_command(name: str) -> None:
    run = subprocess.run(
        [sys.executable, "-c", WITHOUT.format(name=name)], capture_output=True, text=True, timeout=SAFETY
    )
    assert run.returncode == 1
    assert run.stdout == ""
    assert run.stderr == (
        f"mcpconn: the command line needs {name}, which is not installed; "
        f"pip install '.[cli]' in a clone of mcpconn, or pip install {name}\n"
    )


def test_the_package_needs_no_typer_nor_rich() -> None:
    program = "import sys; sys.modules.update(typer=None, rich=None); import mcpconn, mcpconn.diagram"
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=SAFETY)
    assert run.returncode == 0, run.stderr
