"""Ends the child processes of a manager whose own process has been killed.

A host that is ended by SIGKILL, or by a signal it does not handle, cannot end its children. Most of them read the
end of their stdin and exit, but a server that hangs, and whatever a launcher left behind, would stay for ever.
So each manager with stdio servers has one watchdog: a shell of about 2 MB that reads from a pipe of which this
process has the only write end. When the kernel closes that end, the process groups that the watchdog was
told of get SIGTERM, 2 s, and SIGKILL.

PR_SET_PDEATHSIG would be the other way on Linux. It needs code between fork and exec, follows the thread that
forked rather than the process, and reaches the direct child alone, which is often a launcher.

What it does not reach: a process that has left its group (setsid), and everything on Windows and on systems
without /bin/sh. Where the host is the first process of a container, its end is the end of them all anyway.
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import weakref

LOG = logging.getLogger("mcpconn")
SHELL = "/bin/sh"
SCRIPT = """
trap '' HUP INT TERM
groups=
while read -r what group; do
    case $what in
    guard) groups="$groups $group" ;;
    release)
        kept=
        for each in $groups; do [ "$each" = "$group" ] || kept="$kept $each"; done
        groups=$kept ;;
    esac
done
signal() {
    some=1
    for group in $groups; do kill -s "$1" -- "-$group" 2>/dev/null && some=0; done
    return $some
}
signal TERM || exit 0
for second in 1 2; do
    sleep 1
    signal 0 || exit 0
done
signal KILL
"""
"""POSIX shell: what works in dash, bash and busybox alike. Signals to the terminal's group must not end it."""
LAUNCH = 'exec 3<&0; "$0" -c "$1" mcpconn-watchdog "$2" <&3 3<&- &'
"""Starts the watchdog as nobody's child: this process need not collect it, and nobody takes it for a server.
Without the detour by descriptor 3 a shell gives /dev/null to what it starts in the background."""


class Watchdog:
    """The watchdog of one manager, started with its first child process and ended with its last connection."""

    def __init__(self) -> None:
        self._groups: set[int] = set()
        self._users = 0
        self._pipe: int | None = None
        self._close: weakref.finalize | None = None  # type: ignore[type-arg]

    def join(self) -> None:
        """A connection that starts child processes uses it from now on."""
        # Counted, because one watchdog serves all connections of a manager.
        self._users += 1

    def leave(self) -> None:
        """That connection is closed. The watchdog ends with the last of them."""
        self._users -= 1
        # Not while a group is guarded: its child may still be ending.
        if self._users == 0 and not self._groups:
            self.close()

    def guard(self, group: int) -> None:
        """End the process group `group` if this process ends without `release`.

        Raises:
            OSError: no watchdog can be started now: too many open files, no memory.
        """
        # Noted before it is told: a watchdog that is started anew is told of all of them.
        self._groups.add(group)
        if self._pipe is None:
            self._start()
        elif not self._tell("guard", group):
            # It was killed. The next one is told of all.
            self.close()
            self._start()

    def release(self, group: int) -> None:
        """The process group is gone, or is nobody's business any more."""
        self._groups.discard(group)
        if self._pipe is not None:
            self._tell("release", group)
        if self._users == 0 and not self._groups:
            self.close()

    def close(self) -> None:
        """Close the pipe. A watchdog with no groups left ends at once."""
        close, self._close, self._pipe = self._close, None, None
        if close is not None:
            close()

    def _start(self) -> None:
        if sys.platform == "win32":
            return
        read, write = os.pipe()
        try:
            # A watchdog that was stopped must not stop this process at a full pipe.
            os.set_blocking(write, False)
            # Without this process's environment and directory: it outlives both. A session of its own keeps
            # the signals of a terminal, such as Ctrl-C and hanging up, away from it.
            launcher = subprocess.Popen(
                [SHELL, "-c", LAUNCH, SHELL, SCRIPT, str(os.getpid())],
                stdin=read,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env={"PATH": os.defpath},
                cwd="/",
                start_new_session=True,
            )
            launcher.wait()  # about 2 ms: it starts one process and ends
        except (FileNotFoundError, PermissionError) as error:
            os.close(write)
            LOG.warning("no watchdog: child processes may outlive this one if it is killed (%r)", error)
            return
        except BaseException:
            os.close(write)
            raise
        finally:
            os.close(read)
        self._pipe = write
        # A manager that is dropped without being closed closes the pipe as well, and with it the watchdog acts.
        self._close = weakref.finalize(self, os.close, write)
        _LIVING.add(self)
        for group in self._groups:
            self._tell("guard", group)

    def _tell(self, what: str, group: int) -> bool:
        """Whether it could be told."""
        assert self._pipe is not None
        try:
            os.write(self._pipe, f"{what} {group}\n".encode())
        except OSError:
            # BrokenPipeError: it was killed. BlockingIOError: it is stopped, and its pipe is full.
            return False
        return True


_LIVING: weakref.WeakSet[Watchdog] = weakref.WeakSet()


def _forget() -> None:
    """In a forked child: its copy of the pipe must not keep the watchdog waiting for the parent's end."""
    for watchdog in tuple(_LIVING):
        # They belong to the parent, whose watchdog lives on.
        watchdog._groups.clear()
        watchdog.close()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
