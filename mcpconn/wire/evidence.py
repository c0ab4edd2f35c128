"""Converts an exception from the SDK to evidence, using the observations of the wire layer."""

from __future__ import annotations

from mcp import MCPError

from mcpconn.core.attempt import Attempt
from mcpconn.core.failures import Evidence
from mcpconn.sdk.client import made_by_dispatcher
from mcpconn.wire.watch import Watch


def evidence_of(error: BaseException, attempt: Attempt, watch: Watch) -> Evidence:
    """The observations of the wire layer come first, then the JSON-RPC error, then the exception itself."""
    # The transport observed the failure; the SDK's exception only stands for it.
    if attempt.failed:
        return attempt.evidence()
    if isinstance(error, MCPError):
        if attempt.from_wire is None:
            attempt.code, attempt.message = error.code, error.message
            attempt.from_wire = _received(error, attempt, watch)
            if not attempt.from_wire:
                # The error was created locally because there was no answer: the HTTP exchange so far is not its cause.
                attempt.http_status = attempt.content_type = None
        # The SDK says "Connection closed". The watch knows the reason.
        if watch.ended and attempt.from_wire is False and watch.reason is not None:
            attempt.code, attempt.message = None, None
            attempt.exception = watch.reason
        return attempt.evidence()
    attempt.exception = error
    # A local exception was raised after the answer or before the request: the HTTP exchange is not its cause.
    attempt.http_status = attempt.content_type = None
    return attempt.evidence()


def _received(error: MCPError, attempt: Attempt, watch: Watch) -> bool:
    """Whether a JSON-RPC error that is not in the record nevertheless came from the server.

    Errors that pass a stream are in the record. The others are those of the caller's callback, raised after the server
    has answered, and, if there are no streams, those of a server in this process.
    """
    return attempt.answered or not (watch.passes or made_by_dispatcher(error))
