"""What is still running when the time of a gateway's process is over gets an answer, and not a cut connection.

A call that was not handed to its server is `not_run`; any other one is `unknown`, because it may have run. After that
new requests are refused with 503 and `Retry-After`: their clients find the next process.

One kind of call is left alone: a call with a key whose client says that it repeats (`mcpconn.Connection` does). Its
client sees a cut stream and sends the call again, with the key. The next process then runs what has not been sent: that
is better than any answer that this process can give.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from contextvars import ContextVar

import anyio
from mcp import MCPError
from mcp.server.context import CallNext, HandlerResult
from mcp_types import INTERNAL_ERROR

from mcpconn.gateway.clients.downstream import Context
from mcpconn.gateway.outcomes import LIST_NOT_SERVED, OUTCOME, tool_error
from mcpconn.gateway.requests.results import dressed
from mcpconn.gateway.rewrite import Json
from mcpconn.keys import FIRST, IDEMPOTENCY_KEY, LEDGER

RETRY_AFTER = 1
"""Seconds after which a refused client may come back. A supervisor starts the next process before the last one ends."""

LISTEN = "subscriptions/listen"
"""A stream of events, which ends cleanly by itself when the process begins to stop."""


class _Sent:
    """Whether the present request was handed to a server's session."""

    def __init__(self) -> None:
        self.sent = False


_SENT: ContextVar[_Sent | None] = ContextVar("mcpconn_gateway_sent", default=None)


def sending() -> None:
    """The present request is about to be handed to its server: from now on it may have run."""
    present = _SENT.get()
    if present is not None:
        present.sent = True


class Stopping:
    """Requests of one view that run. A middleware of the SDK's server."""

    def __init__(self, stamp: Callable[[], Json]) -> None:
        """
        Args:
            stamp: The gateway's `serverInfo`, for results of the modern era.
        """
        self._stamp = stamp
        self._running: set[anyio.CancelScope] = set()
        self.repeating = 0
        """Requests that run and are left alone: their clients repeat them with their keys."""
        self.told: Counter[str] = Counter()
        """Requests that were answered because the process ends, by outcome."""
        self.over = False
        """The time of the process is over."""

    @property
    def running(self) -> int:
        """Requests that run now."""
        return len(self._running) + self.repeating

    def end(self) -> None:
        """Answer everything that runs, now."""
        self.over = True
        for scope in tuple(self._running):
            scope.cancel()

    async def __call__(self, ctx: Context, call_next: CallNext) -> HandlerResult:
        meta = (ctx.params or {}).get("_meta")
        meta = meta if isinstance(meta, Mapping) else {}
        keyed = IDEMPOTENCY_KEY in meta
        if ctx.request_id is None or ctx.method == LISTEN:
            return await call_next(ctx)
        if keyed and (FIRST in meta or LEDGER in meta):
            self.repeating += 1
            try:
                return await call_next(ctx)
            finally:
                self.repeating -= 1
        present, scope = _Sent(), anyio.CancelScope()
        token = _SENT.set(present)
        self._running.add(scope)
        try:
            with scope:
                return await call_next(ctx)
        finally:
            self._running.discard(scope)
            _SENT.reset(token)
        # With a key, another request may have sent the same call.
        return self._told(ctx, "unknown" if present.sent or keyed else "not_run")

    def _told(self, ctx: Context, outcome: str) -> Json:
        self.told[outcome] += 1
        text = "The gateway was stopped before the call was answered. "
        if outcome == "not_run":
            text += "The call was not sent to its server. It can be called again now."
        else:
            text += "It was sent to its server and may have run. Find out before you call again."
        if ctx.method == "tools/call":
            return dressed(ctx, tool_error(text, outcome, {}), self._stamp)
        if ctx.method == "tools/list":
            raise MCPError(INTERNAL_ERROR, LIST_NOT_SERVED)
        raise MCPError(INTERNAL_ERROR, text, {OUTCOME: outcome})
