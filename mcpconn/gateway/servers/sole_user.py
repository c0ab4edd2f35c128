"""Whether a single client has used a shared child, so that all of the child's messages concern only that client.

Over stdio (legacy era) a log message does not say which request it belongs to. It may quote the arguments of any call
that the child has had since its start, so it is sent to a client only as long as no other client has used the child.
"""

from __future__ import annotations

from weakref import WeakKeyDictionary

from mcpconn.connection import Connection
from mcpconn.gateway.clients.downstream import Downstream


class SoleUsers:
    """The clients that have used the current session of each shared connection, up to the second one."""

    def __init__(self) -> None:
        self._seen: WeakKeyDictionary[Connection, tuple[int, frozenset[str]]] = WeakKeyDictionary()

    def note(self, connection: Connection, client: Downstream) -> None:
        """A client has a request on the connection."""
        known = self._of(connection)
        if len(known) < 2:
            self._seen[connection] = connection.epoch, known | {identity(client)}

    def alone(self, connection: Connection) -> str | None:
        """The only client that has used the current session, as `identity` names it; None if there is no such."""
        known = self._of(connection)
        return next(iter(known)) if len(known) == 1 else None

    def _of(self, connection: Connection) -> frozenset[str]:
        epoch, known = self._seen.get(connection, (connection.epoch, frozenset[str]()))
        # Another epoch is another process, which knows nothing of what the last one was asked.
        return known if epoch == connection.epoch else frozenset()


def identity(client: Downstream) -> str:
    """Tells clients apart: a session by its id; modern clients, which keep none, by their principal."""
    return client.sid if client.sid is not None else f"principal {client.principal.digest}"
