"""A stdio server's process: its start, its last output, and its end."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

import anyio
from anyio.abc import Process
from mcp.client.stdio import get_default_environment
from mcp.os.win32.utilities import get_windows_executable_command

from mcpconn.redact.places import secrets_of_args
from mcpconn.redact.redactor import Redactor
from mcpconn.wire.pipes import CHUNK, GONE, PipeReader, PipeWriter, Reader, StreamWriter, Writer
from mcpconn.wire.stderr import WIDTH, Stderr
from mcpconn.wire.stderr_reasons import reason_of

TERM_AFTER = 2.0
"""Seconds from the end of stdin to SIGTERM: the SDK's value. Databases need them to write out their data."""
KILL_AFTER = 0.9
"""Seconds from SIGTERM to SIGKILL."""
COLLECT = 0.05
"""Seconds from SIGKILL until processes that do not end are given up: a process that waits for a disk cannot be killed,
and a zombie that is not collected stays in its group."""
ENDING = 3.0
"""Maximum seconds for ending a child: the three above, plus the time for polling."""
POLL = 0.01
"""Seconds between polls of ending processes. There is no notification when the last member of a group is gone."""
UNUSABLE = frozenset(
    {
        errno.ENOENT,
        errno.EACCES,
        errno.ENOTDIR,
        errno.EISDIR,
        errno.ENOEXEC,
        errno.ELOOP,
        errno.ENAMETOOLONG,
    }
)
"""Permanent errors of a start, which remain until the command or the directory is changed. All others may be
temporary."""


class CannotStart(Exception):
    """No process could be started."""

    def __init__(self, error: Exception) -> None:
        self.errno = getattr(error, "errno", None)
        self.start_needs_person = self.errno in UNUSABLE or isinstance(error, ValueError)
        """The command, an argument or the directory is wrong. (ValueError: a zero byte in one of them.)"""
        super().__init__(str(error))


class ChildExited(Exception):
    """The child process ended. The text says how, with the line of its stderr that gives the reason."""

    def __init__(self, returncode: int | None, stderr: Sequence[str], *, certain: bool = True) -> None:
        """
        Args:
            returncode: Its exit status; None if it is running but has closed its output.
            stderr: The last lines that it wrote to stderr.
            certain: False if its pipes are still open, so that a process it started may continue to serve.
        """
        self.returncode = returncode
        self.stderr = tuple(stderr)
        self.transport_ended = certain
        """Whether this proves that the session is over."""
        if returncode is None:
            how = "closed its output"
        elif returncode < 0:
            with suppress(ValueError):
                how = f"killed by {signal.Signals(-returncode).name}"
                super().__init__(how)
                return
            how = f"killed by signal {-returncode}"
        else:
            how = f"exited with {returncode}"
        why = reason_of(self.stderr)
        super().__init__(f"{how}: {why}" if why else how)


class Child:
    """A running child, this process's ends of its pipes, and the last lines of its stderr."""

    def __init__(self, process: Process, stdin: Writer, stdout: Reader, stderr: Reader) -> None:
        self.process = process
        self.stdin = stdin
        self.stdout = stdout
        self._stderr = stderr
        self.stderr = Stderr()
        self.spoke = anyio.Event()
        """Set once it has written anything, to stdout or stderr."""
        self.silent = anyio.Event()
        """Set once stdout has ended: no process has it open."""

    async def drain_stderr(self) -> None:
        """Keep the last lines, so that the pipe never fills and a failure can be explained."""
        rest = b""
        # This task ends when the pipe breaks or is closed at the end of the child or the session.
        with suppress(*GONE):
            while True:
                chunk = await self._stderr.receive()
                self.spoke.set()
                # Text after the last newline is kept for the next chunk, up to a limit, because a progress bar may
                # never send a newline.
                *lines, rest = (rest + chunk).split(b"\n")
                for line in lines:
                    self.stderr.add(line)
                rest = rest[: WIDTH * 4]
        if rest.strip():
            self.stderr.add(rest)

    async def drain_stdout(self) -> None:
        """Read and drop its output, so that an ending child is not blocked by a full pipe."""
        with suppress(*GONE):
            while True:
                await self.stdout.receive(CHUNK)
        self.silent.set()

    async def exited(self, timeout: float) -> bool:
        """Whether the process ended within this many seconds. Its descendants do not count."""
        with anyio.move_on_after(timeout):
            await self.process.wait()
        return self.process.returncode is not None

    def signal_group(self, number: int) -> bool:
        """Send a signal to the child and all its descendants; 0 only checks. Returns whether any process received
        it."""
        if sys.platform == "win32":  # pragma: no cover - no process groups to signal there
            if number and self.process.returncode is None:
                self.process.kill()
            return False
        # No such group: all processes are gone. No permission: macOS reports this for a group of zombies.
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, number)
            return True
        return False

    def _idle(self) -> bool:
        """Whether no process is left that could serve: the process is gone, and so are its pipes or its group."""
        return self.process.returncode is not None and (self.silent.is_set() or not self._group_lives())

    def _gone(self) -> bool:
        """Whether the process and all its descendants are gone."""
        return self.process.returncode is not None and not self._group_lives()

    def _group_lives(self) -> bool:
        if sys.platform != "win32" and self.process.returncode is not None:
            with suppress(ChildProcessError):
                # The first process of a container inherits the descendants, and must collect them.
                while os.waitpid(-self.process.pid, os.WNOHANG)[0]:
                    pass
        return self.signal_group(0)

    async def stop(self) -> None:
        """End the child: close its stdin, 2 s, SIGTERM, 1 s, SIGKILL (specification, lifecycle, shutdown).

        Each signal goes to the whole process group. A launcher that has already ended does not shorten the wait: what
        counts is whether a process still holds the pipes.
        """
        # Closing stdin asks a stdio server to end (specification, lifecycle). Most servers do.
        await self.stdin.aclose()
        await _until(self._idle, TERM_AFTER)
        if not self._gone():
            # It hangs, or it has left descendants behind.
            self.signal_group(signal.SIGTERM)
            if not await _until(self._gone, KILL_AFTER):
                self.signal_group(signal.SIGKILL if sys.platform != "win32" else signal.SIGTERM)
                await _until(self._gone, COLLECT)
        for stream in (self.stdout, self._stderr):
            with suppress(*GONE):
                await stream.aclose()


async def _until(over: Callable[[], bool], timeout: float) -> bool:
    with anyio.move_on_after(timeout):
        while not over():  # noqa: ASYNC110 - see POLL
            await anyio.sleep(POLL)
    return over()


async def start_child(command: str, args: Sequence[str], *, env: Mapping[str, str] | None, cwd: str | None) -> Child:
    """Start a command as the leader of a new process group.

    Args:
        command: A program, found by PATH as usual.
        args: Its arguments.
        env: Environment variables on top of the few that the SDK passes on.
        cwd: Its working directory.

    Raises:
        CannotStart: there is no such program or directory, or the system has no room for a process now.
    """
    words = [command, *args]
    environment = get_default_environment() | dict(env or {})
    options: dict[str, Any] = {"env": environment, "cwd": cwd, "start_new_session": True}
    start = _start_on_windows if sys.platform == "win32" else _start
    # Shielded, because a dial that is cancelled at this moment would leave a running child behind.
    with anyio.CancelScope(shield=True):
        try:
            return await start(words, options)
        except FileNotFoundError as error:
            advised = _advised(error, command, cwd)
            raise CannotStart(advised) from advised
        except (OSError, ValueError) as error:
            raise CannotStart(error) from error
    raise AssertionError("unreachable")  # pragma: no cover - a shielded scope without a deadline


def _advised(error: FileNotFoundError, command: str, cwd: str | None) -> FileNotFoundError:
    """The error for a command that does not exist, with the fix: configuration files often put the arguments into the
    command."""
    program, _, arguments = command.strip().partition(" ")
    # The original error is kept as a cause, and its arguments may be secret.
    shown = Redactor(secrets_of_args(command.split()))(command)
    if cwd is not None and not os.path.isdir(cwd):
        words, shown = "the working directory does not exist", cwd
    elif len(command) > 1 and command[0] in "\"'" and command[-1] == command[0]:
        words = "no program has this name; remove the quotes that are part of it"
    elif arguments and (shutil.which(program) is not None or os.path.exists(program)):
        first = shown.split()[1]
        words = f"no program is called {shown!r}; if these are a program and its arguments, put {first!r} "
        words += "and what follows into args"
    elif os.sep in command:
        words = "there is no such program"
    else:
        words = "there is no such program; is it installed, and on the PATH of this process?"
    return FileNotFoundError(error.errno, words, shown)


async def _start(words: list[str], options: dict[str, Any]) -> Child:
    ours: list[int] = []
    theirs: list[int] = []
    try:
        for mine in (1, 0, 0):  # this process keeps the write end of stdin and the read ends of stdout and stderr
            pipe = os.pipe()
            ours.append(pipe[mine])
            theirs.append(pipe[1 - mine])
        stdin, stdout, stderr = theirs
        process = await anyio.open_process(words, stdin=stdin, stdout=stdout, stderr=stderr, **options)
    except BaseException:
        for fd in ours:
            os.close(fd)
        raise
    finally:
        for fd in theirs:
            os.close(fd)
    return Child(process, PipeWriter(ours[0]), PipeReader(ours[1]), PipeReader(ours[2]))


async def _start_on_windows(words: list[str], options: dict[str, Any]) -> Child:  # pragma: no cover
    # Windows starts `npx.exe` for `npx`, but `npx.cmd` is installed: the SDK tries the suffixes.
    words = [get_windows_executable_command(words[0]), *words[1:]]
    # Waiting for pipes is impossible on Windows. anyio's streams support it, but then its `wait` waits for them too.
    process = await anyio.open_process(words, stderr=subprocess.PIPE, **options)
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    return Child(process, StreamWriter(process.stdin), process.stdout, process.stderr)
