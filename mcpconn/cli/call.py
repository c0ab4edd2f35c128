"""`mcpconn call`: one tool, once."""

from __future__ import annotations

import json
import sys
from typing import Any

import mcp_types as types
from mcp.shared.exceptions import MCPError

from mcpconn.cli.connect import managed, once
from mcpconn.cli.failures import FAILED, UNKNOWN, USAGE, CliError, describe
from mcpconn.cli.output import clean, complain, print_json
from mcpconn.config import ServerConfig
from mcpconn.connection import Connection
from mcpconn.errors import CallFailed
from mcpconn.handlers.wording import no_such_tool
from mcpconn.redact.redactor import redacted


def arguments_of(text: str) -> dict[str, Any]:
    """The arguments of a tool from the command line; `-` reads them from standard input.

    Raises:
        CliError: they are no JSON object.
    """
    source = "ARGUMENTS" if text != "-" else "standard input"
    example = """; write a JSON object, in single quotes: '{"a": 1}'"""
    try:
        value = json.loads(sys.stdin.read() if text == "-" else text)
    except json.JSONDecodeError as error:
        raise CliError(f"{source} is not JSON ({error.msg} at character {error.pos + 1}){example}", USAGE) from None
    if not isinstance(value, dict):
        raise CliError(f"{source} is JSON, but no object{example}", USAGE)
    return value


async def call(
    name: str,
    config: ServerConfig,
    tool: str,
    arguments: dict[str, Any],
    *,
    timeout: float,
    wait: float,
    idempotent: bool | None,
    as_json: bool,
) -> int:
    """Call a tool and print what it answered; returns the exit status."""
    async with managed({name: config}, once(timeout, wait)) as manager:
        connection = manager[name]
        try:
            result = await connection.call_tool(tool, arguments, timeout=timeout, idempotent=idempotent)
        except CallFailed as error:
            if not as_json:
                raise
            print_json(_failure(error))
            return UNKNOWN if error.outcome == "unknown" else FAILED
        except MCPError as error:
            missing = await _missing(connection, tool, timeout)
            message = connection.redact(missing or describe(error)[0])
            if not as_json:
                raise CliError(f"{name}: {message}") from error
            # What a tool had done before it raised, no code says.
            print_json({"error": message, "kind": "application", "code": error.code, "outcome": "unknown"})
            return FAILED
        missing = await _missing(connection, tool, timeout) if result.is_error else None
        redact = connection.redact
    if result.is_error and as_json:
        dumped = redacted(result.model_dump(mode="json", by_alias=True, exclude_none=True), redact)
        said = {"outcome": "ran"} if missing is None else {"error": redact(missing), "outcome": "unknown"}
        print_json({**dumped, **said})
    elif result.is_error:
        complain(f"{name}: {redact(missing or f'{tool} failed: {text_of(result)}')}")
    elif as_json:
        print_json(result.model_dump(mode="json", by_alias=True, exclude_none=True))
    else:
        sys.stdout.write(_for_terminal(text_of(result)) + "\n")
    return FAILED if result.is_error else 0


def _failure(error: CallFailed) -> dict[str, Any]:
    return {
        "error": str(error),
        "kind": error.failure.kind.value,
        "state": error.state.value,
        "outcome": error.outcome,
        "retry_in": error.retry_in,
    }


async def _missing(connection: Connection, tool: str, timeout: float) -> str | None:
    """Says that the server has no such tool, if its own complete listing lacks it."""
    if await connection.catalog.look_up(tool, timeout=timeout) is not False:
        return None
    return no_such_tool(tool, connection.catalog.tools)


def text_of(result: types.CallToolResult) -> str:
    """What a tool answered, as text; what is no text is described."""
    pieces = [_block(block) for block in result.content]
    if not pieces and result.structured_content is not None:
        pieces = [json.dumps(result.structured_content, indent=2, ensure_ascii=False)]
    return "\n".join(pieces)


def _block(block: types.ContentBlock) -> str:
    if isinstance(block, types.TextContent):
        return block.text
    if isinstance(block, (types.ImageContent, types.AudioContent)):
        return f"[{block.mime_type}, {len(block.data) * 3 // 4:,} bytes; --json shows the data]"
    if isinstance(block, types.ResourceLink):
        return f"[{block.name}: {block.uri}]"
    resource = block.resource
    if isinstance(resource, types.TextResourceContents):
        return resource.text
    return f"[{resource.uri}, {len(resource.blob) * 3 // 4:,} bytes; --json shows the data]"


def _for_terminal(text: str) -> str:
    """A file gets what the tool said; a terminal gets nothing that would command it."""
    return clean(text) if sys.stdout.isatty() else text
