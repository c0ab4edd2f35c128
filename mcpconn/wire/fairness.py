"""Limits how much of a response is processed before other tasks run, and refuses responses that are too costly.

A body in chunks of one byte is an event of the parser for each byte, some 20 µs. Read without a pause, 64 KiB of them
block the loop, including all deadlines and other connections, for a quarter of a second, and a large answer blocks it
for minutes.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import httpx2

STEPS = 32
"""Events (or reads) between two yields to the loop: less than a millisecond of work."""
TINY = 16
"""Bytes below which a chunk is mostly framing. Go's net/http counts in the same way: 16 bytes of overhead are
acceptable."""
TINY_LIMIT = 10_000
"""Tiny chunks of one response that are read at once: a quarter of a second of work."""
TINY_PER_SECOND = 100.0
"""Tiny chunks a second that are always read: keep-alive comments of an event stream that lives for days."""


class Turns:
    """Counts the steps after which a reader yields to the loop. Waiting for the network is also a yield."""

    __slots__ = ("_left",)

    def __init__(self) -> None:
        self._left = STEPS

    def waited(self) -> None:
        """The loop has just run other tasks."""
        self._left = STEPS

    def over(self) -> bool:
        """Count one event or read without waiting. Returns whether other tasks should run now.

        The reader then awaits a checkpoint, where the deadline of its call is seen as well.
        """
        self._left -= 1
        if self._left > 0:
            return False
        self._left = STEPS
        return True


class TinyChunks:
    """Refuses a response that consists of framing."""

    __slots__ = ("_now", "_since", "_tiny")

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        """
        Args:
            now: Seconds.
        """
        self._now = now
        self._tiny = 0.0
        self._since = now()

    def count(self, size: int) -> None:
        """A chunk of so many bytes was read.

        Raises:
            httpx2.DecodingError: There were too many tiny ones.
        """
        # Chunks of a useful size cost nothing to count.
        if size >= TINY:
            return
        self._tiny += 1
        if self._tiny > TINY_LIMIT:
            # A leaky bucket; the leaked amount is computed only when it is full.
            now = self._now()
            self._tiny -= min((now - self._since) * TINY_PER_SECOND, TINY_LIMIT)
            self._since = now
            if self._tiny > TINY_LIMIT:
                raise httpx2.DecodingError(f"a response in more than {TINY_LIMIT} chunks of less than {TINY} bytes")
