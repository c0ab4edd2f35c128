"""Describes a call that was not answered: a text for models, `_meta` for programs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mcp import MCPError
from mcp_types import INTERNAL_ERROR, ErrorData

from mcpconn.errors import CallFailed
from mcpconn.gateway.rewrite import OURS, Json
from mcpconn.handlers.wording import problem
from mcpconn.keys import OUTCOME as OUTCOME
from mcpconn.keys import RETRY_IN as RETRY_IN

CALL_ID = "mcpconn/call"
"""Key in a result's `_meta` for the ledger's id of a call with a key."""


EARLIER = "An earlier request for the same call may have run it."
LIST_NOT_SERVED = "The gateway could not list its tools now. Ask for the list again in some seconds."
"""The error of a tools/list. It has no outcome: the SDK's client lists the tools within `call_tool`, after a call that
has run, and raises the error of the list from there. An outcome would be taken for that of the call."""


def tool_error(text: str, outcome: str, meta: Mapping[str, Any]) -> Json:
    """A tool's result that is an error."""
    return {"content": [{"type": "text", "text": text}], "isError": True, "_meta": {**meta, OUTCOME: outcome}}


def unanswered(error: CallFailed, server: str, meta: Mapping[str, Any]) -> Json:
    """The result of a tool call that failed because of the connection."""
    said = problem(error, server=server, state=error.state.value, runs=True, redact=str)
    extra: Json = dict(meta)
    if error.retry_in is not None:
        extra[RETRY_IN] = round(error.retry_in, 1)
    return tool_error(said.text, error.outcome, extra)


def refused(error: MCPError) -> MCPError:
    """An error as a client sees it.

    A connection's failure carries its outcome. An application's error loses what its server may not say.
    """
    if isinstance(error, CallFailed):
        data: Json = {OUTCOME: error.outcome}
        if error.retry_in is not None:
            data[RETRY_IN] = round(error.retry_in, 1)
        # -32603: the codes of a connection's failures mean something else to a client, such as a lost session.
        return MCPError(INTERNAL_ERROR, str(error), data)
    said = error.error.data
    if isinstance(said, Mapping):
        said = {key: value for key, value in said.items() if not str(key).startswith(OURS)}
    return MCPError.from_error_data(ErrorData(code=error.error.code, message=error.error.message, data=said))
