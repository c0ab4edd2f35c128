"""Tool calls that answer with a `CallToolResult` and never raise, and every tool as a function: for frameworks.

A framework turns an exception into words of its own, such as "please try again", and its model does: that charges
twice if the outcome was unknown. So the failure has to reach the model as the tool's result, in the words of
`handlers.wording`; a program reads the outcome in the result's `_meta`.
"""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, overload

import anyio
import mcp_types as types

from mcpconn.core.outcome import Outcome
from mcpconn.errors import CallFailed, ConfigError, McpConnError
from mcpconn.handlers.failed_call import FailedCall, reports_error
from mcpconn.handlers.wording import BadArguments, Problem
from mcpconn.keys import OUTCOME, RETRY_IN
from mcpconn.names import Table
from mcpconn.validate import check_timeout

if TYPE_CHECKING:
    from mcpconn.connection import Connection
    from mcpconn.manager import Manager
    from mcpconn.sync import SyncManager

TIMEOUT = 60.0
"""Seconds for a call, waiting, reconnecting and replaying included."""


async def connection_result(
    connection: Connection,
    tool: str,
    arguments: Mapping[str, Any] | None = None,
    *,
    timeout: float = TIMEOUT,
    **options: Any,
) -> types.CallToolResult:
    """Call a tool of a connection, and never raise: see `call_tool_result`.

    Args:
        connection: The connection.
        tool: Name of the tool, as the server calls it.
        arguments: Its arguments.
        timeout: Seconds for the call, waiting, reconnecting and replaying included.
        options: More arguments of `Connection.call_tool`.

    Raises:
        ConfigError: the timeout is not a number greater than zero.
    """
    _check(timeout)
    failed = FailedCall(connection, connection.name, tool=tool, runs=True, now=anyio.current_time, timeout=timeout)
    outcome: Any
    try:
        outcome = await connection.call_tool(tool, _arguments(arguments), timeout=timeout, **options)
    except Exception as error:
        outcome = error
    return failed_or_not(failed, outcome, await _found(failed, tool, outcome))


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
    """Call a tool and answer with a `CallToolResult`, whatever happens. To be awaited, unless `manager` is synchronous.

    A success is the server's result, unchanged. A failure has `is_error`, a text that tells a model what happened,
    whether the tool ran and what to do, and `mcpconn/outcome` in its `_meta`. Only a cancellation, a KeyboardInterrupt
    and a SystemExit pass.

    Args:
        manager: A `Manager` or a `SyncManager`.
        server: Name of the server.
        tool: Name of the tool, as the server calls it.
        arguments: Its arguments.
        timeout: Seconds for the call, waiting, reconnecting and replaying included.

    Raises:
        ConfigError: the timeout is not a number greater than zero.
    """
    _check(timeout)
    method: Any = manager.call_tool
    if inspect.iscoroutinefunction(method):
        return _asynchronous(manager, server, tool, arguments, timeout)
    failed = FailedCall(manager.get(server), server, tool=tool, runs=True, now=time.monotonic, timeout=timeout)
    outcome: Any
    found: bool | None = None
    try:
        outcome = method(server, tool, _arguments(arguments), timeout=timeout)
    except Exception as error:
        outcome = error
    if (look_up := failed.to_look_up(outcome)) is not None:
        catalog, seconds = look_up
        try:
            found = catalog.look_up(tool, timeout=seconds)
        except Exception:
            found = None  # Whether the server has the tool is unknown; the failure itself is still reported.
    return failed_or_not(failed, outcome, found)


async def _asynchronous(
    manager: Any, server: str, tool: str, arguments: Mapping[str, Any] | None, timeout: float
) -> types.CallToolResult:
    failed = FailedCall(manager.get(server), server, tool=tool, runs=True, now=anyio.current_time, timeout=timeout)
    outcome: Any
    try:
        outcome = await manager.call_tool(server, tool, _arguments(arguments), timeout=timeout)
    except Exception as error:
        outcome = error
    return failed_or_not(failed, outcome, await _found(failed, tool, outcome))


def failed_or_not(failed: FailedCall, outcome: Any, found: bool | None) -> types.CallToolResult:
    """The result to a call's result, or to whatever was raised.

    Args:
        failed: Words for it.
        outcome: The result or the exception.
        found: Whether the server has the tool; None if that is unknown.
    """
    missing = failed.missing(found)
    if isinstance(outcome, Exception):
        return _told(failed.of_error(outcome, missing))
    if not reports_error(outcome):
        return outcome  # type: ignore[no-any-return]
    said = failed.of_result(_text(outcome), missing)
    # A server may say that it does not know, as a gateway of ours does: that makes a reader careful, never careless.
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
    """A result as a text for a model: its text blocks, or the structured content of one that has none."""
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
    """A tool of a server, for a framework that wants name, description, schema and function."""

    name: str
    """`SERVER__TOOL`, of letters, digits, `_` and `-` (models take no other), 48 characters at most."""
    description: str
    """What the server says of it."""
    schema: dict[str, Any]
    """JSON Schema of its arguments."""
    function: Callable[..., Any]
    """Called with the arguments by keyword, it answers with a `CallToolResult` and does not raise. A coroutine
    function, unless the manager is synchronous."""
    server: str
    """Name of its server."""
    tool: types.Tool
    """As the server listed it."""


class Tools(list[Tool]):
    """The tools of a manager's servers, and which servers could not be asked."""

    missing: dict[str, str]
    """Of each server whose tools are not known: why, for people."""


@overload
def tools(manager: Manager, *, timeout: float = TIMEOUT) -> Coroutine[Any, Any, Tools]: ...
@overload
def tools(manager: SyncManager, *, timeout: float = TIMEOUT) -> Tools: ...
def tools(manager: Manager | SyncManager, *, timeout: float = TIMEOUT) -> Coroutine[Any, Any, Tools] | Tools:
    """Every tool of every server, as it is now. To be awaited, unless `manager` is synchronous.

    A server that is away and was listed before is listed as it was; one that was never listed is in `Tools.missing`.
    Call it again after a change (`Catalog.subscribe`): a `Tool` stays usable, and a tool that is gone says so.

    Args:
        manager: A `Manager` or a `SyncManager` that runs.
        timeout: Seconds for listing all servers, and for each call of a tool later.

    Raises:
        ConfigError: the timeout is not a number greater than zero.
    """
    _check(timeout)
    if inspect.iscoroutinefunction(manager.call_tool):
        return _listed(manager, timeout)
    synchronous: Any = manager
    for connection in list(synchronous.values()):
        try:
            connection.wait_ready(timeout)
            connection.catalog.ensure(("tools",))
        except (McpConnError, CallFailed):
            continue  # It is away: `_gathered` says so, if it was never listed.
    return _gathered(manager, timeout)


async def _listed(manager: Any, timeout: float) -> Tools:
    async def ensure(connection: Connection) -> None:
        try:
            await connection.wait_ready()
            await connection.catalog.ensure(("tools",))
        except (McpConnError, CallFailed):
            return  # It is away: `_gathered` says so, if it was never listed.

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


def _check(timeout: float) -> None:
    check_timeout(timeout)
    if not timeout:
        raise ConfigError("timeout must be a number of seconds greater than zero", key="timeout")


def _arguments(arguments: Any) -> dict[str, Any]:
    """Raises BadArguments, while it is certain that nothing was sent."""
    if arguments is not None and not isinstance(arguments, Mapping):
        raise BadArguments(f"the arguments must be an object, not {type(arguments).__name__}")
    checked = dict(arguments or {})
    try:
        types.CallToolRequestParams(name="", arguments=checked).model_dump_json(by_alias=True)
    except Exception as error:
        raise BadArguments(f"the arguments are no JSON: {error}") from None
    return checked


async def _found(failed: FailedCall, tool: str, outcome: Any) -> bool | None:
    if (look_up := failed.to_look_up(outcome)) is None:
        return None
    catalog, seconds = look_up
    try:
        return await catalog.look_up(tool, timeout=seconds)  # type: ignore[no-any-return]
    except Exception:
        return None  # Whether the server has the tool is unknown; the failure itself is still reported.


def _text(result: types.CallToolResult) -> str:
    return "\n".join(block.text for block in result.content if isinstance(block, types.TextContent))


def _told(said: Problem, outcome: Outcome | None = None) -> types.CallToolResult:
    meta: dict[str, Any] = {OUTCOME: (outcome or said.outcome).value}
    if said.retry_in is not None:
        meta[RETRY_IN] = round(said.retry_in, 1)
    return types.CallToolResult(content=[types.TextContent(text=said.text)], is_error=True, _meta=meta)
