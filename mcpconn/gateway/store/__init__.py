"""Stores for the state that outlives a request: the ledger, deleted ids, sessions' extras, events, tokens.

There is one protocol and there are three implementations: `MemoryStore` ends with the process (embedding, tests),
`FileStore` is a SQLite file that several processes of one host share (the default of `mcpconn serve`), and `RedisStore`
serves replicas on any hosts.
"""

from mcpconn.gateway.store.base import Key, Record, Store, StoreFull, StoreUnavailable
from mcpconn.gateway.store.file import FileStore
from mcpconn.gateway.store.memory import MemoryStore
from mcpconn.gateway.store.redis import RedisStore

__all__ = [
    "FileStore",
    "Key",
    "MemoryStore",
    "Record",
    "RedisStore",
    "Store",
    "StoreFull",
    "StoreUnavailable",
]
