"""Hints inside one process: a store passes them to the subscribers in this process."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream

KEPT = 256
"""Maximum number of hints buffered for one subscriber; the oldest are dropped, because every hint says "look again"."""


class Hints:
    """Subscribers by channel."""

    def __init__(self) -> None:
        self._readers: dict[str, dict[MemoryObjectSendStream[bytes], MemoryObjectReceiveStream[bytes]]] = {}

    def give(self, channel: str, hint: bytes) -> None:
        """Pass a hint to each subscriber without waiting."""
        for sender, reader in self._readers.get(channel, {}).items():
            if sender.statistics().current_buffer_used >= KEPT:
                # If a receiver were waiting, the buffer would be empty, so this never blocks.
                reader.receive_nowait()
            sender.send_nowait(hint)

    @asynccontextmanager
    async def subscribe(self, channel: str) -> AsyncIterator[AsyncIterator[bytes]]:
        """The hints of a channel, from now on."""
        sender, reader = anyio.create_memory_object_stream[bytes](math.inf)
        readers = self._readers.setdefault(channel, {})
        readers[sender] = reader
        try:
            with sender, reader:
                yield reader
        finally:
            del readers[sender]
            if not readers:
                self._readers.pop(channel, None)
