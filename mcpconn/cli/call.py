"""`mcpconn call`: one tool, once."""

from __future__ import annotations

import json
import sys
from typing import Any

import mcp_types as types
from mcp.shared.exceptions import MCPError

from mcpconn.cli.connect import managed, once
from mcpconn.cli.failures import FAILED, UNKNOWN, CliError, describe
from mcpconn.cli.meanwhile import Meanwhile
from mcpconn.cli.output import clean, complain, print_json
from mcpconn.config import ServerConfig
from mcpconn.connection import Connection
from mcpconn.errors import CallFailed
from mcpconn.handlers.wording import no_such_tool
from mcpconn.redact.redactor import redacted


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
    quiet: bool = True,
) -> int:
    """Call a tool and print its result; returns the exit status."""
    meanwhile = Meanwhile(quiet=quiet)
    async with managed({name: config}, once(timeout, wait), logging_callback=meanwhile.log) as manager:
        connection = manager[name]
        meanwhile.redact = connection.redact
        try:
            result = await connection.call_tool(
                tool, arguments, progress_callback=meanwhile.progress, timeout=timeout, idempotent=idempotent
            )
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
            # No error code tells what a tool had done before it raised.
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
        sys.stdout.write(for_terminal(text_of(result)) + "\n")
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
    """A message that the server has no such tool, if its complete listing lacks it."""
    if await connection.catalog.look_up(tool, timeout=timeout) is not False:
        return None
    return no_such_tool(tool, connection.catalog.tools)


def text_of(result: types.CallToolResult) -> str:
    """The result of a tool as text; other content is described."""
    pieces = [block(each) for each in result.content]
    if not pieces and result.structured_content is not None:
        pieces = [json.dumps(result.structured_content, indent=2, ensure_ascii=False)]
    return "\n".join(pieces)


def block(piece: types.ContentBlock) -> str:
    """A content block as text; other content is described."""
    if isinstance(piece, types.TextContent):
        return piece.text
    if isinstance(piece, (types.ImageContent, types.AudioContent)):
        return f"[{piece.mime_type}, {len(piece.data) * 3 // 4:,} bytes; --json shows the data]"
    if isinstance(piece, types.ResourceLink):
        return f"[{piece.name}: {piece.uri}]"
    resource = piece.resource
    if isinstance(resource, types.TextResourceContents):
        return resource.text
    return f"[{resource.uri}, {len(resource.blob) * 3 // 4:,} bytes; --json shows the data]"


def for_terminal(text: str) -> str:
    """A file gets the unchanged text; for a terminal, control characters are removed."""
    return clean(text) if sys.stdout.isatty() else text
