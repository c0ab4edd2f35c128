"""Notifications that wait for a client: until it listens again, or until it has read those before them."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

PENDING = 256
"""Notifications kept for one client; the oldest are dropped."""
PENDING_SIZE = 1024 * 1024
"""Characters of them in all: one of the largest events that the SDK's client takes."""


class Pending:
    """What waits for one client, the oldest first."""

    def __init__(self) -> None:
        self._entries: OrderedDict[tuple[str, str], tuple[dict[str, Any], int]] = OrderedDict()
        self._size = 0
        self._count = 0

    def __len__(self) -> int:
        return len(self._entries)

    def put(self, method: str, params: Mapping[str, Any]) -> None:
        """Keep a notification. Of log messages each one is kept; of everything else the latest says it all."""
        self._count += 1
        which = str(self._count) if "level" in params else str(params.get("uri") or params.get("elicitationId") or "")
        _, before = self._entries.get((method, which), (None, 0))
        size = len(str(params))
        self._entries[method, which] = ({**params}, size)
        self._size += size - before
        # The one that has just come stays, however large it is.
        while len(self._entries) > PENDING or (self._size > PENDING_SIZE and len(self._entries) > 1):
            self.take()

    def take(self) -> tuple[str, dict[str, Any]]:
        """The method and the parameters of the oldest, which does not wait any more."""
        (method, _), (params, size) = self._entries.popitem(last=False)
        self._size -= size
        return method, params
