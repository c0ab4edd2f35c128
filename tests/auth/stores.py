"""A token store in memory that several holders share, with the faults of one across a network."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import anyio

from mcpconn.auth import StoredTokens, TokenRecord


class SharedStore(StoredTokens):
    """Implements `TokenStore`, as a server that keeps records does: no lock, and every operation may fail."""

    def __init__(self) -> None:
        self.record = TokenRecord()
        self.history: list[TokenRecord] = []
        """All records that were ever stored."""
        self.before: Callable[[TokenRecord], None] = lambda record: None
        """Called before a record is stored; it may raise, and nothing is stored then."""
        self.after: Callable[[TokenRecord], None] = lambda record: None
        """Called when it is stored; if it raises, the writer does not know that it is."""
        self.pause: Callable[[TokenRecord], Awaitable[None]] | None = None
        """Awaited before a record is compared and stored: the writer is stopped there."""
        self.away = False
        """No operation succeeds."""

    async def load(self) -> TokenRecord:
        """The record."""
        await anyio.lowlevel.checkpoint()
        self._check()
        return self.record

    async def replace(self, record: TokenRecord) -> bool:
        """Compare and set."""
        await anyio.lowlevel.checkpoint()
        self._check()
        if self.pause is not None:
            await self.pause(record)
        if record.generation != self.record.generation + 1:
            return False
        self.before(record)
        self.record = record
        self.history.append(record)
        self.after(record)
        return True

    def lose(self, records: int) -> None:
        """Forget the last writes, as a failover to a replica that lags behind does."""
        del self.history[-records:]
        self.record = self.history[-1]

    def _check(self) -> None:
        if self.away:
            raise ConnectionRefusedError(111, "Connection refused")

    def __repr__(self) -> str:
        return "<SharedStore>"
