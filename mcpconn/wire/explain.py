"""What an exception that came out of the SDK amounts to: evidence, from what the wire has seen."""

from __future__ import annotations

from mcp import MCPError

from mcpconn.core.exchange import Exchange
from mcpconn.core.failures import Evidence
from mcpconn.wire.sdk import made_by_dispatcher
from mcpconn.wire.watch import Watch


def explain(error: BaseException, exchange: Exchange, watch: Watch) -> Evidence:
    """What the wire saw comes first; then the JSON-RPC error; then the exception itself."""
    if exchange.failed:
        return exchange.evidence()
    if isinstance(error, MCPError):
        if exchange.from_wire is None:
            exchange.code, exchange.message = error.code, error.message
            exchange.from_wire = _received(error, exchange, watch)
            if not exchange.from_wire:
                # It was made up here, for lack of an answer: what HTTP said so far is not its cause.
                exchange.http_status = exchange.content_type = None
        if watch.ended and exchange.from_wire is False and watch.reason is not None:
            exchange.code, exchange.message = None, None
            exchange.exception = watch.reason
        return exchange.evidence()
    exchange.exception = error
    # A local exception came after the answer or before the request: what HTTP said is not its cause.
    exchange.http_status = exchange.content_type = None
    return exchange.evidence()


def _received(error: MCPError, exchange: Exchange, watch: Watch) -> bool:
    """Whether a JSON-RPC error that is not in the record came from the server all the same.

    Errors that pass a stream are in the record. What is left are those of a callback of the caller's, raised once
    the server has answered, and, where there are no streams, those of a server in this process.
    """
    return exchange.answered or not (watch.passes or made_by_dispatcher(error))
