"""Requests, as an ASGI application sees them."""

from __future__ import annotations

from typing import Any

from starlette.types import Scope


def http_scope(method: str, path: str, headers: Any) -> Scope:
    """The scope of a request."""
    return {
        "type": "http",
        "method": method,
        "path": path,
        "query_string": b"",
        "root_path": "",
        "headers": [(name.lower(), value) for name, value in headers],
        "client": ("127.0.0.1", 1),
    }
