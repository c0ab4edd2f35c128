"""The manager for programs without an event loop: every method a plain function, callable from any thread."""

from mcpconn.sync.catalog import SyncCatalog
from mcpconn.sync.connection import SyncConnection
from mcpconn.sync.manager import SyncManager

__all__ = ["SyncCatalog", "SyncConnection", "SyncManager"]
