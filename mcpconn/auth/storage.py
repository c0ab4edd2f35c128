"""Tokens in a private file, written atomically and shared between processes."""

from __future__ import annotations

import glob
import json
import os
import stat
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

from anyio import to_thread

from mcpconn.auth.credentials import CredentialsRefused, CredentialsUnavailable
from mcpconn.auth.filelock import FileLock
from mcpconn.auth.record import NotARecord, TokenRecord, parse_json
from mcpconn.auth.store import StoredTokens

LONGEST_FILE = 1024 * 1024
"""Bytes. A token file has some kilobytes; anything longer is something else."""
LOCK_PATIENCE = 30.0
"""Seconds to wait for the lock. A token request takes 20 s at most; a process that holds the lock for longer waits for
a person to log in, or is stopped."""


class TokenFileError(CredentialsRefused):
    """An unreadable token file. The text names the file and what to do."""


class FileTokenStorage(StoredTokens):
    """A `TokenStore` and the SDK's `TokenStorage`, as one JSON file for one server and one user.

    The file has mode 0600 and is replaced atomically, so a reader sees the old record or the new one, and a crash
    leaves the old. Processes may share it: writes are compare-and-set under a lock, and `OAuth` holds the lock during a
    refresh, so that only one process sends a refresh token, which many servers accept only once. The operating system
    releases the lock when its holder exits: a process that acquires it and finds a mark knows that the refresh of that
    mark was never finished.

    A file that cannot be read is left as it is, and `TokenFileError` names it: it may hold the only copy of a
    registration that cannot be obtained again.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """
        Args:
            path: The file. It and its directory are created at the first write. A symbolic link is followed.
        """
        self.path = Path(os.path.realpath(os.path.expanduser(path)))
        self._lock = FileLock(self.path.with_name(f"{self.path.name}.lock"))

    @asynccontextmanager
    async def lock(self) -> AsyncIterator[None]:
        """Keep other processes from refreshing and writing. The task that holds it may enter again.

        Raises:
            TokenFileError: the lock's file cannot be made.
            CredentialsUnavailable: another process has held it for `LOCK_PATIENCE` seconds.
        """
        failed: Exception
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            held = self._lock.held(patience=LOCK_PATIENCE)
            await held.__aenter__()
        except TimeoutError:
            failed = CredentialsUnavailable(
                f"{self.path} has been locked for {LOCK_PATIENCE:g} s by {self.holder() or 'another process'}"
            )
        except OSError as error:
            failed = TokenFileError(_hint(self._lock.path, "cannot be made or locked", error))
        else:
            try:
                yield
            finally:
                await held.__aexit__(None, None, None)
            return
        raise failed

    def holder(self) -> str | None:
        """Which process holds the lock, in words; None if that is not known."""
        return self._lock.holder()

    async def load(self) -> TokenRecord:
        """The record in the file.

        Raises:
            TokenFileError: the file cannot be read.
        """
        return self._record(await to_thread.run_sync(self._look))

    async def replace(self, record: TokenRecord) -> bool:
        """Write `record`, if the file holds the generation before it. It is on the disk when this returns.

        Raises:
            TokenFileError: the file cannot be read.
            CredentialsUnavailable: it cannot be written now.
        """
        async with self.lock():
            return await to_thread.run_sync(self._replace, record)

    def _look(self) -> dict[str, Any]:
        if any(self._left()):
            # A writer's, who holds the lock, or left by one that was killed, with tokens in it.
            with suppress(OSError), self._lock.tried() as free:
                if free:
                    self._sweep()
        return self._read()

    def _replace(self, record: TokenRecord) -> bool:
        # Writers hold the lock: a temporary file that is here was left by one that was killed, tokens in it.
        self._sweep()
        data = self._read()
        if self._record(data).generation != record.generation - 1:
            return False
        # What a later version keeps beside the record stays.
        kept = {key: value for key, value in data.items() if key not in TokenRecord.__dataclass_fields__}
        failed: CredentialsUnavailable
        try:
            self._write(kept | record.to_json())
            return True
        except OSError as error:
            failed = CredentialsUnavailable(_hint(self.path, "cannot be written", error))
        raise failed

    def _read(self) -> dict[str, Any]:
        failed: TokenFileError
        try:
            found = os.stat(self.path)
            if not stat.S_ISREG(found.st_mode) or found.st_size > LONGEST_FILE:
                # A directory; a pipe, which would block; a log.
                raise TokenFileError(f"{self.path} cannot be read (no regular file, or too long for a token file)")
            return parse_json(self.path.read_bytes())
        except FileNotFoundError:
            return {}
        except OSError as error:
            failed = TokenFileError(_hint(self.path, "cannot be read", error))
        except NotARecord:
            failed = self._damaged()
        raise failed

    def _record(self, data: dict[str, Any]) -> TokenRecord:
        try:
            return TokenRecord.from_json(data)
        except NotARecord:
            pass
        raise self._damaged()

    def _damaged(self) -> TokenFileError:
        return TokenFileError(f"{self.path} is not a token file, or damaged: restore it, or move it away")

    def _sweep(self) -> None:
        for left in self._left():
            with suppress(OSError):
                left.unlink()

    def _left(self) -> Iterator[Path]:
        return self.path.parent.glob(f".{glob.escape(self.path.name)}.*.tmp")

    def _write(self, data: dict[str, Any]) -> None:
        # mkstemp makes files that only their owner can read.
        descriptor, temporary = tempfile.mkstemp(dir=self.path.parent, prefix=f".{self.path.name}.", suffix=".tmp")
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                json.dump(data, file, indent=2)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, self.path)
        except BaseException:
            with suppress(OSError):
                os.unlink(temporary)
            raise
        _sync_directory(self.path.parent)

    def __repr__(self) -> str:
        return f"<FileTokenStorage {self.path}>"


def _hint(path: Path, what: str, error: OSError) -> str:
    return f"{path} {what} ({error.strerror or type(error).__name__})"


def _sync_directory(path: Path) -> None:
    """Make the new name survive a power cut, if the system supports it."""
    with suppress(OSError):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
