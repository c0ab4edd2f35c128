"""The manager for programs without an event loop: every method is a plain function that any thread can call."""

from mcpconn.sync.catalog import SyncCatalog
from mcpconn.sync.connection import SyncConnection
from mcpconn.sync.manager import SyncManager

__all__ = ["SyncCatalog", "SyncConnection", "SyncManager"]
