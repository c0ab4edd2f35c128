"""Requests of any method, for gateways and for extensions of the protocol."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from mcp import Client
from mcp.shared.dispatcher import ProgressFnT

from mcpconn import raw
from mcpconn.core.attempt import Attempt
from mcpconn.requests import DEFAULT, Requests, noting


class AnyRequest(Requests):
    """`request`, for connections."""

    async def request(
        self,
        method: str,
        params: Mapping[str, Any] | None = None,
        *,
        progress_callback: ProgressFnT | None = None,
        before: Callable[[], Awaitable[None]] | None = None,
        rounds: bool = False,
        timeout: float | None = DEFAULT,
        idempotent: bool | None = None,
        wait: bool = True,
    ) -> dict[str, Any]:
        """Make any request, and return its result as the server sent it: as JSON, with nothing dropped.

        For gateways and for extensions of the protocol. It is kept alive by the same rules as every call.

        Args:
            method: The JSON-RPC method.
            params: Its parameters, as JSON.
            progress_callback: Called with progress.
            before: Awaited each time immediately before the request is handed to the session; what it raises ends the
                call, and nothing is sent.
            rounds: Answer a modern server's questions with the connection's callbacks. Otherwise an `input_required`
                result is returned as it is.
            timeout: Seconds for the whole call.
            idempotent: Whether running it twice is harmless. None: known of the protocol's own methods, and of a
                tool by its annotations.
            wait: False raises `NotReady` at once if the connection is not ready.

        Raises:
            MCPError: the server's application answered with an error.
            CallFailed: as the other methods.
        """
        if method == "tools/call":
            return await self._request_tool(
                dict(params or {}), progress_callback, before, rounds, timeout=timeout, idempotent=idempotent, wait=wait
            )

        async def issue(client: Client, attempt: Attempt) -> dict[str, Any]:
            if before is not None:
                await before()
            told = noting(attempt, progress_callback)
            return await raw.send(client, method, params, progress_callback=told, rounds=rounds)

        async def safe() -> bool:
            return method in raw.SAFE_METHODS if idempotent is None else idempotent

        return await self._call(method, issue, safe=safe, timeout=timeout, wait=wait)

    async def _request_tool(
        self,
        params: dict[str, Any],
        progress_callback: ProgressFnT | None,
        before: Callable[[], Awaitable[None]] | None,
        rounds: bool,
        **options: Any,
    ) -> dict[str, Any]:
        async def send(client: Client, attempt: Attempt, meta: Mapping[str, Any] | None) -> dict[str, Any]:
            if before is not None:
                await before()
            sent = params if meta is None else {**params, "_meta": dict(meta)}
            told = noting(attempt, progress_callback)
            return await raw.send(client, "tools/call", sent, progress_callback=told, rounds=rounds)

        return await self._tool_call(str(params.get("name", "")), params.get("_meta"), send, **options)
