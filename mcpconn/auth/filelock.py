"""A lock between processes."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path

import anyio

FIRST_LOOK, LAST_LOOK = 0.01, 0.25
"""Seconds between two attempts to acquire it. It is held for the duration of one token request."""
TAKEN = (errno.EAGAIN, errno.EACCES)
"""The error codes if another process holds it."""
LONGEST_NAME = 200
"""Bytes read of what the holder has written into the file."""

if sys.platform == "win32":  # pragma: no cover - locks of another kind, on another system
    import msvcrt

    LOCKED = 1 << 30
    """The byte that is locked: a locked one cannot be read, and who holds the lock is written at the beginning."""

    def _take(descriptor: int) -> None:
        os.lseek(descriptor, LOCKED, os.SEEK_SET)
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)

    def _release(descriptor: int) -> None:
        os.lseek(descriptor, LOCKED, os.SEEK_SET)
        msvcrt.locking(descriptor, msvcrt.LK_UNLCK, 1)

else:
    import fcntl

    def _take(descriptor: int) -> None:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def _release(descriptor: int) -> None:
        fcntl.flock(descriptor, fcntl.LOCK_UN)


class FileLock:
    """An advisory lock on a file (`flock`; `msvcrt.locking` on Windows).

    The operating system releases it when its holder exits, in any way. The file is not removed: otherwise a third
    process could lock a new file of the same name while the second waits for the old one. On network file systems it is
    as reliable as the system's own locks.

    It looks repeatedly instead of waiting in a thread: a thread that waits for a lock cannot be cancelled,
    and would hold up the end of the program.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._owner: int | None = None

    @asynccontextmanager
    async def held(self, *, patience: float | None = None) -> AsyncIterator[None]:
        """Hold the lock. The task that holds it may enter again.

        Args:
            patience: Seconds to wait for it; None: indefinitely.

        Raises:
            TimeoutError: others held it for so long.
            OSError: the file cannot be made or locked.
        """
        task = anyio.get_current_task().id
        if self._owner == task:
            yield
            return
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            with anyio.fail_after(patience):
                await self._acquire(descriptor)
            self._owner = task
            _sign(descriptor, f"process {os.getpid()}")
            try:
                yield
            finally:
                self._owner = None
                _sign(descriptor, "")
                _release(descriptor)
        finally:
            os.close(descriptor)

    async def _acquire(self, descriptor: int) -> None:
        pause = FIRST_LOOK
        while True:
            try:
                _take(descriptor)
                return
            except OSError as error:
                if error.errno not in TAKEN:
                    raise
            await anyio.sleep(pause)
            pause = min(2 * pause, LAST_LOOK)

    @contextmanager
    def tried(self) -> Iterator[bool]:
        """Acquire the lock without waiting, if it is free. Returns whether it is held."""
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            try:
                _take(descriptor)
            except OSError as error:
                if error.errno not in TAKEN:
                    raise
                yield False
                return
            try:
                yield True
            finally:
                _release(descriptor)
        finally:
            os.close(descriptor)

    def holder(self) -> str | None:
        """Who holds the lock, as it has written into the file; None if no process has."""
        try:
            text = self.path.read_bytes()[:LONGEST_NAME].decode("ascii", "replace").strip("\0 \n")
        except OSError:
            return None
        return text or None


def _sign(descriptor: int, name: str) -> None:
    """Write the holder into the lock's file, as information for waiting processes."""
    with suppress(OSError):
        os.ftruncate(descriptor, 0)
        os.lseek(descriptor, 0, os.SEEK_SET)
        os.write(descriptor, name.encode("ascii", "replace"))
