"""What an exception that came out of the SDK amounts to: evidence, from what the wire has seen."""

from __future__ import annotations

from mcp import MCPError

from mcpconn.core.attempt import Attempt
from mcpconn.core.failures import Evidence
from mcpconn.sdk.client import made_by_dispatcher
from mcpconn.wire.watch import Watch


def evidence_of(error: BaseException, attempt: Attempt, watch: Watch) -> Evidence:
    """What the wire saw comes first; then the JSON-RPC error; then the exception itself."""
    # The transport saw it fail. What the SDK made of that is only a stand-in.
    if attempt.failed:
        return attempt.evidence()
    if isinstance(error, MCPError):
        if attempt.from_wire is None:
            attempt.code, attempt.message = error.code, error.message
            attempt.from_wire = _received(error, attempt, watch)
            if not attempt.from_wire:
                # It was made up here, for lack of an answer: what HTTP said so far is not its cause.
                attempt.http_status = attempt.content_type = None
        # The SDK says "Connection closed". Why it was closed is known to the watch.
        if watch.ended and attempt.from_wire is False and watch.reason is not None:
            attempt.code, attempt.message = None, None
            attempt.exception = watch.reason
        return attempt.evidence()
    attempt.exception = error
    # A local exception came after the answer or before the request: what HTTP said is not its cause.
    attempt.http_status = attempt.content_type = None
    return attempt.evidence()


def _received(error: MCPError, attempt: Attempt, watch: Watch) -> bool:
    """Whether a JSON-RPC error that is not in the record came from the server all the same.

    Errors that pass a stream are in the record. What is left are those of a callback of the caller's, raised once
    the server has answered, and, where there are no streams, those of a server in this process.
    """
    return attempt.answered or not (watch.passes or made_by_dispatcher(error))
