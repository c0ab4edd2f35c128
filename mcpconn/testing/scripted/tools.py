"""Tools of a scripted MCP server. Standard library only."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

from mcpconn.testing.scripted.steps import Message, Sleep

READ_ONLY: Mapping[str, Any] = {"readOnlyHint": True}

ToolRun = Callable[[Mapping[str, Any]], object]
"""Runs one tool: arguments in, answer out.

The answer is a string (one text block), a mapping (a whole `CallToolResult`) or a generator
that yields `Sleep` and `Progress` and returns one of those. Raising `RpcError` answers with a
JSON-RPC error, `Spoiled` with bytes that are not an answer; any other exception becomes a result with
`isError`.
"""


class RpcError(Exception):
    """Answer the request with this JSON-RPC error."""

    def __init__(self, code: int, message: str, data: object = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.data = data


class Spoiled(Exception):
    """Answer the request with the bytes that `answer` makes of its id, whatever they are."""

    def __init__(self, answer: Callable[[object], bytes]) -> None:
        super().__init__("spoiled")
        self.answer = answer


@dataclass(frozen=True)
class Progress:
    """A progress notification, sent only if the request carried a progress token."""

    progress: float
    total: float | None = None
    message: str | None = None


@dataclass(frozen=True)
class ScriptedTool:
    """A tool of a scripted server."""

    name: str
    run: ToolRun
    annotations: Mapping[str, Any] = field(default_factory=dict)
    description: str = ""
    input_schema: Mapping[str, Any] = field(default_factory=lambda: {"type": "object"})
    output_schema: Mapping[str, Any] | None = None

    def listed(self) -> Message:
        """This tool as `tools/list` shows it."""
        shown: Message = {"name": self.name, "inputSchema": dict(self.input_schema)}
        if self.description:
            shown["description"] = self.description
        if self.annotations:
            shown["annotations"] = dict(self.annotations)
        if self.output_schema is not None:
            shown["outputSchema"] = dict(self.output_schema)
        return shown


def tool_items(tool: ScriptedTool, arguments: Mapping[str, Any]) -> Generator[Sleep | Progress, None, Message]:
    """Run the tool: yield its pauses and progress, return its `CallToolResult`.

    Raises:
        RpcError: The tool chose to answer with a JSON-RPC error.
        Spoiled: It chose to send something that is not an answer.
    """
    try:
        answer = tool.run(arguments)
        if isinstance(answer, Iterator):
            answer = yield from cast("Generator[Sleep | Progress, None, object]", answer)
    except (RpcError, Spoiled):
        raise
    except Exception as exc:
        return _text(f"Error executing tool {tool.name}: {exc!r}", is_error=True)
    return dict(answer) if isinstance(answer, Mapping) else _text(str(answer))


def _text(text: str, *, is_error: bool = False) -> Message:
    """A tool result of one text block."""
    return {"content": [{"type": "text", "text": text}], "isError": is_error}


def _add(arguments: Mapping[str, Any]) -> object:
    return str(arguments["a"] + arguments["b"])


def _charge(arguments: Mapping[str, Any]) -> object:
    return f"charged {arguments.get('amount', 1)}"


def _slow(arguments: Mapping[str, Any]) -> Generator[Sleep, None, object]:
    seconds = float(arguments.get("seconds", 1))
    yield Sleep(seconds)
    return f"slept {seconds:g}"


def _progress(arguments: Mapping[str, Any]) -> Generator[Progress, None, object]:
    steps = int(arguments.get("steps", 3))
    for step in range(1, steps + 1):
        yield Progress(step, steps, f"step {step}")
    return f"{steps} steps done"


def _session_expired_result(arguments: Mapping[str, Any]) -> object:
    return _text("session expired", is_error=True)


def _shopping(arguments: Mapping[str, Any]) -> object:
    raise RpcError(-32603, "Tool failed: the user's shopping session expired")


def _schema(**properties: str) -> Message:
    """An input schema of optional properties with the given JSON types."""
    return {"type": "object", "properties": {name: {"type": kind} for name, kind in properties.items()}}


def default_tools() -> tuple[ScriptedTool, ...]:
    """The tools every `Script` has unless it is given others.

    `session_expired_result` and `shopping` fail with texts that resemble a lost MCP session, although the session is
    fine and the tool has run.
    """
    return (
        ScriptedTool("add", _add, READ_ONLY, "Add two numbers.", _schema(a="number", b="number")),
        ScriptedTool("charge", _charge, {}, "Charge an amount; not idempotent.", _schema(amount="number")),
        ScriptedTool("slow", _slow, READ_ONLY, "Answer after a while.", _schema(seconds="number")),
        ScriptedTool("slow_charge", _slow, {}, "Like slow, not idempotent.", _schema(seconds="number")),
        ScriptedTool("session_expired_result", _session_expired_result, {}, "Fail inside the result."),
        ScriptedTool("shopping", _shopping, {}, "Fail with a misleading JSON-RPC error."),
        ScriptedTool("progress", _progress, READ_ONLY, "Report progress.", _schema(steps="integer")),
    )
