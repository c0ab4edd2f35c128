"""A store in a SQLite file, shared by the processes of one host. It survives the end of all of them, including by
SIGKILL.

Write-ahead logging lets readers and one writer work at once; `synchronous=FULL` makes a write durable before it is
answered, because the ledger depends on it (https://www.sqlite.org/pragma.html#pragma_synchronous).
Logs and hints are written many times a second, so they use a second connection with `synchronous=NORMAL`: they survive
a SIGKILL, because the kernel already has the pages; a power failure may lose the last ones. SQLite blocks, so each
operation runs in a worker thread; a lock for each connection keeps them in order.

SQLite does not notify other processes, so a subscriber reads the channel's log every `LOOK` seconds.
"""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import TypeVar

import anyio
import anyio.to_thread

from mcpconn.errors import ConfigError
from mcpconn.gateway.store.base import Key, Record, StoreFull, StoreUnavailable
from mcpconn.redis.standing import FINE

T = TypeVar("T")

BUSY = 5.0
"""Seconds to wait while another process writes. A write takes milliseconds; longer means that the disk is stuck."""
LOOK = 0.25
"""Seconds between checks for hints of other processes."""
HINT_TTL = 60.0
"""Seconds for which a hint can be read; a subscriber checks far more often."""
HINTS = 256
"""Maximum number of hints kept for one channel."""
SWEEP_EVERY = 60.0
"""Seconds between deletions of expired rows."""

_SCHEMA = """
CREATE TABLE IF NOT EXISTS records (
    "group" TEXT NOT NULL, name TEXT NOT NULL, value BLOB NOT NULL, version INTEGER NOT NULL, expires REAL NOT NULL,
    PRIMARY KEY ("group", name)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS records_expire ON records (expires);
CREATE TABLE IF NOT EXISTS versions (only INTEGER PRIMARY KEY CHECK (only = 1), last INTEGER NOT NULL);
INSERT OR IGNORE INTO versions VALUES (1, 0);
CREATE TABLE IF NOT EXISTS logs (
    "group" TEXT NOT NULL, name TEXT NOT NULL, last INTEGER NOT NULL, expires REAL NOT NULL,
    PRIMARY KEY ("group", name)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS entries (
    "group" TEXT NOT NULL, name TEXT NOT NULL, number INTEGER NOT NULL, value BLOB NOT NULL,
    PRIMARY KEY ("group", name, number)
) WITHOUT ROWID;
"""


class FileStore:
    """Records and logs in one SQLite file."""

    standing = FINE

    def __init__(self, path: str | os.PathLike[str], *, wall: Callable[[], float] = time.time) -> None:
        """
        Args:
            path: The file; created if it is missing, in a directory that only its owner can enter.
            wall: Seconds since 1970, the same for all processes that share the file.

        Raises:
            ConfigError: the file cannot be used.
        """
        self.path = Path(path)
        self._wall = wall
        self._lock, self._log_lock = threading.Lock(), threading.Lock()
        self._swept = 0.0
        self._opened: list[sqlite3.Connection] = []
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            # Created here with its mode, because SQLite would make it world-readable. Its journals inherit the mode.
            os.close(os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600))
            self._database = self._connect("FULL")
            self._database.executescript(_SCHEMA)
            self._logs = self._connect("NORMAL")
        except (OSError, sqlite3.Error) as error:
            # SQLite opens a file that is not a database, and reports an error only when it reads it.
            self._close()
            raise ConfigError(f"{self.path}: the store cannot be opened: {error}", key="store") from None

    def _connect(self, synchronous: str) -> sqlite3.Connection:
        database = sqlite3.connect(self.path, timeout=BUSY, isolation_level=None, check_same_thread=False)
        self._opened.append(database)
        database.execute("PRAGMA journal_mode=WAL")
        database.execute(f"PRAGMA synchronous={synchronous}")
        return database

    async def get(self, key: Key) -> Record | None:
        def read(database: sqlite3.Connection) -> Record | None:
            row = database.execute(
                'SELECT value, version FROM records WHERE "group" = ? AND name = ? AND expires > ?',
                (*key, self._wall()),
            ).fetchone()
            return Record(*row) if row is not None else None

        return await self._run(read, writes=False)

    async def put(self, key: Key, value: bytes, *, ttl: float) -> int:
        return await self._run(lambda database: self._write(database, key, value, ttl))

    async def add(self, key: Key, value: bytes, *, ttl: float, limit: int | None = None) -> int | None:
        def write(database: sqlite3.Connection) -> int | None:
            if self._version_of(database, key) is not None:
                return None
            if limit is not None:
                query = 'SELECT count(*) FROM records WHERE "group" = ? AND expires > ?'
                (count,) = database.execute(query, (key.group, self._wall())).fetchone()
                if count >= limit:
                    raise StoreFull(f"{limit} records are kept already")
            return self._write(database, key, value, ttl)

        return await self._run(write)

    async def swap(self, key: Key, version: int, value: bytes, *, ttl: float) -> int | None:
        def write(database: sqlite3.Connection) -> int | None:
            if self._version_of(database, key) != version:
                return None
            return self._write(database, key, value, ttl)

        return await self._run(write)

    async def delete(self, key: Key, *, version: int | None = None) -> bool:
        def write(database: sqlite3.Connection) -> bool:
            present = self._version_of(database, key)
            if present is None or version not in (None, present):
                return False
            database.execute('DELETE FROM records WHERE "group" = ? AND name = ?', key)
            return True

        return await self._run(write)

    async def append(self, key: Key, value: bytes, *, ttl: float, keep: int) -> int:
        return await self._run(lambda database: self._log(database, key, [value], ttl, keep), logs=True)

    async def append_all(self, logs: Mapping[Key, Sequence[bytes]], *, ttl: float, keep: int) -> None:
        def write(database: sqlite3.Connection) -> None:
            # One transaction for all logs, because the switch to a worker thread and the commit cost more than the
            # rows.
            for key, values in logs.items():
                self._log(database, key, values, ttl, keep)

        await self._run(write, logs=True)

    async def entries(self, key: Key, *, after: int) -> list[tuple[int, bytes]]:
        def read(database: sqlite3.Connection) -> list[tuple[int, bytes]]:
            rows = database.execute(
                'SELECT number, value FROM entries JOIN logs USING ("group", name) '
                'WHERE "group" = ? AND name = ? AND number > ? AND expires > ? ORDER BY number',
                (*key, after, self._wall()),
            )
            return [(number, value) for number, value in rows]

        return await self._run(read, writes=False, logs=True)

    async def publish(self, channel: str, hint: bytes) -> None:
        await self.append(Key("hints", channel), hint, ttl=HINT_TTL, keep=HINTS)

    def subscribe(self, channel: str) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        @asynccontextmanager
        async def subscription() -> AsyncIterator[AsyncIterator[bytes]]:
            key = Key("hints", channel)
            seen = await self.entries(key, after=0)
            yield self._hints(key, seen[-1][0] if seen else 0)

        return subscription()

    async def _hints(self, key: Key, after: int) -> AsyncIterator[bytes]:
        while True:
            for number, hint in await self.entries(key, after=after):
                after = number
                yield hint
            await anyio.sleep(LOOK)

    async def aclose(self) -> None:
        with self._lock, self._log_lock:
            self._close()

    def _close(self) -> None:
        for database in self._opened:
            database.close()

    async def _run(self, operation: Callable[[sqlite3.Connection], T], *, writes: bool = True, logs: bool = False) -> T:
        # Not abandoned on cancellation, because the caller must not continue before it is known whether the write
        # happened.
        return await anyio.to_thread.run_sync(self._locked, operation, writes, logs)

    def _locked(self, operation: Callable[[sqlite3.Connection], T], writes: bool, logs: bool) -> T:
        database = self._logs if logs else self._database
        with self._log_lock if logs else self._lock:
            try:
                if not writes:
                    return operation(database)
                # IMMEDIATE takes the write lock at once: if a transaction read first and then wrote, another process
                # could write in between, and it would have to be retried.
                database.execute("BEGIN IMMEDIATE")
                try:
                    if not logs:
                        self._sweep()
                    result = operation(database)
                    database.execute("COMMIT")
                except BaseException:
                    # This is also needed if the commit itself failed (a full disk, a busy file): if the connection
                    # stayed in a transaction, every later operation on it would fail.
                    if database.in_transaction:
                        database.execute("ROLLBACK")
                    raise
                return result
            except sqlite3.Error as error:
                raise StoreUnavailable(f"the store {self.path} cannot be used now: {error}") from None

    def _write(self, database: sqlite3.Connection, key: Key, value: bytes, ttl: float) -> int:
        (version,) = database.execute("UPDATE versions SET last = last + 1 RETURNING last").fetchone()
        database.execute(
            "INSERT OR REPLACE INTO records VALUES (?, ?, ?, ?, ?)", (*key, value, version, self._wall() + ttl)
        )
        return int(version)

    def _log(self, database: sqlite3.Connection, key: Key, values: Sequence[bytes], ttl: float, keep: int) -> int:
        """Append entries to a log. Returns the number of the last."""
        many = len(values)
        (last,) = database.execute(
            'INSERT INTO logs VALUES (?, ?, ?, ?) ON CONFLICT ("group", name) '
            "DO UPDATE SET last = last + excluded.last, expires = excluded.expires RETURNING last",
            (*key, many, self._wall() + ttl),
        ).fetchone()
        rows = [(*key, number, value) for number, value in enumerate(values, start=last - many + 1)]
        database.executemany("INSERT INTO entries VALUES (?, ?, ?, ?)", rows[-keep:])
        database.execute('DELETE FROM entries WHERE "group" = ? AND name = ? AND number <= ?', (*key, last - keep))
        return int(last)

    def _version_of(self, database: sqlite3.Connection, key: Key) -> int | None:
        query = 'SELECT version FROM records WHERE "group" = ? AND name = ? AND expires > ?'
        row = database.execute(query, (*key, self._wall())).fetchone()
        return int(row[0]) if row is not None else None

    def _sweep(self) -> None:
        now = self._wall()
        if now - self._swept < SWEEP_EVERY:
            return
        self._swept = now
        self._database.execute("DELETE FROM records WHERE expires <= ?", (now,))
        # A log's numbers must not restart while a reader may still hold an old one, so a log is deleted as a whole.
        self._database.execute(
            'DELETE FROM entries WHERE ("group", name) IN (SELECT "group", name FROM logs WHERE expires <= ?)', (now,)
        )
        # A channel keeps its last number, because subscribers remember how far they have read, without a time limit.
        self._database.execute("DELETE FROM logs WHERE expires <= ? AND \"group\" != 'hints'", (now,))
