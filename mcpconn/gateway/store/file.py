"""A store in a SQLite file, shared by the processes of one host. It survives them all, SIGKILL included.

Write-ahead logging lets readers and one writer work at once; `synchronous=FULL` makes a write durable before it is
answered, because the ledger is worth nothing without that (https://www.sqlite.org/pragma.html#pragma_synchronous).
Logs and hints have a connection of their own with `synchronous=NORMAL`: they outlive a SIGKILL, because the pages are
the kernel's by then, and only a power failure may take the last of them; they are written many times a second.
SQLite blocks, so each operation runs in a worker thread; one lock for each connection keeps them in order.

SQLite tells other processes nothing, so a subscriber reads the channel's log every `LOOK` seconds.
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
"""Seconds between looks for another process's hints."""
HINT_TTL = 60.0
"""Seconds for which a hint can be read; a subscriber looks far more often."""
HINTS = 256
"""Hints of one channel that are kept."""
SWEEP_EVERY = 60.0
"""Seconds between deletions of what has expired."""

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
            path: The file; made if it is missing, in a directory that only its owner can enter.
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
            # Made here with its mode: SQLite would make it readable for all, and its journals take the mode over.
            os.close(os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600))
            self._database = self._connect("FULL")
            self._database.executescript(_SCHEMA)
            self._logs = self._connect("NORMAL")
        except (OSError, sqlite3.Error) as error:
            # A file that is no database can be opened, and is refused only when it is read.
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
            # One transaction for all: the turn of a worker thread and the commit cost more than the rows.
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
        # Not abandoned on cancellation: the write happens or not, and the caller must not go on before it is known.
        return await anyio.to_thread.run_sync(self._locked, operation, writes, logs)

    def _locked(self, operation: Callable[[sqlite3.Connection], T], writes: bool, logs: bool) -> T:
        database = self._logs if logs else self._database
        with self._log_lock if logs else self._lock:
            try:
                if not writes:
                    return operation(database)
                # IMMEDIATE takes the write lock at once: a transaction that reads first and then writes could find
                # that another process wrote in between, and would have to be run again.
                database.execute("BEGIN IMMEDIATE")
                try:
                    if not logs:
                        self._sweep()
                    result = operation(database)
                    database.execute("COMMIT")
                except BaseException:
                    # Also if the commit itself failed (a full disk, a busy file): the connection must not stay in a
                    # transaction, or every later operation on it would fail.
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
        # A log's number must not begin again while a reader may still hold an old one, so the log goes as a whole.
        self._database.execute(
            'DELETE FROM entries WHERE ("group", name) IN (SELECT "group", name FROM logs WHERE expires <= ?)', (now,)
        )
        # Of a channel the number stays: its readers remember how far they have read, for as long as they like.
        self._database.execute("DELETE FROM logs WHERE expires <= ? AND \"group\" != 'hints'", (now,))
