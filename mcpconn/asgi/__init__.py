"""A page, data and metrics of a running host, as an ASGI application that mounts anywhere.

    app.mount("/connections", status_app(manager))

Starlette comes with mcp. `/metrics` needs the extra `metrics`.
"""

from mcpconn.asgi.access import Access
from mcpconn.asgi.app import status_app

__all__ = ["Access", "status_app"]
