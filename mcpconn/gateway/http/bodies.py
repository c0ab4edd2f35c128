"""Request bodies, read to their end within limits: of each, of all together, and of time."""

from __future__ import annotations

import anyio
from starlette.types import Receive, Scope

from mcpconn.gateway.http.asgi import header

BODY_LIMIT = 4 * 1024 * 1024
"""Bytes of one body, the SDK's own default."""
TOTAL_LIMIT = 256 * 1024 * 1024
"""Bytes of all bodies that are being received at once: 64 of the longest ones."""
DISCARDED = 16 * 1024 * 1024
"""Bytes of a refused body that are read and dropped. If the connection is closed while the client is still sending, the
client gets a reset, and the answer is lost."""
DISCARDING = 5.0
"""Seconds for that."""
PATIENCE = 60.0
"""Seconds for a body to arrive; 4 MiB need 0.6 Mbit/s for that."""


class BodyRefused(Exception):
    """The body is refused."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status
        self.text = text


class Bodies:
    """Reads the bodies of one gateway."""

    def __init__(self, *, limit: int = BODY_LIMIT, total: int = TOTAL_LIMIT, patience: float = PATIENCE) -> None:
        """
        Args:
            limit: Bytes of one body.
            total: Bytes of all that are being received at once.
            patience: Seconds for one body to arrive.
        """
        self._limit = limit
        self._total = total
        self._patience = patience
        self.held = 0
        """Bytes of the bodies that are being received now."""

    async def read(self, scope: Scope, receive: Receive) -> bytes:
        """The whole body of a request.

        Raises:
            BodyRefused: it is too long or too slow, it is compressed, or too many bodies arrive at once. At most the
                limit was kept in memory.
        """
        if (encoding := header(scope, b"content-encoding")) and encoding.strip().lower() != "identity":
            await self._discard(receive)
            raise BodyRefused(415, "The request has a Content-Encoding; send it without")
        declared = header(scope, b"content-length") or ""
        if declared.isdigit() and (len(declared) > 12 or int(declared) > self._limit):
            await self._discard(receive)
            raise self._too_long()
        chunks: list[bytes] = []
        size = 0
        try:
            with anyio.CancelScope(deadline=anyio.current_time() + self._patience):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise BodyRefused(400, "The request ended before its body did")
                    chunk: bytes = message.get("body", b"")
                    if size + len(chunk) > self._limit:
                        chunks.clear()
                        await self._discard(receive)
                        raise self._too_long()
                    if self.held + len(chunk) > self._total:
                        raise BodyRefused(503, "Too many requests are being received")
                    size += len(chunk)
                    self.held += len(chunk)
                    chunks.append(chunk)
                    if not message.get("more_body"):
                        return b"".join(chunks)
            raise BodyRefused(408, f"The request did not arrive within {self._patience:g} s")
        finally:
            self.held -= size

    @staticmethod
    async def _discard(receive: Receive) -> None:
        """Read on, and keep nothing."""
        dropped = 0
        with anyio.move_on_after(DISCARDING):
            while dropped < DISCARDED:
                message = await receive()
                dropped += len(message.get("body", b""))
                if message["type"] == "http.disconnect" or not message.get("more_body"):
                    return

    def _too_long(self) -> BodyRefused:
        return BodyRefused(413, f"The request is larger than {self._limit} bytes")
