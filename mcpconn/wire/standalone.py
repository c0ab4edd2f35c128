"""The standalone event stream of a session: a GET on which the server says what belongs to no request."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import aclosing

import anyio
import httpx2
from mcp.shared.message import SessionMessage
from mcp_types import JSONRPCError, JSONRPCResponse

from mcpconn.core.exchange import Exchange
from mcpconn.wire.events import EventReader
from mcpconn.wire.lens import Refused
from mcpconn.wire.messages import Limits, Unreadable, parse
from mcpconn.wire.responses import close
from mcpconn.wire.watch import Item, Watch

REOPEN_DELAY = 1.0
"""Seconds before it is opened again, where the server names no time. The SDK's figure."""
ATTEMPTS = 2
"""Failures in a row after which it is given up. The SDK's figure."""


class StandaloneStream:
    """Keeps it open for as long as its session lives."""

    def __init__(
        self,
        watch: Watch,
        limits: Limits,
        *,
        deliver: Callable[[Item], Awaitable[None]],
        open: Callable[[bytes | None, Exchange], Awaitable[httpx2.Response]],  # noqa: A002 - what it does
    ) -> None:
        """
        Args:
            watch: Told what its refusal says of the session.
            limits: Of one message.
            deliver: Takes messages for the session.
            open: Asks for the stream, after the event of this id if there is one. Raises what `Lens.note` raises.
        """
        self._watch = watch
        self._limits = limits
        self._deliver = deliver
        self._open = open
        self._last_id: bytes | None = None
        self._delay = REOPEN_DELAY

    async def run(self) -> None:
        """Return when the server offers no such stream."""
        failures = 0
        while failures < ATTEMPTS:
            exchange = Exchange("idle")
            try:
                await self._read(await self._open(self._last_id, exchange))
                failures = 0
            except Refused as refused:
                failures += 1
                if refused.status == 404:
                    # A server without such a stream should say 405, but some say 404: only where the stream was
                    # there before is its absence proof. Otherwise a probe asks.
                    exchange.session_sent = True if self._watch.stream_opened else None
                    if exchange.session_sent is None and exchange.code is None:
                        exchange.message = None
                    self._watch.sign(exchange.evidence())
            except (httpx2.HTTPError, Unreadable):
                failures += 1
            if failures < ATTEMPTS:
                await anyio.sleep(self._delay)

    async def _read(self, response: httpx2.Response) -> None:
        self._watch.stream_opened = True
        reader = EventReader(self._limits.size)
        try:
            async with aclosing(response.aiter_bytes()) as chunks:
                async for chunk in chunks:
                    for event in reader.feed(chunk):
                        self._last_id = event.id or self._last_id
                        if event.retry is not None:
                            self._delay = event.retry / 1000
                        if event.type == "message" and event.data:
                            await self._take(event.data)
        finally:
            await close(response)

    async def _take(self, data: bytes) -> None:
        try:
            message = await parse(data, self._limits)
        except Unreadable as error:
            self._watch.drop(str(error))
            return
        if isinstance(message, (JSONRPCResponse, JSONRPCError)):
            # Specification, transports: no responses on this stream. A forged one would answer another's request.
            self._watch.drop("an answer came on the standalone event stream")
            return
        await self._deliver(SessionMessage(message))
