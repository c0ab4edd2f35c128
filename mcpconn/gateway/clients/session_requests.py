"""Requests of sessions: what they are, and the answers to those that cannot be served."""

from __future__ import annotations

import json
from collections.abc import Awaitable
from typing import Any

from starlette.types import Scope, Send

from mcpconn.gateway.http.asgi import refuse
from mcpconn.gateway.store import StoreUnavailable

NAMED = 64 * 1024
"""Maximum size in bytes of a body that is parsed here for its id; the handler parses it again."""


class BadId(Exception):
    """The id of a request is no text and no integer: nothing could answer it, and the SDK sees a notification."""


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


def named(body: bytes) -> tuple[Any, Any]:
    """The id and the method of the request in a body, as far as it is one.

    Raises:
        BadId: it has an id that no request may have.
    """
    if not body or len(body) > NAMED:
        return None, None
    try:
        message = json.loads(body)
    except (ValueError, RecursionError):
        return None, None
    if not isinstance(message, dict):
        return None, None
    request_id, method = message.get("id"), message.get("method")
    if "id" in message and method is not None and type(request_id) not in (int, str):
        raise BadId
    return request_id, method


async def serve(send: Send, serving: Awaitable[None]) -> None:
    """Await the service of a request; answer in its place if it cannot be served now."""
    try:
        await serving
    except BadId:
        await refuse(send, 400, "The id of a request has to be a string or an integer; nothing was run")
    except NoRoom:
        await refuse(send, 503, "Too many sessions are open", headers=(("retry-after", "5"),))
    except StoreUnavailable:
        # Only before the request was passed on: whether the session was deleted cannot be known now.
        await refuse(send, 503, "The gateway's store cannot be reached; try again", headers=(("retry-after", "1"),))


async def not_found(send: Send) -> None:
    await refuse(send, 404, "Session not found")
