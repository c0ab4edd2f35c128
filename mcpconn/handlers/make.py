"""The makers of handlers: what each takes, calls and answers."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, overload

import mcp_types as types
from pydantic import BaseModel, ValidationError

from mcpconn.core.failures import FailureKind
from mcpconn.errors import NotRunning
from mcpconn.handlers.errors import BadArguments, Problem, UnreadableResult, problem, redacted
from mcpconn.handlers.results import Payload, encode, resource_payload, tool_payload, whole_payload

if TYPE_CHECKING:
    from mcpconn.manager import Manager
    from mcpconn.sync import SyncManager

AsyncHandler = Callable[[dict[str, Any]], Coroutine[Any, Any, str]]
"""From a dict of arguments to a JSON string; never raises."""
SyncHandler = Callable[[dict[str, Any]], str]
"""The same for a `SyncManager`, callable from any thread."""

TIMEOUT = 60.0
"""Seconds for a call, waiting, reconnecting and replaying included."""


@dataclass(frozen=True)
class _Operation:
    """One thing that a handler does."""

    method: str
    """The manager's method for it."""
    prepare: Callable[[dict[str, Any]], dict[str, Any]]
    """From a handler's arguments to the method's. Raises BadArguments."""
    payload: Callable[[Any], Payload]
    """From its result to a handler's answer."""
    runs: bool = False
    """Whether it runs a tool. All else only reads."""
    name: str = ""
    """What its handlers are called, where that is not the method."""


class _Answer:
    """What a handler says about one call."""

    def __init__(self, operation: _Operation, manager: Manager | SyncManager, server: str) -> None:
        self._operation = operation
        self._server = server
        # Held, since the server may be removed while the call runs.
        self._connection = manager.get(server)

    def arguments(self, args: Any) -> dict[str, Any]:
        """What to call the manager's method with.

        Raises:
            BadArguments: `args` cannot be used.
        """
        if not isinstance(args, Mapping):
            raise BadArguments(f"the arguments must be an object, not {type(args).__name__}")
        return self._operation.prepare(dict(args))

    def to(self, result: Any) -> str:
        """The answer to a result."""
        try:
            payload = self._operation.payload(result)
            if getattr(result, "is_error", False):
                payload = self._of_tool(payload)
            return encode(payload)
        except Exception as error:
            return self.to_error(UnreadableResult(str(error)))

    def _of_tool(self, payload: Payload) -> Payload:
        """A tool's own failure: the application's, whatever its text may remind one of."""
        payload = redacted(payload, self._redactor())
        text = payload.pop("result") or "The tool failed, and does not say why."
        return Problem(text, FailureKind.APPLICATION, "ran", self._state()).payload() | payload

    def to_error(self, error: Exception) -> str:
        """The answer to whatever was raised."""
        state = self._state()
        try:
            said = problem(error, server=self._server, state=state, runs=self._operation.runs, redact=self._redactor())
        except Exception:
            # An error whose own text cannot be made, or whose data has no end.
            what = f"The call to MCP server {self._server!r} failed, and the error cannot be shown."
            said = Problem(f"{what} {type(error).__name__}.", FailureKind.APPLICATION, "unknown", state)
        try:
            return encode(said.payload())
        except Exception:
            # Only what the server added to its error can be beyond JSON.
            return encode(replace(said, data=None).payload())

    def _state(self) -> str | None:
        try:
            return self._connection.state.value if self._connection is not None else None
        except NotRunning:
            return None

    def _redactor(self) -> Callable[[str], str]:
        return self._connection.config.redactor if self._connection is not None else str


class _Maker:
    """Makes handlers of one kind. `handler(args)` answers in JSON, within `timeout`, and never raises."""

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
            manager: A `Manager`, for an async handler, or a `SyncManager`, for a plain one. It need not run yet.
            server: Name of a server. It need not be known yet.
            timeout: Seconds for a call, waiting, reconnecting and replaying included.

        Raises:
            ValueError: the timeout is not a number greater than zero.
        """
        if isinstance(timeout, bool) or not 0 < timeout < math.inf:
            raise ValueError(f"timeout must be a number of seconds greater than zero, not {timeout!r}")
        operation = self._operation
        method: Any = getattr(manager, operation.method)

        async def asynchronous(args: dict[str, Any]) -> str:
            answer = _Answer(operation, manager, server)
            try:
                result = await method(server, **answer.arguments(args), timeout=timeout)
            except Exception as error:
                return answer.to_error(error)
            return answer.to(result)

        def plain(args: dict[str, Any]) -> str:
            answer = _Answer(operation, manager, server)
            try:
                result = method(server, **answer.arguments(args), timeout=timeout)
            except Exception as error:
                return answer.to_error(error)
            return answer.to(result)

        handler = asynchronous if inspect.iscoroutinefunction(method) else plain
        # Some registries take the name from here.
        handler.__name__ = handler.__qualname__ = operation.name or operation.method
        return handler


# -- what each takes


def _checked(model: type[BaseModel], args: dict[str, Any], *known: str) -> dict[str, Any]:
    """`args`, where they are what the method of the protocol takes."""
    if unknown := [str(key) for key in args if key not in known]:
        raise BadArguments(f"unknown argument {unknown[0]!r}; known: {', '.join(known)}")
    try:
        # What cannot be written as JSON is found out here, while it is certain that nothing was sent.
        model.model_validate(args).model_dump_json(by_alias=True)
    except ValidationError as error:
        wrong = (f"{'.'.join(str(step) for step in each['loc'])}: {each['msg']}" for each in error.errors())
        raise BadArguments(f"the arguments cannot be used: {'; '.join(wrong)}") from None
    except Exception as error:
        raise BadArguments(f"the arguments are no JSON: {error}") from None
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


# -- the makers


@overload
def call_tool(manager: Manager, server: str, tool: str, *, timeout: float = TIMEOUT) -> AsyncHandler: ...
@overload
def call_tool(manager: SyncManager, server: str, tool: str, *, timeout: float = TIMEOUT) -> SyncHandler: ...
def call_tool(
    manager: Manager | SyncManager, server: str, tool: str, *, timeout: float = TIMEOUT
) -> AsyncHandler | SyncHandler:
    """A handler that runs a tool with its arguments.

    Args:
        manager: A `Manager`, for an async handler, or a `SyncManager`, for a plain one. It need not run yet.
        server: Name of a server. It need not be known yet.
        tool: Name of the tool, as the server calls it.
        timeout: Seconds for a call, waiting, reconnecting and replaying included.

    Raises:
        ValueError: the timeout is not a number greater than zero.
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
