"""A lock between processes: whoever holds it, the others wait."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio

FIRST_LOOK, LAST_LOOK = 0.01, 0.25
"""Seconds between two attempts to take it. It is held for as long as one token request takes."""
TAKEN = (errno.EAGAIN, errno.EACCES)
"""What the systems say where somebody else holds it."""

if sys.platform == "win32":  # pragma: no cover - locks of another kind, on another system
    import msvcrt

    def _take(descriptor: int) -> None:
        os.lseek(descriptor, 0, os.SEEK_SET)
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)

    def _release(descriptor: int) -> None:
        os.lseek(descriptor, 0, os.SEEK_SET)
        msvcrt.locking(descriptor, msvcrt.LK_UNLCK, 1)

else:
    import fcntl

    def _take(descriptor: int) -> None:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def _release(descriptor: int) -> None:
        fcntl.flock(descriptor, fcntl.LOCK_UN)


class FileLock:
    """An advisory lock on a file (`flock`; `msvcrt.locking` on Windows).

    The system releases it with the process that holds it, however that ends. The file stays: removing it would
    let a third process lock a new file of the same name while the second waits for the old one. On network
    file systems it is as good as the system's own locks are.

    It looks again and again instead of waiting in a thread: a thread that waits for a lock cannot be cancelled,
    and would hold up the end of the program.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._owner: int | None = None

    @asynccontextmanager
    async def held(self) -> AsyncIterator[None]:
        """Hold the lock. The task that holds it may enter again."""
        task = anyio.get_current_task().id
        if self._owner == task:
            yield
            return
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            pause = FIRST_LOOK
            while True:
                try:
                    _take(descriptor)
                    break
                except OSError as error:
                    if error.errno not in TAKEN:
                        raise
                    await anyio.sleep(pause)
                    pause = min(2 * pause, LAST_LOOK)
            self._owner = task
            try:
                yield
            finally:
                self._owner = None
                _release(descriptor)
        finally:
            os.close(descriptor)
