"""Tokens that several programs share through a database."""

import json
import sqlite3
from contextlib import closing

from anyio import to_thread

from mcpconn.auth import StoredTokens, TokenRecord


# --8<-- [start:store]
class SqliteTokens(StoredTokens):
    """One row for each server and user; its generation is what is compared."""

    def __init__(self, path: str, key: str) -> None:
        self._path = path
        self._key = key

    async def load(self) -> TokenRecord:
        """The row's record; an empty one where there is no row."""
        return await to_thread.run_sync(self._load)

    async def replace(self, record: TokenRecord) -> bool:
        """Write `record` if the row still holds the generation before it."""
        return await to_thread.run_sync(self._replace, record)

    def _load(self) -> TokenRecord:
        with closing(self._open()) as database:
            row = database.execute(
                "SELECT record FROM tokens WHERE key = ?", [self._key]
            ).fetchone()
        return TokenRecord.from_json(json.loads(row[0])) if row else TokenRecord()

    def _replace(self, record: TokenRecord) -> bool:
        new = {
            "key": self._key,
            "generation": record.generation,
            "before": record.generation - 1,
            "record": json.dumps(record.to_json()),
        }
        with closing(self._open()) as database, database:
            if record.generation == 1:
                done = database.execute(
                    "INSERT OR IGNORE INTO tokens VALUES (:key, :generation, :record)",
                    new,
                )
            else:
                done = database.execute(
                    "UPDATE tokens SET generation = :generation, record = :record "
                    "WHERE key = :key AND generation = :before",
                    new,
                )
        return done.rowcount == 1

    def _open(self) -> sqlite3.Connection:
        database = sqlite3.connect(self._path)
        database.execute(
            "CREATE TABLE IF NOT EXISTS tokens"
            " (key TEXT PRIMARY KEY, generation INTEGER, record TEXT)"
        )
        return database


# --8<-- [end:store]
