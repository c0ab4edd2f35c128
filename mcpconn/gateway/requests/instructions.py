"""The instructions of a view's servers, in one text."""

from __future__ import annotations

from collections.abc import Iterable

from mcpconn.connection import Connection
from mcpconn.core.states import State
from mcpconn.errors import CallFailed


def joined(connections: Iterable[Connection], *, alone: bool) -> str | None:
    """The instructions of the servers that are connected, each under its name.

    Args:
        connections: To the servers of a view.
        alone: The view has one server: its own text is enough.
    """
    said = {}
    for connection in connections:
        try:
            text = connection.instructions if connection.state is State.READY else None
        except CallFailed:
            text = None
        if text:
            said[connection.name] = text
    if alone:
        return next(iter(said.values()), None)
    return "\n\n".join(f"# {name}\n\n{text}" for name, text in said.items()) or None
