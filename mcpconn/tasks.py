"""Tools that run as tasks (specification 2025-11-25, utilities, tasks): called as a task, and awaited by polling.

The answer to the call is a receipt. From then on the server keeps the tool's result, so a lost session does not matter:
the next session asks for the result. The outcome is unknown only if the server no longer knows the task.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from typing import Any, Protocol

import anyio
import mcp_types as types
from mcp import Client, MCPError
from pydantic import ValidationError

from mcpconn.catalog.catalog import Catalog
from mcpconn.core.attempt import Attempt
from mcpconn.core.failures import Delivery, Evidence, Failure, FailureKind
from mcpconn.core.states import State
from mcpconn.errors import CallFailed, ConnectionClosed, InvalidResult, unanswered
from mcpconn.runtime.session import Session
from mcpconn.sdk import client as sdk

POLL = 1.0
"""Seconds between polls, if the server does not specify them."""
POLL_AT_LEAST, POLL_AT_MOST = 0.05, 30.0
"""Limits on the server's value: neither a tight loop, nor so long that the answer comes too late."""
OVER = ("completed", "failed", "cancelled")
"""The final states of a task."""


class Caller(Protocol):
    """The connection, as far as tasks need it."""

    name: str
    catalog: Catalog

    @property
    def state(self) -> State:
        """The connection's state."""

    def present(self) -> Session | None:
        """The session that calls are issued on now."""

    async def request(
        self, method: str, params: Mapping[str, Any] | None = None, *, timeout: float | None, idempotent: bool | None
    ) -> dict[str, Any]:
        """Make a request of any method."""

    async def _tool_call(
        self,
        tool: str,
        meta: Mapping[str, Any] | None,
        send: Callable[[Client, Attempt, Mapping[str, Any] | None], Awaitable[dict[str, Any]]],
        *,
        timeout: float | None,
        idempotent: bool | None,
        wait: bool,
    ) -> dict[str, Any]:
        """Call a tool."""


class Tasks:
    """Calls that run as tasks, on one connection."""

    def __init__(self, connection: Caller) -> None:
        """
        Args:
            connection: Makes the requests.
        """
        self._connection = connection

    def needed(self, tool: str) -> bool:
        """Whether a tool is known to require a task: the server refuses other calls of it."""
        known, session = self._connection.catalog.tools.get(tool), self._connection.present()
        if known is None or known.execution is None or session is None or session.link is None:
            return False
        # Servers that do not declare the capability refuse all tasks, regardless of what their tools declare.
        tasks = getattr(session.link.capabilities, "tasks", None)
        asked = tasks.requests.tools if tasks is not None and tasks.requests is not None else None
        return known.execution.task_support == "required" and asked is not None and asked.call is not None

    async def learns_of_need(self, tool: str, refusal: MCPError, *, within: float | None) -> bool:
        """Whether a call was refused because it requires a task. The specification defines -32601 for this; the tool
        has not run. Lists the tools to find out, unless they are listed already.

        Args:
            tool: Its name.
            refusal: What the server answered.
            within: Seconds for the listing; None for no limit. False if it takes longer.
        """
        if (
            isinstance(refusal, CallFailed)
            or refusal.code != types.METHOD_NOT_FOUND
            or tool in self._connection.catalog.tools
        ):
            return False
        with anyio.move_on_after(math.inf if within is None else within):
            try:
                await self._connection.catalog.refresh(("tools",))
            except MCPError:
                return False
        return self.needed(tool)

    async def call(
        self,
        name: str,
        arguments: Mapping[str, Any] | None,
        meta: types.RequestParamsMeta | None,
        *,
        timeout: float | None,
        idempotent: bool | None,
        wait: bool,
    ) -> types.CallToolResult:
        """Call a tool as a task, and wait for its result.

        Raises:
            MCPError: the server's application refused the call, or the task failed.
            OutcomeUnknown: the task was accepted, but the server no longer knows it.
            CallTimeout: the task did not finish in time. It may still be running.
            CallFailed: as for any call, until the server has accepted it.
        """
        deadline = None if timeout is None else anyio.current_time() + timeout

        def left() -> float | None:
            return None if deadline is None else max(0.0, deadline - anyio.current_time())

        params: dict[str, Any] = {"name": name, "arguments": dict(arguments or {}), "task": {}}

        def send(client: Client, _: Attempt, sent_meta: Mapping[str, Any] | None) -> Awaitable[dict[str, Any]]:
            sent = params if sent_meta is None else {**params, "_meta": dict(sent_meta)}
            return sdk.send_unchecked(client.session, "tools/call", sent)

        created = await self._connection._tool_call(name, meta, send, timeout=left(), idempotent=idempotent, wait=wait)
        if "task" not in created:
            # The server answered directly: the tool was fast, or the server ignored the task request.
            return self._result(created)
        task = _Task(created["task"])
        while task.status not in OVER and task.status != "input_required":
            pause, rest = task.pause, left()
            if rest is not None and rest <= pause:
                await anyio.sleep(rest)
                raise self._lost(self._failure(FailureKind.TIMEOUT, f"no result within {timeout:g} s"))
            await anyio.sleep(pause)
            task = _Task(await self._ask("tasks/get", task.id, left))
        # A task that needs input asks for it while the client waits for its result.
        result = await self._ask("tasks/result", task.id, left)
        return self._result(result)

    async def _ask(self, method: str, task: str, left: Callable[[], float | None]) -> dict[str, Any]:
        """Poll a task until there is a result, on as many sessions as needed."""
        while True:
            try:
                return await self._connection.request(method, {"taskId": task}, timeout=left(), idempotent=True)
            except ConnectionClosed as error:
                raise self._lost(error.failure) from error
            except CallFailed as error:
                wait, rest = error.retry_in or POLL, left()
                hopeless = self._connection.state is State.FAILED and error.retry_in is None
                if hopeless or (rest is not None and rest <= wait):
                    raise self._lost(error.failure) from error
                await anyio.sleep(wait)
            except MCPError as error:
                if method == "tasks/result" and error.code != types.INVALID_PARAMS:
                    # The tool's own error: the regular answer for a failed task.
                    raise
                said = f"the server does not know the task any more: {error.message}"
                raise self._lost(self._failure(FailureKind.APPLICATION, said)) from error

    def _result(self, said: Mapping[str, Any]) -> types.CallToolResult:
        try:
            return types.CallToolResult.model_validate(said)
        except ValidationError:
            words = "the result of the task is not a CallToolResult"
        failure = self._failure(FailureKind.PROTOCOL, words)
        raise InvalidResult(
            f"{self._connection.name}: {words}; the tool ran",
            server=self._connection.name,
            failure=failure,
            state=self._connection.state,
            attempts=1,
        )

    def _failure(self, kind: FailureKind, summary: str) -> Failure:
        evidence = Evidence(exception=TimeoutError() if kind is FailureKind.TIMEOUT else None, phase="call")
        return Failure(kind=kind, delivery=Delivery.UNKNOWN, proof=False, summary=summary, evidence=evidence)

    def _lost(self, failure: Failure) -> CallFailed:
        """The task was accepted, so regardless of later failures, the tool may have run."""
        connection, failure = self._connection, replace(failure, delivery=Delivery.UNKNOWN)
        return unanswered(failure, server=self._connection.name, state=connection.state, attempts=1, retry_in=None)


class _Task:
    """A server's description of a task."""

    def __init__(self, said: Any) -> None:
        try:
            known = types.Task.model_validate(said)
        except ValidationError:
            known = None
        fields = said if isinstance(said, Mapping) else {}
        self.id = str(known.task_id if known is not None else fields.get("taskId", ""))
        self.status = str(known.status if known is not None else fields.get("status", "working"))
        seconds = known.poll_interval / 1000 if known is not None and known.poll_interval is not None else POLL
        self.pause = min(max(seconds, POLL_AT_LEAST), POLL_AT_MOST)
