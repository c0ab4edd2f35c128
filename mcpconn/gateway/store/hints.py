"""Hints inside one process: what a store hands to the subscribers that this process has."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream

KEPT = 256
"""Hints kept for one slow subscriber; the oldest are dropped, because the next one says "look again" as well."""


class Hints:
    """Subscribers by channel."""

    def __init__(self) -> None:
        self._readers: dict[str, dict[MemoryObjectSendStream[bytes], MemoryObjectReceiveStream[bytes]]] = {}

    def give(self, channel: str, hint: bytes) -> None:
        """Hand a hint to each subscriber, without waiting for any."""
        for sender, reader in self._readers.get(channel, {}).items():
            if sender.statistics().current_buffer_used >= KEPT:
                # A receiver that waits would have emptied the buffer, so this one never blocks.
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
