"""Checks once a second whether the replicas that process this replica's requests are still running."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import anyio

from mcpconn.gateway.background import Background
from mcpconn.gateway.fleet.membership import Replica
from mcpconn.gateway.store import StoreUnavailable

LOOK = 1.0
"""Seconds between looks at a lease."""


class Peers:
    """The replicas that requests of ours are with."""

    def __init__(self, group: Background, find: Callable[[str], Awaitable[Replica | None]]) -> None:
        """
        Args:
            group: Runs the looks.
            find: A replica by its name; None if it is gone.
        """
        self._group = group
        self._find = find
        self._waiting: dict[str, set[anyio.CancelScope]] = {}

    @asynccontextmanager
    async def watched(self, name: str) -> AsyncIterator[anyio.CancelScope]:
        """A block that is cancelled when a replica's lease has ended: a replica that is paused closes no connection."""
        scope = anyio.CancelScope()
        waiting = self._waiting.get(name)
        if waiting is None:
            waiting = self._waiting[name] = set()
            self._group.start_soon(self._watch, name)
        waiting.add(scope)
        try:
            with scope:
                yield scope
        finally:
            waiting.discard(scope)

    async def _watch(self, name: str) -> None:
        waiting = self._waiting[name]
        try:
            while waiting:
                await anyio.sleep(LOOK)
                try:
                    gone = bool(waiting) and await self._find(name) is None
                except StoreUnavailable:
                    # It may well run.
                    continue
                if gone:
                    for scope in tuple(waiting):
                        scope.cancel()
                    return
        finally:
            del self._waiting[name]
