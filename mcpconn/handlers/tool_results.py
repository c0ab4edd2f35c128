"""Tool calls that return a `CallToolResult` and never raise, and every tool as a function: for frameworks.

A framework replaces an exception by its own text, such as "please try again". The model then tries again, which charges
twice if the outcome was unknown. So a failure has to reach the model as the tool's result, with the text of
`handlers.wording`; programs can read the outcome in the result's `_meta`.
"""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, overload

import anyio
import mcp_types as types
from mcp.shared.dispatcher import ProgressFnT

from mcpconn.core.outcome import Outcome
from mcpconn.errors import CallFailed, McpConnError
from mcpconn.handlers.failed_call import FailedCall, check_call_timeout, reports_error
from mcpconn.handlers.wording import BadArguments, Problem
from mcpconn.keys import OUTCOME, RETRY_IN
from mcpconn.names import Table

if TYPE_CHECKING:
    from mcpconn.connection import Connection
    from mcpconn.manager import Manager
    from mcpconn.sync import SyncManager

TIMEOUT = 60.0
"""Seconds for a call, including waiting, reconnecting and replaying."""


async def connection_result(
    connection: Connection,
    tool: str,
    arguments: Mapping[str, Any] | None = None,
    *,
    timeout: float = TIMEOUT,
    progress_callback: ProgressFnT | None = None,
    meta: types.RequestParamsMeta | None = None,
    input_responses: types.InputResponses | None = None,
    request_state: str | None = None,
) -> types.CallToolResult:
    """Call a tool of a connection, and never raise: see `call_tool_result`.

    Args:
        connection: The connection.
        tool: The server's name for the tool.
        arguments: Its arguments.
        timeout: Seconds for the call, including waiting, reconnecting and replaying.
        progress_callback: Called with progress.
        meta: The request's `_meta`.
        input_responses: Answers to a server's questions, as for `Connection.call_tool`.
        request_state: The state that came with the questions.

    Raises:
        ConfigError: the timeout is not a number greater than zero.
    """
    check_call_timeout(timeout)
    failed = FailedCall(connection, connection.name, tool=tool, runs=True, now=anyio.current_time, timeout=timeout)
    outcome: Any
    try:
        outcome = await connection.call_tool(
            tool,
            _arguments(arguments),
            progress_callback=progress_callback,
            input_responses=input_responses,
            request_state=request_state,
            meta=meta,
            timeout=timeout,
        )
    except Exception as error:
        outcome = error
    return failed_or_not(failed, outcome, await failed.found(outcome))


@overload
def call_tool_result(
    manager: Manager, server: str, tool: str, arguments: Mapping[str, Any] | None = None, *, timeout: float = TIMEOUT
) -> Coroutine[Any, Any, types.CallToolResult]: ...
@overload
def call_tool_result(
    manager: SyncManager,
    server: str,
    tool: str,
    arguments: Mapping[str, Any] | None = None,
    *,
    timeout: float = TIMEOUT,
) -> types.CallToolResult: ...
def call_tool_result(
    manager: Manager | SyncManager,
    server: str,
    tool: str,
    arguments: Mapping[str, Any] | None = None,
    *,
    timeout: float = TIMEOUT,
) -> Coroutine[Any, Any, types.CallToolResult] | types.CallToolResult:
    """Call a tool and return a `CallToolResult` in every case. Await it, unless `manager` is synchronous.

    On success this is the server's result, unchanged. On failure it has `is_error`, a text that tells a model what
    happened, whether the tool ran and what to do, and `mcpconn/outcome` in its `_meta`. Only a cancellation, a
    KeyboardInterrupt and a SystemExit are raised.

    Args:
        manager: A `Manager` or a `SyncManager`.
        server: Name of the server.
        tool: The server's name for the tool.
        arguments: Its arguments.
        timeout: Seconds for the call, including waiting, reconnecting and replaying.

    Raises:
        ConfigError: the timeout is not a number greater than zero.
    """
    check_call_timeout(timeout)
    method: Any = manager.call_tool
    if inspect.iscoroutinefunction(method):
        return _asynchronous(manager, server, tool, arguments, timeout)
    failed = FailedCall(manager.get(server), server, tool=tool, runs=True, now=time.monotonic, timeout=timeout)
    outcome: Any
    try:
        outcome = method(server, tool, _arguments(arguments), timeout=timeout)
    except Exception as error:
        outcome = error
    return failed_or_not(failed, outcome, failed.found_by_thread(outcome))


async def _asynchronous(
    manager: Any, server: str, tool: str, arguments: Mapping[str, Any] | None, timeout: float
) -> types.CallToolResult:
    failed = FailedCall(manager.get(server), server, tool=tool, runs=True, now=anyio.current_time, timeout=timeout)
    outcome: Any
    try:
        outcome = await manager.call_tool(server, tool, _arguments(arguments), timeout=timeout)
    except Exception as error:
        outcome = error
    return failed_or_not(failed, outcome, await failed.found(outcome))


def failed_or_not(failed: FailedCall, outcome: Any, found: bool | None) -> types.CallToolResult:
    """The tool result for a call's result or exception.

    Args:
        failed: Describes the failure.
        outcome: The result or the exception.
        found: Whether the server has the tool; None if that is unknown.
    """
    missing = failed.missing(found)
    if isinstance(outcome, Exception):
        return _told(failed.of_error(outcome, missing))
    if not reports_error(outcome):
        return outcome  # type: ignore[no-any-return]
    said = failed.of_result(_text(outcome), missing)
    # A server may report an unknown outcome, as mcpconn's gateway does: it can only make a reader more careful.
    claimed = (outcome.meta or {}).get(OUTCOME)
    told = _told(said, Outcome.UNKNOWN if claimed == Outcome.UNKNOWN else said.outcome)
    others = [block for block in outcome.content if not isinstance(block, types.TextContent)]
    return types.CallToolResult(
        content=[*told.content, *others],
        structured_content=outcome.structured_content,
        is_error=True,
        _meta={**(outcome.meta or {}), **(told.meta or {})},
    )


def text_of(result: types.CallToolResult) -> str:
    """A result as a text for a model: its text blocks, or its structured content if there are none."""
    text = _text(result)
    if not text and result.structured_content is not None:
        return types.CallToolResult(content=[], structured_content=result.structured_content).model_dump_json(
            include={"structured_content"}, by_alias=True
        )
    others = [block.type for block in result.content if not isinstance(block, types.TextContent)]
    return "\n".join(part for part in (text, f"[not shown: {', '.join(others)}]" if others else "") if part)


# -- every tool as a function


@dataclass(frozen=True)
class Tool:
    """A tool of a server, for a framework that needs name, description, schema and function."""

    name: str
    """`SERVER__TOOL`, at most 48 letters, digits, `_` and `-` (models accept no others)."""
    description: str
    """The server's description of the tool."""
    schema: dict[str, Any]
    """JSON Schema of its arguments."""
    function: Callable[..., Any]
    """Takes the arguments by keyword, returns a `CallToolResult` and does not raise. A coroutine
    function, unless the manager is synchronous."""
    server: str
    """Name of its server."""
    tool: types.Tool
    """As the server listed it."""


class Tools(list[Tool]):
    """The tools of a manager's servers, and the servers whose tools are unknown."""

    missing: dict[str, str]
    """For each server whose tools are unknown, the reason."""


@overload
def tools(manager: Manager, *, timeout: float = TIMEOUT) -> Coroutine[Any, Any, Tools]: ...
@overload
def tools(manager: SyncManager, *, timeout: float = TIMEOUT) -> Tools: ...
def tools(manager: Manager | SyncManager, *, timeout: float = TIMEOUT) -> Coroutine[Any, Any, Tools] | Tools:
    """All current tools of all servers. Await it, unless `manager` is synchronous.

    For an unreachable server, the tools of its last listing are returned; a server that was never listed is in
    `Tools.missing`. Call it again after a change (`Catalog.subscribe`): a `Tool` stays usable, and a call of a removed
    tool returns an error that says so.

    Args:
        manager: A running `Manager` or `SyncManager`.
        timeout: Seconds for listing all servers, and for each call of a tool later.

    Raises:
        ConfigError: the timeout is not a number greater than zero.
    """
    check_call_timeout(timeout)
    if inspect.iscoroutinefunction(manager.call_tool):
        return _listed(manager, timeout)
    synchronous: Any = manager
    for connection in list(synchronous.values()):
        try:
            connection.wait_ready(timeout)
            connection.catalog.ensure(("tools",))
        except (McpConnError, CallFailed):
            continue  # The server is unreachable: `_gathered` reports it, if it was never listed.
    return _gathered(manager, timeout)


async def _listed(manager: Any, timeout: float) -> Tools:
    async def ensure(connection: Connection) -> None:
        try:
            await connection.wait_ready()
            await connection.catalog.ensure(("tools",))
        except (McpConnError, CallFailed):
            return  # The server is unreachable: `_gathered` reports it, if it was never listed.

    with anyio.move_on_after(timeout):
        async with anyio.create_task_group() as group:
            for connection in list(manager.values()):
                group.start_soon(ensure, connection)
    return _gathered(manager, timeout)


def _gathered(manager: Any, timeout: float) -> Tools:
    gathered = Tools()
    gathered.missing = {}
    table = Table(tuple(manager))
    for server, connection in manager.items():
        if "tools" not in connection.catalog.listed:
            failure = connection.last_failure
            gathered.missing[server] = failure.summary if failure is not None else f"it is {connection.state.value}"
            continue
        known = connection.catalog.tools
        for own, public in table.publish(server, known).items():
            function = _function(manager, server, own, public, timeout)
            tool = known[own]
            gathered.append(Tool(public, tool.description or "", dict(tool.input_schema), function, server, tool))
    return gathered


def _function(manager: Any, server: str, tool: str, public: str, timeout: float) -> Callable[..., Any]:
    def plain(**arguments: Any) -> Any:
        return call_tool_result(manager, server, tool, arguments, timeout=timeout)

    async def asynchronous(**arguments: Any) -> Any:
        return await call_tool_result(manager, server, tool, arguments, timeout=timeout)

    function = asynchronous if inspect.iscoroutinefunction(manager.call_tool) else plain
    function.__name__ = function.__qualname__ = public
    return function


# -- parts


def _arguments(arguments: Any) -> dict[str, Any]:
    """Raises BadArguments, while it is certain that nothing was sent."""
    if arguments is not None and not isinstance(arguments, Mapping):
        raise BadArguments(f"the arguments must be an object, not {type(arguments).__name__}")
    checked = dict(arguments or {})
    try:
        types.CallToolRequestParams(name="", arguments=checked).model_dump_json(by_alias=True)
    except Exception as error:
        raise BadArguments(f"the arguments are not JSON: {error}") from None
    return checked


def _text(result: types.CallToolResult) -> str:
    return "\n".join(block.text for block in result.content if isinstance(block, types.TextContent))


def _told(said: Problem, outcome: Outcome | None = None) -> types.CallToolResult:
    meta: dict[str, Any] = {OUTCOME: (outcome or said.outcome).value}
    if said.retry_in is not None:
        meta[RETRY_IN] = round(said.retry_in, 1)
    return types.CallToolResult(content=[types.TextContent(text=said.text)], is_error=True, _meta=meta)
