"""Hear of a resource's updates, on a connection that another part made."""

from collections.abc import Callable
from typing import Any

import mcp_types as types

import mcpconn


# --8<-- [start:listen]
async def watch(
    connection: mcpconn.Connection, uri: str, tell: Callable[[str], Any]
) -> Callable[[], None]:
    """Call `tell` at each update (legacy era). Returns a function that ends it."""

    def heard(notification: types.ServerNotification) -> None:
        if isinstance(notification, types.ResourceUpdatedNotification):
            tell(notification.params.uri)

    stop = connection.on_notification(heard)
    await connection.watch_resource(uri)
    return stop


# --8<-- [end:listen]
