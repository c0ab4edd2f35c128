"""One MCP endpoint in front of many servers, with the library's guarantees from end to end.

Needs the extra `gateway` to be served by `mcpconn serve`; `App` itself mounts into any ASGI application.
"""

from mcpconn.gateway.access.hosts import loopback
from mcpconn.gateway.app import App
from mcpconn.gateway.config import Settings
from mcpconn.gateway.store import FileStore, MemoryStore
from mcpconn.gateway.views import View
from mcpconn.seal import KeyRing

__all__ = ["App", "FileStore", "KeyRing", "MemoryStore", "Settings", "View", "loopback"]
