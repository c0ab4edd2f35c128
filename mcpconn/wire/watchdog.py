"""Ends the child processes of a manager whose own process has been killed.

A host that is ended by SIGKILL, or by a signal it does not handle, cannot end its children. Most of them detect the end
of their stdin and exit, but a hanging server, or processes that a launcher left behind, would remain indefinitely. So
each manager with stdio servers has one watchdog: a shell of about 2 MB that reads from a pipe of which this process has
the only write end. When the kernel closes that end, the registered process groups get SIGTERM, and after 2 s SIGKILL.

On Linux the alternative is PR_SET_PDEATHSIG. It needs code between fork and exec, is bound to the forking thread
instead of the process, and reaches only the direct child, which is often a launcher.

The watchdog does not reach a process that has left its group (setsid), and does not work on Windows or on systems
without /bin/sh. If the host is the first process of a container, all processes end with it anyway.
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
"""Starts the watchdog detached, so that this process need not collect it and it is not mistaken for a server.
Without the detour by descriptor 3 a shell gives /dev/null to what it starts in the background."""


class Watchdog:
    """The watchdog of one manager, started with its first child process and ended with its last connection."""

    def __init__(self) -> None:
        self._groups: set[int] = set()
        self._users = 0
        self._pipe: int | None = None
        self._close: weakref.finalize | None = None  # type: ignore[type-arg]

    def join(self) -> None:
        """Register a connection that starts child processes."""
        # Counted, because one watchdog serves all connections of a manager.
        self._users += 1

    def leave(self) -> None:
        """Unregister a closed connection. The watchdog ends with the last one."""
        self._users -= 1
        # Not while a group is guarded: its child may still be ending.
        if self._users == 0 and not self._groups:
            self.close()

    def guard(self, group: int) -> None:
        """End the process group `group` if this process ends without `release`.

        Raises:
            OSError: no watchdog can be started now: too many open files, no memory.
        """
        # Recorded before it is sent, because a restarted watchdog receives all groups.
        self._groups.add(group)
        if self._pipe is None:
            self._start()
        elif not self._tell("guard", group):
            # The watchdog was killed. The next one receives all groups.
            self.close()
            self._start()

    def release(self, group: int) -> None:
        """Release a process group that is gone or no longer guarded."""
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
            # A stopped watchdog must not block this process at a full pipe.
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
        # A manager that is garbage-collected without being closed closes the pipe as well, which triggers the watchdog.
        self._close = weakref.finalize(self, os.close, write)
        _LIVING.add(self)
        for group in self._groups:
            self._tell("guard", group)

    def _tell(self, what: str, group: int) -> bool:
        """Whether the write succeeded."""
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
        # They belong to the parent, whose watchdog continues to run.
        watchdog._groups.clear()
        watchdog.close()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
