"""Which clients watch which resource on which connection, and what its server was notified of it.

One subscription at the server serves all clients that share a connection. It begins with the first of them and ends
with the last, whichever way that one leaves: by `resources/unsubscribe`, with its session, with its stream of events.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass, field
from typing import Any

import anyio

from mcpconn.connection import Connection
from mcpconn.gateway.principals import Principal


@dataclass(frozen=True)
class Watcher:
    """A client's wish to hear of a resource."""

    token: str
    """The session, or the stream of events, that is told."""
    principal: Principal
    again: Callable[[], Coroutine[Any, Any, None]]
    """Watches again, on another connection, if this one is closed though its client still wants to hear."""


@dataclass(eq=False)
class Watch:
    """A resource of one connection that clients watch."""

    connection: Connection
    uri: str
    """The server's own."""
    watchers: dict[str, Watcher] = field(default_factory=dict)
    """By token."""
    lock: anyio.Lock = field(default_factory=anyio.Lock)
    """Held while the server is told to begin or to end, so that a client's beginning never overtakes another's end."""
    active: bool = False
    """The server was told."""
    over: anyio.Event = field(default_factory=anyio.Event)
    """Set when no client watches any more."""
    done: anyio.Event = field(default_factory=anyio.Event)
    """Set when its server was notified of that."""


class Watches:
    """All watched resources, by connection and URI."""

    def __init__(self) -> None:
        self._all: dict[tuple[Connection, str], Watch] = {}
        # A watch that has ended keeps its place until its server was told.
        self._ending: dict[tuple[Connection, str], Watch] = {}

    def __len__(self) -> int:
        return len(self._all)

    def add(self, connection: Connection, uri: str, watcher: Watcher) -> Watch:
        """A client wants to hear of a resource on this connection."""
        key = connection, uri
        watch = self._all.get(key)
        if watch is None:
            watch = self._all[key] = Watch(connection, uri)
            if (ending := self._ending.get(key)) is not None:
                watch.lock = ending.lock
        watch.watchers[watcher.token] = watcher
        return watch

    def find(self, connection: Connection, uri: str) -> Watch | None:
        """The watch of a resource; None if no client watches it on this connection."""
        return self._all.get((connection, uri))

    def remove(self, watch: Watch, token: str) -> None:
        """A client does not want to hear of it any more."""
        watch.watchers.pop(token, None)
        if not watch.watchers and self._all.get(key := (watch.connection, watch.uri)) is watch:
            del self._all[key]
            self._ending[key] = watch
            watch.over.set()

    def ended(self, watch: Watch) -> None:
        """Its server was notified of the end, or need not be."""
        key = watch.connection, watch.uri
        if self._ending.get(key) is watch:
            del self._ending[key]
        watch.done.set()

    def forget(self, token: str) -> None:
        """A session or a stream has ended."""
        for watch in [each for each in self._all.values() if token in each.watchers]:
            self.remove(watch, token)

    def revoke(self, principal: Principal) -> None:
        """A principal was revoked: nothing is watched for it, and no connection is opened again for its sake."""
        for watch in tuple(self._all.values()):
            for token in [each.token for each in watch.watchers.values() if each.principal == principal]:
                self.remove(watch, token)

    def updated(self, connection: Connection, uri: str) -> Iterator[tuple[str, str]]:
        """Who is to be notified of an update: the token, and the URI that its client watches.

        An update may name a part of what was subscribed to (specification 2025-11-25, ResourceUpdatedNotification), and
        servers that parse URIs add a slash to one that has no path.
        """
        for (watched, of), watch in tuple(self._all.items()):
            if watched is connection and (uri == of or uri.startswith(of.rstrip("/") + "/")):
                yield from ((token, of) for token in tuple(watch.watchers))

    def on(self, connection: Connection) -> bool:
        """Whether anything is watched on a connection."""
        return any(watched is connection for watched, _ in self._all)
