"""Creates the handlers: the arguments, call and result of each."""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, overload

import anyio
import mcp_types as types
from pydantic import BaseModel, ValidationError

from mcpconn.handlers.failed_call import FailedCall, check_call_timeout, reports_error
from mcpconn.handlers.results import Payload, encode, resource_payload, tool_payload, whole_payload
from mcpconn.handlers.wording import BadArguments, UnreadableResult
from mcpconn.redact.redactor import redacted

if TYPE_CHECKING:
    from mcpconn.manager import Manager
    from mcpconn.sync import SyncManager

AsyncHandler = Callable[[dict[str, Any]], Coroutine[Any, Any, str]]
"""Takes a dict of arguments and returns a JSON string; never raises."""
SyncHandler = Callable[[dict[str, Any]], str]
"""The same for a `SyncManager`, callable from any thread."""

TIMEOUT = 60.0
"""Seconds for a call, including waiting, reconnecting and replaying."""


@dataclass(frozen=True)
class _Operation:
    """One operation of a handler."""

    method: str
    """The manager's method for the operation."""
    prepare: Callable[[dict[str, Any]], dict[str, Any]]
    """Converts a handler's arguments to the method's. Raises BadArguments."""
    payload: Callable[[Any], Payload]
    """Converts the method's result to a handler's result."""
    runs: bool = False
    """Whether it runs a tool. All other operations only read."""
    name: str = ""
    """The name of its handlers, if it differs from the method's."""


class _Answer:
    """A handler's report about one call."""

    def __init__(
        self,
        operation: _Operation,
        manager: Manager | SyncManager,
        server: str,
        *,
        timeout: float,
        now: Callable[[], float],
    ) -> None:
        self._operation = operation
        self.failed = FailedCall(
            manager.get(server), server, tool=operation.name, runs=operation.runs, now=now, timeout=timeout
        )

    def arguments(self, args: Any) -> dict[str, Any]:
        """The arguments for the manager's method.

        Raises:
            BadArguments: `args` cannot be used.
        """
        if not isinstance(args, Mapping):
            raise BadArguments(f"the arguments must be an object, not {type(args).__name__}")
        return self._operation.prepare(dict(args))

    def to(self, outcome: Any, found: bool | None) -> str:
        """The handler's result for a call's result or exception.

        Args:
            outcome: The result or the exception.
            found: Whether the server has the tool; None if that is unknown.
        """
        missing = self.failed.missing(found)
        if isinstance(outcome, Exception):
            return self._to_error(outcome, missing)
        try:
            payload = self._operation.payload(outcome)
            if reports_error(outcome):
                payload = redacted(payload, self.failed.redact)
                payload = self.failed.of_result(payload.pop("result"), missing).payload() | payload
            return encode(payload)
        except Exception as error:
            return self._to_error(UnreadableResult(str(error)), missing)

    def _to_error(self, error: Exception, missing: str | None) -> str:
        said = self.failed.of_error(error, missing)
        try:
            return encode(said.payload())
        except Exception:
            # Only the data that the server added to its error may not be serializable as JSON.
            return encode(replace(said, data=None).payload())


class _Maker:
    """Creates handlers of one kind. `handler(args)` returns JSON within `timeout`, and never raises."""

    def __init__(self, operation: _Operation) -> None:
        self._operation = operation

    @overload
    def __call__(self, manager: Manager, server: str, *, timeout: float = TIMEOUT) -> AsyncHandler: ...
    @overload
    def __call__(self, manager: SyncManager, server: str, *, timeout: float = TIMEOUT) -> SyncHandler: ...
    def __call__(
        self, manager: Manager | SyncManager, server: str, *, timeout: float = TIMEOUT
    ) -> AsyncHandler | SyncHandler:
        """
        Args:
            manager: A `Manager`, for an async handler, or a `SyncManager`, for a plain one. It need not be running yet.
            server: Name of a server, which need not exist yet.
            timeout: Seconds for a call, including waiting, reconnecting and replaying.

        Raises:
            ConfigError: the timeout is not a number greater than zero.
        """
        check_call_timeout(timeout)
        operation = self._operation
        method: Any = getattr(manager, operation.method)

        async def asynchronous(args: dict[str, Any]) -> str:
            answer = _Answer(operation, manager, server, timeout=timeout, now=anyio.current_time)
            outcome: Any
            try:
                outcome = await method(server, **answer.arguments(args), timeout=timeout)
            except Exception as error:
                outcome = error
            return answer.to(outcome, await answer.failed.found(outcome))

        def plain(args: dict[str, Any]) -> str:
            answer = _Answer(operation, manager, server, timeout=timeout, now=time.monotonic)
            outcome: Any
            try:
                outcome = method(server, **answer.arguments(args), timeout=timeout)
            except Exception as error:
                outcome = error
            return answer.to(outcome, answer.failed.found_by_thread(outcome))

        handler = asynchronous if inspect.iscoroutinefunction(method) else plain
        # Some registries read the name from here.
        handler.__name__ = handler.__qualname__ = operation.name or operation.method
        return handler


# -- arguments


def _checked(model: type[BaseModel], args: dict[str, Any], *known: str) -> dict[str, Any]:
    """`args`, if they are valid for the protocol's method."""
    if unknown := [str(key) for key in args if key not in known]:
        raise BadArguments(f"unknown argument {unknown[0]!r}; known: {', '.join(known)}")
    try:
        # Unserializable arguments are detected here, while it is certain that nothing was sent.
        model.model_validate(args).model_dump_json(by_alias=True)
    except ValidationError as error:
        wrong = (f"{'.'.join(str(step) for step in each['loc'])}: {each['msg']}" for each in error.errors())
        raise BadArguments(f"the arguments cannot be used: {'; '.join(wrong)}") from None
    except Exception as error:
        raise BadArguments(f"the arguments are not JSON: {error}") from None
    return args


def _page(args: dict[str, Any]) -> dict[str, Any]:
    return _checked(types.PaginatedRequestParams, args, "cursor")


def _resource(args: dict[str, Any]) -> dict[str, Any]:
    return _checked(types.ReadResourceRequestParams, args, "uri")


def _prompt(args: dict[str, Any]) -> dict[str, Any]:
    return _checked(types.GetPromptRequestParams, args, "name", "arguments")


def _completion(args: dict[str, Any]) -> dict[str, Any]:
    checked = _checked(types.CompleteRequestParams, args, "ref", "argument", "context")
    params = types.CompleteRequestParams.model_validate(checked)
    return {
        "ref": params.ref,
        "argument": params.argument.model_dump(),
        "context_arguments": params.context.arguments if params.context is not None else None,
    }


#  -- factories


@overload
def call_tool(manager: Manager, server: str, tool: str, *, timeout: float = TIMEOUT) -> AsyncHandler: ...
@overload
def call_tool(manager: SyncManager, server: str, tool: str, *, timeout: float = TIMEOUT) -> SyncHandler: ...
def call_tool(
    manager: Manager | SyncManager, server: str, tool: str, *, timeout: float = TIMEOUT
) -> AsyncHandler | SyncHandler:
    """A handler that runs a tool with its arguments.

    Args:
        manager: A `Manager`, for an async handler, or a `SyncManager`, for a plain one. It need not be running yet.
        server: Name of a server, which need not exist yet.
        tool: The server's name for the tool.
        timeout: Seconds for a call, including waiting, reconnecting and replaying.

    Raises:
        ConfigError: the timeout is not a number greater than zero.
    """

    def prepare(args: dict[str, Any]) -> dict[str, Any]:
        return _checked(types.CallToolRequestParams, {"name": tool, "arguments": args}, "name", "arguments")

    make = _Maker(_Operation("call_tool", prepare, tool_payload, runs=True, name=tool))
    return make(manager, server, timeout=timeout)


list_tools = _Maker(_Operation("list_tools", _page, whole_payload))
"""Handlers that list a page of tools; they take `{}` or `{"cursor": ...}`."""
list_resources = _Maker(_Operation("list_resources", _page, whole_payload))
"""Handlers that list a page of resources; they take `{}` or `{"cursor": ...}`."""
list_resource_templates = _Maker(_Operation("list_resource_templates", _page, whole_payload))
"""Handlers that list a page of resource templates; they take `{}` or `{"cursor": ...}`."""
read_resource = _Maker(_Operation("read_resource", _resource, resource_payload))
"""Handlers that read a resource; they take `{"uri": ...}`."""
list_prompts = _Maker(_Operation("list_prompts", _page, whole_payload))
"""Handlers that list a page of prompts; they take `{}` or `{"cursor": ...}`."""
get_prompt = _Maker(_Operation("get_prompt", _prompt, whole_payload))
"""Handlers that get a prompt; they take `{"name": ..., "arguments": {...}}`."""
complete = _Maker(_Operation("complete", _completion, whole_payload))
"""Handlers that complete an argument; they take `{"ref": {...}, "argument": {...}, "context": {...}}`."""
