"""Requests of sessions: what they are, and the answers to those that cannot be served."""

from __future__ import annotations

import json
from collections.abc import Awaitable
from typing import Any

from starlette.types import Scope, Send

from mcpconn.gateway.http.asgi import refuse
from mcpconn.gateway.store import StoreUnavailable


class NoRoom(Exception):
    """As many sessions are open as may be, and all are in use."""


BARE: Scope = {
    "type": "http",
    "method": "DELETE",
    "path": "/",
    "raw_path": b"/",
    "query_string": b"",
    "root_path": "",
    "scheme": "http",
    "headers": [(b"host", b"localhost")],
    "client": None,
    "server": None,
}
"""A request without a client, for actions that the gateway itself takes."""


def initialize_params(body: bytes) -> dict[str, Any] | None:
    """The parameters of an `initialize` request; None if `body` is anything else."""
    if b'"initialize"' not in body:
        return None
    try:
        message = json.loads(body)
        params = message["params"] if message["method"] == "initialize" and "id" in message else None
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    return params if isinstance(params, dict) else None


async def serve(send: Send, serving: Awaitable[None]) -> None:
    """Await the service of a request; answer in its place if it cannot be served now."""
    try:
        await serving
    except NoRoom:
        await refuse(send, 503, "Too many sessions are open", headers=(("retry-after", "5"),))
    except StoreUnavailable:
        # Only before the request was passed on: whether the session was deleted cannot be known now.
        await refuse(send, 503, "The gateway's store cannot be reached; try again", headers=(("retry-after", "1"),))


async def not_found(send: Send) -> None:
    await refuse(send, 404, "Session not found")
