"""A connection for each user: opened when first asked for, closed when idle."""

from typing import Any

import mcpconn

IDLE = 600.0


async def inbox(manager: mcpconn.Manager, user_id: str, entry: Any) -> Any:
    # An opaque id: it is in every log line, error and metric of the connection.
    connection = manager.get_or_add(user_id, entry, ttl=IDLE)
    return await connection.call_tool("add", {"a": 1, "b": 2})


async def log_out(manager: mcpconn.Manager, user_id: str) -> None:
    if user_id in manager:
        # Awaited, it returns when the user's sockets and child process are gone.
        await manager.remove(user_id)
