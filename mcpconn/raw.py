"""Requests that are passed on unchanged: plain JSON in both directions. For gateways and protocol extensions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import mcp_types as types
from mcp import Client
from mcp.shared.dispatcher import ProgressFnT
from mcp_types.version import MODERN_PROTOCOL_VERSIONS
from pydantic import BaseModel, TypeAdapter

from mcpconn.sdk.client import declares, send_unchecked

SAFE_METHODS = frozenset(
    {
        "completion/complete",
        "ping",
        "prompts/get",
        "prompts/list",
        "resources/list",
        "resources/read",
        "resources/templates/list",
        "tasks/get",
        "tasks/list",
        "tasks/result",
        "tasks/update",
        "tools/list",
    }
)
"""Methods that change nothing (specification, server features), so repeating one is harmless."""

_RESULTS: Mapping[str, type[BaseModel]] = {
    "completion/complete": types.CompleteResult,
    "prompts/get": types.GetPromptResult,
    "resources/read": types.ReadResourceResult,
    "tools/call": types.CallToolResult,
}
"""The server's answer, if it does not ask a question first."""

_JSON: TypeAdapter[dict[str, Any]] = TypeAdapter(dict[str, Any])


TASKS = "io.modelcontextprotocol/tasks"
"""The extension by which a server may answer a call with a task (2026-07-28)."""


class _Request(types.Request[dict[str, Any] | None, str]):
    """A request of any method."""


class _TaskRequest(_Request):
    """A request about a task. Its header `Mcp-Name` is the task's id (extension `tasks`, routing headers)."""

    name_param = "taskId"


async def send(
    client: Client,
    method: str,
    params: Mapping[str, Any] | None,
    *,
    progress_callback: ProgressFnT | None,
    rounds: bool,
) -> dict[str, Any]:
    """Send one request on a session, and return its result as the server sent it.

    Args:
        client: The session's client.
        method: The JSON-RPC method.
        params: Its parameters, as JSON.
        progress_callback: Called with progress.
        rounds: Answer the questions of an `input_required` result with the client's own callbacks, and continue until
            the call is over (2026-07-28).
    """
    sent = dict(params) if params is not None else None
    if rounds and client.protocol_version in MODERN_PROTOCOL_VERSIONS and sent is not None:
        driven = await _driven(client, method, sent, progress_callback)
        if driven is not None:
            return driven.model_dump(by_alias=True, mode="json", exclude_none=True)
    if method == "tools/call" and sent is not None and "task" in sent:
        if client.protocol_version not in MODERN_PROTOCOL_VERSIONS:
            # The answer is the receipt of a task, which the SDK does not accept as a result.
            return await send_unchecked(client.session, method, sent, progress_callback=progress_callback)
        # In the modern era the client does not request a task.
        del sent["task"]
    modern = client.protocol_version in MODERN_PROTOCOL_VERSIONS
    about_task = modern and method.startswith("tasks/") and isinstance((sent or {}).get("taskId"), str)
    request = (_TaskRequest if about_task else _Request)(method=method, params=sent)
    answer = await client.session.send_request(request, _JSON, progress_callback=progress_callback)  # type: ignore[type-var]
    if method == "tools/call" and answer.get("resultType") == "task" and declares(client.session, TASKS):
        return answer
    if modern and method in _RESULTS and answer.get("resultType") != "input_required":
        # The SDK's validation of results in this era accepts any object, because each may be a question. An object of
        # the wrong form is not an answer and must not be passed on as one.
        _RESULTS[method].model_validate(answer, by_name=False)
    return answer


async def _driven(
    client: Client, method: str, params: dict[str, Any], progress_callback: ProgressFnT | None
) -> BaseModel | None:
    """The same through the SDK's client, which handles the rounds; None for methods without rounds."""
    meta = params.get("_meta")
    if method == "tools/call":
        return await client.call_tool(
            params["name"], params.get("arguments"), progress_callback=progress_callback, meta=meta
        )
    if method == "prompts/get":
        return await client.get_prompt(params["name"], params.get("arguments"), meta=meta)
    if method == "resources/read":
        return await client.read_resource(params["uri"], meta=meta, cache_mode="refresh")
    return None
