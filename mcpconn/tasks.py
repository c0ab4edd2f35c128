"""Tools that run as tasks (specification 2025-11-25, utilities, tasks): called so, and awaited by asking.

The answer to the call is a receipt. From then on the tool's result is the server's to keep, and a connection that is
cut in the meantime costs nothing: the next session asks for it. Only a server that does not know the task any more
leaves the outcome unknown.
"""

from __future__ import annotations

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
"""Seconds between questions, if the server does not say."""
POLL_AT_LEAST, POLL_AT_MOST = 0.05, 30.0
"""Whatever it says: not in a tight loop, and not so late that the answer is of no use."""
OVER = ("completed", "failed", "cancelled")
"""The states of a task that has ended."""


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
        """Whether a tool has to be called as a task, as far as is known: the server refuses other calls of it."""
        known, session = self._connection.catalog.tools.get(tool), self._connection.present()
        if known is None or known.execution is None or session is None or session.link is None:
            return False
        # Servers that do not declare it refuse all tasks, whatever their tools say.
        tasks = getattr(session.link.capabilities, "tasks", None)
        asked = tasks.requests.tools if tasks is not None and tasks.requests is not None else None
        return known.execution.task_support == "required" and asked is not None and asked.call is not None

    async def learns_of_need(self, tool: str, refusal: MCPError) -> bool:
        """Whether a call was refused because it has to be a task. The specification has -32601 for that: the tool
        has not run. Lists the tools to find out, if they were not listed."""
        if (
            isinstance(refusal, CallFailed)
            or refusal.code != types.METHOD_NOT_FOUND
            or tool in self._connection.catalog.tools
        ):
            return False
        try:
            await self._connection.catalog.refresh()
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
            OutcomeUnknown: the task was accepted, and the server does not know it any more.
            CallTimeout: it was not over in time. It may still be running.
            CallFailed: as any call, until the server has accepted it.
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
            # It was quick, or takes no notice of the wish.
            return self._result(created)
        task = _Task(created["task"])
        while task.status not in OVER and task.status != "input_required":
            pause, rest = task.pause, left()
            if rest is not None and rest <= pause:
                await anyio.sleep(rest)
                raise self._lost(self._failure(FailureKind.TIMEOUT, f"no result within {timeout:g} s"))
            await anyio.sleep(pause)
            task = _Task(await self._ask("tasks/get", task.id, left))
        # A task that needs input asks for it while its result is waited for.
        result = await self._ask("tasks/result", task.id, left)
        return self._result(result)

    async def _ask(self, method: str, task: str, left: Callable[[], float | None]) -> dict[str, Any]:
        """Ask about a task until there is an answer, over as many sessions as it takes."""
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
                    # The tool's own error: that is how a task that failed is answered.
                    raise
                said = f"the server does not know the task any more: {error.message}"
                raise self._lost(self._failure(FailureKind.APPLICATION, said)) from error

    def _result(self, said: Mapping[str, Any]) -> types.CallToolResult:
        try:
            return types.CallToolResult.model_validate(said)
        except ValidationError:
            words = "the result of the task is no CallToolResult"
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
        """The task was accepted: whatever failed since, the tool may have run."""
        connection, failure = self._connection, replace(failure, delivery=Delivery.UNKNOWN)
        return unanswered(failure, server=self._connection.name, state=connection.state, attempts=1, retry_in=None)


class _Task:
    """What a server says of a task."""

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
